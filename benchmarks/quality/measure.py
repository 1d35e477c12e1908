"""Quality against passes: how near each attack brings each map, for a budget of passes.

A measurement of hours: every finished batch is a line in a file, and a run that is started again goes on where it was.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import Table
from underfire import ADV2, CAM, GRAD, IG, MASK, PGD, RTS, AuthorsADV2, Classifier, GradCAM, Interpreter, metrics, stats
from underfire.attacks import AttackResult
from underfire.auditing.targets import choose_target
from underfire.images import load_photo
from underfire.images.records import Photo

INTERPRETERS: Mapping[str, Callable[[Classifier], Interpreter]] = {
    "cam": CAM,
    "gradcam": GradCAM,
    "grad": GRAD,
    "ig": IG,
    "mask": MASK,
    "rts": RTS,
}
BUDGETS = (100, 300, 1000)
"""Passes per photo."""


PUBLISHED = 0
"""In place of a budget: the authors' schedule at its published length."""


@dataclass(frozen=True)
class Entrant:
    """One attack with one budget on one interpreter.

    Attributes:
        attack: ``adv2``, ``authors`` or ``pgd``.
        interpreter: whose map is attacked and measured.
        passes: budget of an image, or for ``authors`` :data:`PUBLISHED`.
    """

    attack: str
    interpreter: str
    passes: int

    def __call__(self, classifier: Classifier, interpreter: Interpreter, batch: "Batch") -> AttackResult:
        """Attack ``batch``."""
        if self.attack == "pgd":
            return PGD(classifier, passes=self.passes)(batch.x, batch.target, keys=batch.names)
        make = AuthorsADV2 if self.attack == "authors" else ADV2
        return make(interpreter, passes=self.passes or None)(batch.x, batch.target, label=batch.label, keys=batch.names)


@dataclass(frozen=True)
class Batch:
    """Photos that the classifier gets right, with a random target each.

    Attributes:
        names: file names.
        x: (N, C, H, W) in [0, 1], whole grey levels.
        label, target: (N,) int64.
    """

    names: tuple[str, ...]
    x: Tensor
    label: Tensor
    target: Tensor


@dataclass(frozen=True)
class View:
    """One image as the unmodified classifier sees it: success, p_t, and L1 and IoU at 0.5 to the benign map."""

    success: bool
    p: float
    l1: float
    iou: float


@dataclass(frozen=True)
class Found:
    """What one entrant reached on one photo: the image as computed, and rounded to whole grey levels."""

    photo: str
    attack: str
    interpreter: str
    budget: int
    passes: int
    seconds: float
    computed: View
    rounded: View


def batches(classifier: Classifier, photos: Sequence[Photo], *, limit: int, size: int) -> Iterator[Batch]:
    """At most ``limit`` photos whose label the classifier gets right, ``size`` together."""
    right = islice(_right(classifier, photos), limit)
    while part := list(islice(right, size)):
        names, images, labels, targets = zip(*part, strict=True)
        yield Batch(names, torch.stack(images), torch.tensor(labels), torch.tensor(targets))


def measure(classifier: Classifier, entrants: Sequence[Entrant], parts: Sequence[Batch], log: Path) -> Iterator[Found]:
    """What every entrant reached on every photo, from ``log`` where it stands there already; new lines are added."""
    known = {(found.attack, found.interpreter, found.budget, found.photo): found for found in read(log)}
    for entrant in entrants:
        key = (entrant.attack, entrant.interpreter, entrant.passes)
        interpreter = INTERPRETERS[entrant.interpreter](classifier)
        for batch in parts:
            if any((*key, name) not in known for name in batch.names):
                fresh = list(_score(entrant, interpreter, batch, entrant(classifier, interpreter, batch)))
                with log.open("a", encoding="utf-8") as lines:
                    lines.writelines(f"{json.dumps(asdict(found))}\n" for found in fresh)
                known.update({(*key, found.photo): found for found in fresh})
            yield from (known[*key, name] for name in batch.names)


def read(log: Path) -> list[Found]:
    """The lines of ``log``, none where there is no such file."""
    if not log.exists():
        return []
    return [_parsed(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def table(found: Sequence[Found]) -> Table:
    """One line per entrant."""
    groups: dict[tuple[str, str, int], list[Found]] = {}
    for one in found:
        groups.setdefault((one.interpreter, one.attack, one.budget), []).append(one)
    rows = [(name, attack, *_cells(group)) for (name, attack, _), group in groups.items()]
    columns = (
        "map",
        "attack",
        "passes",
        "n",
        "ASR",
        "p_t",
        "L1 [95 %]",
        "IoU",
        "ASR 8-bit",
        "L1 8-bit",
        "IoU 8-bit",
        "s",
    )
    notes = (
        "Means over all n photos, failed attacks included; passes and s (seconds) per photo; L1 and IoU at 0.5 of the"
        " map for the target class against the benign map; intervals are bootstrapped.",
    )
    return Table("Quality against passes", columns, rows, notes)


def _cells(group: Sequence[Found]) -> tuple[str, ...]:
    def mean(value: Callable[[Found], float]) -> float:
        return sum(map(value, group)) / len(group)

    spread = stats.bootstrap_mean([found.computed.l1 for found in group])
    interval = "" if spread.low is None or spread.high is None else f" [{spread.low:.4f}, {spread.high:.4f}]"
    return (
        f"{mean(lambda found: found.passes):.0f}",
        f"{len(group)}",
        f"{mean(lambda found: found.computed.success):.2f}",
        f"{mean(lambda found: found.computed.p):.3f}",
        f"{mean(lambda found: found.computed.l1):.4f}{interval}",
        f"{mean(lambda found: found.computed.iou):.2f}",
        f"{mean(lambda found: found.rounded.success):.2f}",
        f"{mean(lambda found: found.rounded.l1):.4f}",
        f"{mean(lambda found: found.rounded.iou):.2f}",
        f"{mean(lambda found: found.seconds):.1f}",
    )


def _parsed(line: dict[str, Any]) -> Found:
    computed, rounded = (View(**line.pop(name)) for name in ("computed", "rounded"))
    return Found(**line, computed=computed, rounded=rounded)


def _right(classifier: Classifier, photos: Sequence[Photo]) -> Iterator[tuple[str, Tensor, int, int]]:
    for photo in photos:
        pixels = load_photo(photo.path, classifier.preprocessing).pixels
        x = pixels.to(classifier.device, classifier.dtype) / 255
        prediction = int(classifier(x[None]).argmax())
        if photo.label is None or prediction != photo.label:
            continue
        target = choose_target(
            "random",
            image_id=photo.image_id,
            label=photo.label,
            shown=[prediction],
            given=None,
            class_names=classifier.class_names,
            seed=0,
        )
        yield photo.image_id, x, photo.label, target


def _score(entrant: Entrant, interpreter: Interpreter, batch: Batch, result: AttackResult) -> Iterator[Found]:
    benign = interpreter(batch.x, batch.label, keys=batch.names)
    saved = (result.x_adv * 255).round() / 255
    computed = views(interpreter, batch, result.x_adv, benign)
    rounded = computed if torch.equal(saved, result.x_adv) else views(interpreter, batch, saved, benign)
    for i, name in enumerate(batch.names):
        cost = (int(result.passes[i]), result.seconds / len(batch.names))
        yield Found(
            name, entrant.attack, entrant.interpreter, entrant.passes, *cost, computed=computed[i], rounded=rounded[i]
        )


def views(interpreter: Interpreter, batch: Batch, x: Tensor, benign: Tensor) -> list[View]:
    """Images ``x`` (N, C, H, W) of ``batch`` as ``interpreter`` and its classifier see them, beside maps ``benign``."""
    probabilities = interpreter.classifier.probabilities(x)
    maps = interpreter(x, batch.target, keys=batch.names)
    p = probabilities.gather(1, batch.target[:, None]).squeeze(1)
    success = probabilities.argmax(dim=1) == batch.target
    l1, iou = metrics.l1(maps, benign), metrics.iou(maps, benign, threshold=0.5)
    return [View(bool(success[i]), float(p[i]), float(l1[i]), float(iou[i])) for i in range(len(x))]
