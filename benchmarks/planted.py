"""``python -m benchmarks.planted PHOTOS``: does ADV² find an optimum that is known to exist?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from benchmarks.header import header
from benchmarks.photos import named_photos, names_option
from benchmarks.tables import Table
from underfire import ADV2, Classifier, load_classifier, stats
from underfire.images import Photo, load_photo
from underfire.testing import Standing, Validity, plant_optimum
from underfire.testing.planted import TARGET_KEPT


@dataclass(frozen=True)
class Found:
    """One photo: whether its problem is valid, and where ADV² with its defaults ended, a batch of one."""

    image_id: str
    validity: Validity
    adv2: Standing


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@names_option()
@click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="At most so many photos.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(photos: Path, lists: tuple[Path, ...], limit: int, seed: int) -> None:
    """Plant an optimum for CAM at each of PHOTOS that the built-in classifier gets right, and attack it."""
    click.echo(header())
    classifier = load_classifier()
    found = named_photos(classifier, photos, lists)
    finished: list[Found] = []
    try:
        for one in islice(measure(classifier, found, seed=seed), limit):
            click.echo(" | ".join(_cells(one)), err=True)
            finished.append(one)
    except KeyboardInterrupt:
        click.echo(f"Stopped before all {limit} photos were attacked.\n")
    click.echo(table(finished))


def measure(classifier: Classifier, photos: Sequence[Photo], *, seed: int) -> Iterator[Found]:
    """Attack the photos that the classifier gets right, one after the other, each in a classifier of its own."""
    for photo in photos:
        x = load_photo(photo.path, classifier.preprocessing).pixels[None].to(classifier.dtype) / 255
        label = classifier(x).argmax(dim=1)
        if int(label) != photo.label:
            continue
        planted = plant_optimum(classifier, x, label, seed=seed, key=photo.image_id)
        result = ADV2(planted.interpreter)(planted.x, planted.aim, keys=planted.keys)
        assert planted.validity is not None
        yield Found(photo.image_id, planted.validity, planted.judge(result.x_adv))


def table(found: Sequence[Found]) -> Table:
    """A line per photo, and in how many of the valid problems the goal was reached."""
    valid = [one for one in found if not one.validity.faults]
    reached = sum(bool(one.adv2.reached) for one in valid)
    faults = [f"{one.image_id}: {', '.join(one.validity.faults)}" for one in found if one.validity.faults]
    return Table(
        "Planted optima for CAM",
        ("photo", "valid", "‖w_t‖ / ‖w_y‖", "random points", "PGD's L1", "ADV²'s L1", "label", "reached"),
        [_cells(one) for one in found],
        (
            f"ADV² reaches the goal, the target class and L1 ≤ {TARGET_KEPT.limit:g} on 8 bits, on {reached} of"
            f" {len(valid)} valid problems (n = {len(found)} photos); 95 % interval of the share"
            f" {_interval(reached, len(valid))}.",
            f"Not valid: {'; '.join(faults) or 'none'}.",
        ),
    )


def _cells(one: Found) -> tuple[str, ...]:
    return (
        one.image_id,
        "no" if one.validity.faults else "yes",
        f"{one.validity.norm_ratio:.2f}",
        f"{one.validity.random_hits} of {one.validity.random_points}",
        f"{one.validity.label_only:.3f}",
        f"{float(one.adv2.value):.4f}",
        "yes" if bool(one.adv2.label) else "no",
        "yes" if bool(one.adv2.reached) else "no",
    )


def _interval(reached: int, n: int) -> str:
    share = stats.wilson(reached, n)
    return "-" if share.low is None or share.high is None else f"[{share.low:.2f}, {share.high:.2f}]"


if __name__ == "__main__":
    main()
