"""``python -m benchmarks.faithfulness PHOTOS``: how well each interpreter's maps show what the classifier uses.

Deletion, insertion and *kept* of ``underfire.interpreters.faithfulness`` on photos that the classifier gets right,
beside controls that know nothing of it; and with ``--stamps`` localisation against exact outlines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from benchmarks.contenders import Maps, contenders
from benchmarks.header import header
from benchmarks.localisation import table as localisation_table
from benchmarks.quality.measure import Batch, batches
from benchmarks.stamps import find_stamps, scenes
from benchmarks.tables import Table, interval
from underfire import Classifier, load_classifier, stats
from underfire.auditing.names import known_interpreters
from underfire.choices import split_names
from underfire.errors import InputError
from underfire.images import find_photos
from underfire.interpreters.faithfulness import Faithfulness, Probe, faithfulness

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Of the pixels that are shown, in the sweep; at the ends the blurred photo and the photo itself."""

CONFIDENCE = 0.3
"""Probability from which on a stamp's most probable class is taken for its class."""


@dataclass(frozen=True)
class Scores:
    """One contender's measures over all photos.

    Attributes:
        deletion, insertion: one number per photo.
        p: by share shown, the class's probability, one number per photo.
        holds: by share shown, whether the class was the prediction, one number per photo.
    """

    deletion: list[float]
    insertion: list[float]
    p: Mapping[float, list[float]]
    holds: Mapping[float, list[bool]]

    @classmethod
    def of(cls, parts: Sequence[Faithfulness]) -> "Scores":
        """The measures of all batches together."""
        swept = {share: [part.kept(share) for part in parts] for share in SHARES}
        return cls(
            torch.cat([part.deletion for part in parts]).tolist(),
            torch.cat([part.insertion for part in parts]).tolist(),
            {share: torch.cat([p for p, _ in kept]).tolist() for share, kept in swept.items()},
            {share: torch.cat([holds for _, holds in kept]).tolist() for share, kept in swept.items()},
        )


def measure(
    classifier: Classifier, makers: Mapping[str, Maps], parts: Sequence[Batch], probe: Probe
) -> dict[str, Scores]:
    """Every contender's measures on the photos of ``parts``, for their labels."""

    def of(maps: Maps, batch: Batch) -> Faithfulness:
        x, y = batch.x, batch.label.to(batch.x.device)
        return faithfulness(classifier, x, y, maps(x, y, batch.names), probe=probe, keys=batch.names)

    return {name: Scores.of([of(maps, batch) for batch in parts]) for name, maps in makers.items()}


def tables(scores: Mapping[str, Scores], baseline: str, probe: Probe) -> list[Table]:
    """The measures, their paired differences to ``baseline``, and the sweep over shares."""
    shown = f"{100 * probe.share:.0f} %"
    n = len(scores[baseline].deletion)
    measures: dict[str, Callable[[Scores], Sequence[float]]] = {
        "deletion, lower is better": lambda one: one.deletion,
        "insertion, higher": lambda one: one.insertion,
        f"p with {shown} shown, higher": lambda one: one.p[probe.share],
    }
    values = [
        (
            name,
            *(interval(stats.bootstrap_mean(list(of(one)))) for of in measures.values()),
            interval(stats.wilson(sum(one.holds[probe.share]), n)),
        )
        for name, one in scores.items()
    ]
    differences = [
        (
            name,
            *(interval(stats.bootstrap_paired(of(one), of(scores[baseline])), signed=True) for of in measures.values()),
        )
        for name, one in scores.items()
        if name != baseline
    ]
    sweep = [
        (name, *(f"{sum(one.p[share]) / n:.3f}, {sum(one.holds[share])}" for share in SHARES))
        for name, one in scores.items()
    ]
    return [
        Table(
            f"Faithfulness, n = {n}, means [95 %]",
            ("map", *measures, f"class kept with {shown}"),
            values,
            (f"{probe.levels} levels; what is not shown is blurred by {probe.blur:.3f} of the short side.",),
        ),
        Table(f"The same less {baseline}, paired [95 %]", ("map", *measures), differences),
        Table(
            f"Mean p of the class and how many of {n} keep it, by the share of pixels shown",
            ("map", *(f"{100 * share:.0f} %" for share in SHARES)),
            sweep,
        ),
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--names", type=click.Path(exists=True, path_type=Path), help="A file with the photos to use, one a line."
)
@click.option(
    "--interpreters",
    default="grad,ig,cam,gradcam",
    show_default=True,
    help="Comma-separated; the first is the baseline.",
)
@click.option("--rts", metavar="FILE", help="Weights of RTS, by `underfire train rts`.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many photos.")
@click.option("--stamps", type=click.Path(exists=True, path_type=Path, file_okay=False), help="Tux Paint's stamps.")
@click.option("--stamp-limit", type=click.IntRange(1), default=30, show_default=True, help="At most so many stamps.")
@click.option("--batch-size", type=click.IntRange(1), default=10, show_default=True, help="Photos explained together.")
@click.option("--device", default="cpu", show_default=True)
def main(
    photos: Path,
    names: Path | None,
    interpreters: str,
    rts: str | None,
    limit: int,
    stamps: Path | None,
    stamp_limit: int,
    batch_size: int,
    device: str,
) -> None:
    """Measure the maps of PHOTOS that the built-in classifier gets right, and print the tables."""
    try:
        wanted = split_names(interpreters, tuple(known_interpreters()), "interpreter")
        classifier = load_classifier(device=device)
        makers = contenders(classifier, wanted, rts=rts)
        found = find_photos([photos], class_names=classifier.class_names).photos
        if names is not None:
            listed = set(names.read_text(encoding="utf-8").splitlines())
            found = tuple(photo for photo in found if photo.image_id in listed)
        parts = list(batches(classifier, found, limit=limit, size=batch_size))
        if not parts:
            raise InputError(f"the classifier gets none of the {len(found)} photos right; give others")
        click.echo(header())
        probe = Probe()
        for table in tables(measure(classifier, makers, parts, probe), wanted[0], probe):
            click.echo(table)
        if stamps is not None:
            pictures = scenes(classifier, find_stamps(stamps), stamps, limit=stamp_limit, confidence=CONFIDENCE)
            click.echo(localisation_table(pictures, makers, wanted[0], batch_size))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
