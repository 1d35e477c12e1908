"""``python -m benchmarks.audit_costs``: what the pieces of an audit cost, as options of ``benchmarks.simulation``.

Seconds are of the CPU, so that what else the machine does has little part in them.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import click
import torch

from benchmarks import large_run
from benchmarks.header import header
from underfire import PGD, Classifier, Linf, load_classifier
from underfire.attacks.engine import descend
from underfire.auditing.inspection import inspect_photos
from underfire.auditing.plan import AuditPlan
from underfire.auditing.unit import noise, save_and_read
from underfire.images import PhotoLoader, builtin_photos
from underfire.images.png import from_8bit
from underfire.models.folded import prepared

STEPS = 5
REPORTS = (2500, 5000)
"""Photos of the two runs whose reports are compared: both above the number from which on rows are streamed."""


@dataclass(frozen=True)
class Costs:
    """Seconds of a CPU, and where they are spent.

    Attributes:
        one_pass: a worker's, for a forward and backward pass of one photo within an attack.
        image: a worker's, to save an image and read it back.
        photo: the driver's, to read a photo and predict its class before the first part.
        row: the driver's, to verify, summarise and report a row.
        start: a worker's, to load the model and be ready.
    """

    one_pass: float
    image: float
    photo: float
    row: float
    start: float

    @property
    def options(self) -> str:
        """For the command line of the simulation."""
        return " ".join(f"--{field.name.replace('_', '-')} {getattr(self, field.name):.3g}" for field in fields(self))


def cpu_seconds(work: Callable[[], object]) -> float:
    """What ``work`` takes of the CPU, in all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def pass_seconds(classifier: Classifier, *, batch: int) -> float:
    """Of a pass of one photo, within `PGD` on a prepared classifier."""
    x = classifier.patterns()[:1].expand(batch, -1, -1, -1)
    target = torch.ones(batch, dtype=torch.int64, device=x.device)
    twin, setting = prepared(classifier), PGD(classifier, steps=STEPS).setting
    descend(twin, x, target, (), setting)
    return cpu_seconds(lambda: descend(twin, x, target, (), setting)) / (batch * (STEPS + 1))


def image_seconds(classifier: Classifier) -> float:
    """Of a built-in photo under noise of full size, which a PNG cannot shrink."""
    loader, model = PhotoLoader(classifier.preprocessing), Linf(8 / 255)
    photos = builtin_photos().photos
    x = from_8bit(torch.stack([loader.load(photo.path).pixels for photo in photos]), classifier.dtype)
    noisy, _ = noise(x, model, seed=0, keys=[photo.image_id for photo in photos])
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{place}.png" for place in range(len(photos))]
        return cpu_seconds(lambda: save_and_read(noisy, x, model, paths)) / len(photos)


def photo_seconds(classifier: Classifier) -> float:
    """Of a photo that is inspected, among the built-in ones."""
    photos = builtin_photos()
    plan = AuditPlan()
    inspect_photos(plan, classifier, photos, strict=False)
    return cpu_seconds(lambda: inspect_photos(plan, classifier, photos, strict=False)) / len(photos.photos)


def row_seconds() -> float:
    """Of a row, from what the reports of two runs take."""
    found = []
    for photos in REPORTS:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "run"
            large_run.write_run(folder, photos, batch_size=64)
            found.append(large_run.measure(folder)["cpu"])
    conditions = len(AuditPlan(interpreters=large_run.INTERPRETERS).conditions)
    return (found[1] - found[0]) / ((REPORTS[1] - REPORTS[0]) * conditions * len(large_run.INTERPRETERS))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", default="efficientnet-lite0", show_default=True, help="As for `underfire audit`.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Photos in a pass.")
def main(model: str, batch_size: int) -> None:
    """Measure them here, on the CPU."""
    click.echo(header())
    classifier = load_classifier(model)
    found = Costs(
        start=time.process_time(),  # this process has done as much as a worker by now, and first: nothing else
        one_pass=pass_seconds(classifier, batch=batch_size),
        image=image_seconds(classifier),
        photo=photo_seconds(classifier),
        row=row_seconds(),
    )
    click.echo(found.options)


if __name__ == "__main__":
    main()
