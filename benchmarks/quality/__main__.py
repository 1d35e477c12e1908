"""``python -m benchmarks.quality PHOTOS``: a measurement of hours, which goes on where it was stopped."""

from pathlib import Path

import click

from benchmarks.header import header
from benchmarks.quality.figure import draw
from benchmarks.quality.measure import BUDGETS, INTERPRETERS, PUBLISHED, Entrant, batches, measure, table
from underfire import load_classifier
from underfire.attacks.authors import PUBLISHED as AUTHORS
from underfire.images import find_photos

ATTACKS = ("adv2", "authors", "pgd")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--names", type=click.Path(exists=True, path_type=Path), help="A file with the photos to use, one a line."
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many photos.")
@click.option("--batch-size", type=click.IntRange(1), default=10, show_default=True)
@click.option("--interpreter", "interpreters", multiple=True, type=click.Choice(list(INTERPRETERS)))
@click.option("--attack", "attacks", multiple=True, type=click.Choice(ATTACKS))
@click.option("--passes", "budgets", multiple=True, type=click.IntRange(1), help="A budget; may be given again.")
@click.option("--published", is_flag=True, help="The authors' schedule at its own length.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--log", type=click.Path(path_type=Path), required=True, help="Where finished batches are kept.")
@click.option("--figure", type=click.Path(path_type=Path), help="An SVG of all that the log holds.")
def main(
    photos: Path,
    names: Path | None,
    limit: int,
    batch_size: int,
    interpreters: tuple[str, ...],
    attacks: tuple[str, ...],
    budgets: tuple[int, ...],
    published: bool,
    device: str,
    log: Path,
    figure: Path | None,
) -> None:
    """Attack PHOTOS whose label the built-in classifier gets right, towards a random class and the benign map."""
    click.echo(header())
    classifier = load_classifier(device=device)
    found = find_photos([photos], class_names=classifier.class_names).photos
    if names is not None:
        wanted = set(names.read_text(encoding="utf-8").splitlines())
        found = tuple(photo for photo in found if photo.image_id in wanted)
    parts = list(batches(classifier, found, limit=limit, size=batch_size))
    entrants = [
        Entrant(attack, name, passes)
        for name in interpreters or INTERPRETERS
        for attack in attacks or ATTACKS
        if attack != "authors" or name in AUTHORS
        for passes in ([PUBLISHED] if published and attack == "authors" else budgets or BUDGETS)
    ]
    click.echo(table(list(measure(classifier, entrants, parts, log))))
    if figure is not None:
        draw(log, figure)


if __name__ == "__main__":
    main()
