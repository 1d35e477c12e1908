"""One architecture: the map of each interpreter beside the one by hand, and some steps of an attack on it."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from benchmarks.architectures.by_hand import BY_HAND, POINTS, SEGMENTS, NoMapError
from benchmarks.architectures.zoo import Architecture
from underfire import ADV2, Classifier, InputError, Interpreter, MaskFit
from underfire.images import builtin_photos, load_photo
from underfire.interpreters import ALL
from underfire.interpreters.rts import RTS
from underfire.models.features import find_features

STEPS, EPS = 2, 8 / 255
CLOSE = 1e-2
"""Largest difference of two maps in [0, 1] that count as the same.

A network with random weights may be so sure that its gradient is near rounding; a map that is wrong is so by far more.
"""

CHEAP: Mapping[str, Mapping[str, Any]] = {
    "ig": {"points": POINTS},
    "smoothgrad": {"samples": 4},
    "occlusion": {"segments": SEGMENTS},
    "rise": {"masks": 8},
    "kernelshap": {"segments": SEGMENTS, "samples": 2**SEGMENTS**2},
    "lime": {"segments": SEGMENTS, "samples": 16},
    "mask": {"fit": MaskFit(steps=4)},
}
"""Options that make a map or a step cheaper, and change nothing of how it is made."""


class OutOfTimeError(Exception):
    """A measurement took longer than it may."""


@dataclass(frozen=True)
class Found:
    """What became of one interpreter on one architecture.

    Attributes:
        map: "right" if it is the map by hand, "wrong" if it is another one, "made" where none is written down by hand;
            where the one by hand is a constant, "empty" if it is one too and "noise" if not; "refused" or "failed".
        attack: "done", "refused" or "failed"; None where there is no map.
        reason: of a refusal or a failure, in a sentence.
        difference: the largest one from the map by hand.
        seconds: of the map and the attack together.
    """

    map: str
    attack: str | None = None
    reason: str | None = None
    difference: float | None = None
    seconds: float = 0.0


def measured(name: str, architecture: Architecture, known: Mapping[str, Any], *, limit: int) -> dict[str, Any]:
    """JSON values: where the picture was found, and a `Found` for each interpreter; at most ``limit`` seconds each.

    What is in ``known``, a result of an earlier call, is not measured again.
    """
    classifier = architecture.classifier(name)
    x = load_photo(builtin_photos().photos[0].path, classifier.preprocessing).pixels[None] / 255
    label = int(classifier(x).argmax())
    found = dict(known.get("interpreters", {}))
    for kind in ALL:
        if kind is not RTS and kind.name not in found:  # that one has to be trained first
            found[kind.name] = asdict(_found(kind, classifier, architecture, x, label, limit))
    return {"name": name, "size": classifier.input_size[0], "features": _features(classifier), "interpreters": found}


def _features(classifier: Classifier) -> str:
    try:
        features = find_features(classifier)
    except InputError as error:
        return _without_name(str(error), classifier)
    layout, (h, w) = features.layout, features.grid
    prefix = f" after {layout.prefix}" if layout.prefix else ""
    return f"`{features.module}`, {h}×{w} {layout.kind}{prefix}"


def _found(
    kind: type[Interpreter], classifier: Classifier, architecture: Architecture, x: Tensor, label: int, limit: int
) -> Found:
    began = time.perf_counter()
    try:
        with _at_most(limit):
            reason = kind.available(classifier)
            if reason is not None:
                return Found("refused", reason=_without_name(reason, classifier))
            interpreter = kind(classifier, **CHEAP.get(kind.name, {}))
            y = torch.tensor([label])
            benign = interpreter(x, y)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is what this table shows
        return Found("failed", reason=_told(error), seconds=time.perf_counter() - began)
    verdict, difference = _compared(interpreter, architecture, x, label, benign[0])
    attack, reason = _attacked(interpreter, x, label, benign, limit)
    return Found(verdict, attack, reason, difference, time.perf_counter() - began)


def _compared(
    g: Interpreter, architecture: Architecture, x: Tensor, label: int, benign: Tensor
) -> tuple[str, float | None]:
    """What the map is, and its largest difference from the one by hand, 1 for another grid."""
    by_hand = BY_HAND.get(g.name)
    try:
        with g.classifier.frozen(), torch.enable_grad():
            expected = None if by_hand is None else by_hand(g.classifier, architecture, x, label)
    except NoMapError:
        return "empty" if benign.max() == benign.min() else "noise", None
    if expected is None:
        return "made", None
    difference = float((expected - benign).abs().max()) if expected.shape == benign.shape else 1.0
    return "right" if difference <= CLOSE else "wrong", difference


def _attacked(interpreter: Interpreter, x: Tensor, label: int, benign: Tensor, limit: int) -> tuple[str, str | None]:
    classes = interpreter.classifier.num_classes
    target = torch.tensor([(label + classes // 2) % classes])
    try:
        with _at_most(limit):
            result = ADV2(interpreter, steps=STEPS, eps=EPS)(x, target, target_map=benign)
    except InputError as error:
        return "refused", _without_name(str(error), interpreter.classifier)
    except Exception as error:  # noqa: BLE001 - as above
        return "failed", _told(error)
    moved = float((result.x_adv - x).abs().max())
    if moved > EPS + 1e-6:
        return "failed", f"moved by {moved:g}"
    return "done", None


def _without_name(reason: str, classifier: Classifier) -> str:
    """A sentence that several architectures can share."""
    return reason.replace(repr(classifier.name), "the model")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Raises `OutOfTimeError` if the block takes longer."""

    def stop(_: int, __: FrameType | None) -> None:
        raise OutOfTimeError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
