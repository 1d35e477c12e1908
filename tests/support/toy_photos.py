"""A folder of photos for the toy network, and audits of it that take a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from support.rows import flat
from support.toys import images, relu_net
from underfire.auditing.plan import AuditPlan, ModelSettings
from underfire.auditing.rows import read_rows
from underfire.images import PhotoSet, find_photos, save_png
from underfire.models.classifier import Classifier

SPEC = "toys:relu_net"
SIZE = 32
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
MODEL_OPTIONS = ("--model", SPEC, "--input-size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
MISCLASSIFIED = "photo-3.png"
BROKEN = "broken.png"


@contextmanager
def one_thread() -> Iterator[None]:
    """What the block computes is equal to the bit to what another process with one thread does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def toy_classifier() -> Classifier:
    """What `MODEL_OPTIONS` load."""
    return Classifier(relu_net(), mean=MEAN, std=STD, input_size=SIZE, name=SPEC)


def toy_plan() -> AuditPlan:
    """Few steps on two interpreters."""
    model = ModelSettings(SPEC, mean=MEAN, std=STD, input_size=(SIZE, SIZE))
    return AuditPlan(model=model, interpreters=("grad", "cam"), steps=16, batch_size=2)


def write_photos(folder: Path, count: int = 5) -> Path:
    """``count`` photos and a file that is none, with a manifest: labels the model agrees with, except for one."""
    folder.mkdir(parents=True)
    pictures = images(count, SIZE, seed=1)
    names = [f"photo-{index}.png" for index in range(count)]
    for picture, name in zip(pictures, names, strict=True):
        save_png(picture, folder / name)
    (folder / BROKEN).write_bytes(b"not an image")
    # On the pixels as saved: rounding may change what the model sees.
    labels = toy_classifier().probabilities(torch.round(pictures * 255) / 255).argmax(dim=1).tolist()
    if count > 3:
        labels[3] = (labels[3] + 1) % 10
    lines = [f"{name},{label},{(label + 2) % 10}" for name, label in zip(names, labels, strict=True)]
    lines.insert(1, f"{BROKEN},0,1")
    (folder / "manifest.csv").write_text("file_name,label,target\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


def found(folder: Path) -> PhotoSet:
    """The photos of ``write_photos``."""
    return find_photos([folder], class_names=toy_classifier().class_names)


def rows_of(run: Path) -> list[SimpleNamespace]:
    """All rows of a run, flat, but for their one measurement of time, in an order of their own."""
    rows = [flat(replace(row, spent=replace(row.spent, seconds=0.0))) for row in read_rows(run)]
    return sorted(rows, key=lambda row: (row.image_id, row.attack, row.source, row.interpreter))


def leftovers(run: Path) -> list[Path]:
    """Hidden files in a run directory, other than the lock."""
    return [path for path in run.rglob(".*") if path.name != ".lock"]
