"""``python -m benchmarks.mask_fit PHOTOS``: how long a fit of MASK has to be, and what a step of it costs."""

from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.quality.measure import batches
from benchmarks.steps import forward_backward
from benchmarks.tables import Table, interval
from benchmarks.timing import clock_of, in_turn, ratio
from underfire import MASK, Classifier, MaskFit, load_classifier, stats
from underfire.images import find_photos
from underfire.interpreters.masks.fit import Fitted
from underfire.interpreters.masks.settings import AUTHORS

WINDOW = 20
"""Steps over which the objective is averaged: its jitter changes from step to step."""

LENGTHS = (50, 75, 100, 150, 200, AUTHORS.steps)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--names", type=click.Path(exists=True, path_type=Path), help="A file with the photos to leave out.")
@click.option("--limit", type=click.IntRange(2), default=8, show_default=True, help="At most so many photos.")
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True, help="Timings of each kind.")
@click.option("--device", default="cpu", show_default=True)
def main(photos: Path, names: Path | None, limit: int, turns: int, device: str) -> None:
    """Fit MASK on PHOTOS whose label the built-in classifier gets right."""
    click.echo(header())
    classifier = load_classifier(device=device)
    found = find_photos([photos], class_names=classifier.class_names).photos
    left_out = set() if names is None else set(names.read_text(encoding="utf-8").splitlines())
    (batch,) = batches(
        classifier, [photo for photo in found if photo.image_id not in left_out], limit=limit, size=limit
    )
    fitted = MASK(classifier, fit=AUTHORS).fitted(batch.x, batch.label, keys=batch.names)
    click.echo(lengths(fitted))
    click.echo(cost(classifier, batch.x, batch.label, turns=turns))


def lengths(fitted: Fitted) -> Table:
    """The objective at several lengths of one fit: a shorter fit is the beginning of a longer one."""
    means = {length: fitted.objective[:, length - WINDOW : length].mean(dim=1) for length in LENGTHS}
    last = means[LENGTHS[-1]]
    rows = [
        (
            f"{length}",
            f"{float(mean.mean()):.4f}",
            interval(stats.bootstrap_mean((mean - last).tolist()), signed=True),
        )
        for length, mean in means.items()
    ]
    note = f"Means over {len(last)} photos and the last {WINDOW} steps; the difference is paired, with a 95 % interval."
    return Table("Objective of MASK's fit", ("steps", "objective", f"less that at {LENGTHS[-1]}"), rows, (note,))


def cost(classifier: Classifier, x: Tensor, y: Tensor, *, turns: int) -> Table:
    """Seconds of a step of the fit against a raw forward and backward pass of the same classifier, taken in turn."""
    keys = tuple(map(str, range(len(x))))
    few = MASK(classifier, fit=MaskFit(steps=4))

    def raw() -> Tensor:
        return torch.stack([forward_backward(classifier, x, y) for _ in range(few.fit.steps)])

    with classifier.frozen():
        work = {"fit": lambda: few(x, y, keys=keys), "raw": raw}
        seconds = in_turn(work, turns=turns, clock=clock_of(classifier.device))
    row = (f"{len(x)}", str(ratio(seconds["fit"], seconds["raw"])))
    return Table("One step of MASK's fit", ("batch", "in raw passes"), [row], (f"{few.fit.steps} steps a turn.",))


if __name__ == "__main__":
    main()
