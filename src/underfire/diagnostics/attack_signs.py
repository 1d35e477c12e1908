"""Whether an attack did what it could: signs, read off its own course, that a failure says little about the model.

The questions are those of Athalye et al. 2018 ("Obfuscated gradients give a false sense of security"), Carlini et
al. 2019 ("On evaluating adversarial robustness") and Pintor et al. 2022 ("Indicators of attack failure"): were there
gradients, did the loss fall, had it stopped falling. Thresholds are ours; each stands below with its reason.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from torch import Tensor

from underfire.attacks.trace import Course, Trace

STUCK = 0.1
"""Share of steps without a gradient from which on it counts: a tenth of the budget is lost, and a network with
ReLUs that is attacked as it should be loses none."""

FALL = 0.1
"""A loss that ends less than this share below where it began did not fall: the losses of neighbouring iterates differ
by as much, so that the best of many is a few per cent lower even where the attack has no idea where to go."""

GAIN = 0.5
"""The second half of the steps was still needed if it lowered the loss by at least this share. Steps shrink towards the
end, so that a joint attack gains there however long it is: a third where more steps no longer helped (GRAD, 500)."""

SETTLED = 0.01
"""The second half of the steps was not needed if it lowered the loss by less than this share: below what a table of
the report shows."""

NEAR = 0.01
"""A mean gap to the target map of at most this much leaves a longer attack nothing to show: a hundredth of the range
of a map, at which its regions are those of the target."""

REACHED = math.log(2)
"""A prediction loss of at most this much, in nats, is a label that was reached: a class with half of the probability
is the prediction, whatever the others are."""


class Weight(StrEnum):
    """What a sign means for the figures."""

    SERIOUS = "serious"
    """They cannot be trusted."""
    CAUTION = "caution"
    """They are bounds: the attack may be weaker than it could be."""
    NOTE = "note"
    """They stand."""


@dataclass(frozen=True)
class Reading:
    """A sign in plain words.

    Attributes:
        weight: what it means for the figures.
        seen: what was seen on a photo, or of the model, as the rest of a sentence.
        means: what follows from it, in whole sentences.
        advice: what to do, a whole sentence; empty where there is nothing to do.
    """

    weight: Weight
    seen: str
    means: str
    advice: str = ""


class Indicator(StrEnum):
    """What the course of an attack on one image can show."""

    ZERO_GRADIENTS = "zero_gradients"
    LOSS_NOT_FALLING = "loss_not_falling"
    MAPS_NOT_MOVING = "maps_not_moving"
    STILL_IMPROVING = "still_improving"
    SETTLED = "settled"

    @property
    def reading(self) -> Reading:
        """It in plain words."""
        return _READINGS[self]


_READINGS: Mapping[Indicator, Reading] = MappingProxyType(
    {
        Indicator.ZERO_GRADIENTS: Reading(
            Weight.SERIOUS,
            f"the gradient was zero in every pixel at {100 * STUCK:.0f} % of the steps or more while the label was not "
            "reached",
            "There an attack that follows gradients is blind, and that it fails shows nothing about the model.",
            "Look for rounding, thresholds or saturated values inside the model, and judge it by an attack that needs "
            "no gradient.",
        ),
        Indicator.LOSS_NOT_FALLING: Reading(
            Weight.CAUTION,
            f"the label was not reached and its loss fell by less than {100 * FALL:.0f} %",
            "The attack got nowhere, so that it failed says little about the model.",
            "Try a larger budget ε; if nothing changes, the model may hide its gradients.",
        ),
        Indicator.MAPS_NOT_MOVING: Reading(
            Weight.CAUTION,
            "the label was reached, but the map ended no nearer its target than where the attack on it began (by less "
            f"than {100 * FALL:.0f} %)",
            "A map that looks safe here may only have been attacked badly.",
            "Read the distances of this attack as upper bounds, and try more steps.",
        ),
        Indicator.STILL_IMPROVING: Reading(
            Weight.CAUTION,
            f"the second half of the steps still lowered the attack’s loss by {100 * GAIN:.0f} % or more",
            "It was not at its end: a longer attack may come nearer the benign map, or reach the label more often.",
            "Read distances as upper bounds and the success rate as a lower bound, or give more steps.",
        ),
        Indicator.SETTLED: Reading(
            Weight.NOTE,
            f"the second half of the steps gained less than {100 * SETTLED:.0f} %",
            "A longer attack of this kind would hardly do better there.",
        ),
    }
)


@dataclass(frozen=True)
class ImageCourse:
    """One loss of an attack on one image; see `underfire.attacks.trace.Course`. None where nothing was seen."""

    first: float | None
    half: float | None
    kept: float | None


@dataclass(frozen=True)
class ImageTrace:
    """The course of an attack on one image; see `underfire.attacks.trace.Trace`.

    ``maps`` is None where none is attacked, and where the attack never came to ask for one: a search asks once the
    label holds.
    """

    stuck: float
    prediction: ImageCourse
    maps: ImageCourse | None


def image_traces(trace: Trace) -> list[ImageTrace]:
    """``trace`` of N images, image by image."""
    stuck = trace.stuck.tolist()
    prediction = _courses(trace.prediction)
    seen = [None] * len(stuck) if trace.maps is None else _courses(trace.maps)
    maps = [None if course == ImageCourse(None, None, None) else course for course in seen]
    return [ImageTrace(*parts) for parts in zip(stuck, prediction, maps, strict=True)]


def indicators(trace: ImageTrace, *, success: bool) -> tuple[Indicator, ...]:
    """What the course of one attack shows, in the order of `Indicator`; ``success``: the label was reached."""
    found = []
    if trace.stuck >= STUCK:
        found.append(Indicator.ZERO_GRADIENTS)
    if not success and _fell_less(trace.prediction.first, trace.prediction.kept, FALL):
        found.append(Indicator.LOSS_NOT_FALLING)
    if success and trace.maps and not _near(trace.maps) and _fell_less(trace.maps.first, trace.maps.kept, FALL):
        found.append(Indicator.MAPS_NOT_MOVING)
    wanted = _wanted(trace, success=success)
    if wanted and _fell_by(wanted.half, wanted.kept, GAIN):
        found.append(Indicator.STILL_IMPROVING)
    if wanted and not found and _fell_less(wanted.half, wanted.kept, SETTLED):  # what never moved has not settled
        found.append(Indicator.SETTLED)
    return tuple(found)


def _wanted(trace: ImageTrace, *, success: bool) -> ImageCourse | None:
    """The loss that the second half of the steps was after; None if there was nothing left to gain.

    Kept iterates are compared by their gap only where both have the label: before, they are chosen by the prediction
    loss, and their gap is that of an image that nobody would use.
    """
    if trace.maps is None:
        return None if success else trace.prediction
    if not (_reached(trace.prediction.half) and _reached(trace.prediction.kept)):
        return trace.prediction
    return None if _near(trace.maps) else trace.maps


def _reached(nll: float | None) -> bool:
    return nll is not None and nll <= REACHED


def _near(maps: ImageCourse) -> bool:
    """Whether the map is so near its target that nothing is left to gain."""
    return maps.kept is not None and maps.kept <= NEAR


def _fell_less(before: float | None, after: float | None, share: float) -> bool:
    """Whether a loss fell by less than ``share``; not, where nothing is known."""
    return before is not None and after is not None and after > before * (1 - share)


def _fell_by(before: float | None, after: float | None, share: float) -> bool:
    """Whether a loss fell by ``share`` or more; not, where nothing is known."""
    return before is not None and after is not None and after <= before * (1 - share)


def _courses(course: Course) -> list[ImageCourse]:
    return [ImageCourse(*row) for row in zip(*map(_numbers, (course.first, course.half, course.kept)), strict=True)]


def _numbers(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
