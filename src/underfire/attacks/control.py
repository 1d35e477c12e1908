"""How an attack divides each step between the prediction and the maps, and how long its steps are."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.directional import unit


@dataclass(frozen=True)
class Schedule:
    """Lengths of the steps, in pixel values.

    Attributes:
        steps: all of them, warm start included.
        warm: the first steps, on the prediction alone.
        first: step size of the warm start.
        peak, last: in every stage the joint steps go down to ``last`` along half a cosine: in the first from ``peak``,
            in the next from a third of that, then from a fifth, a seventh, …, but never from below ``last``.
        ends: the numbers of steps after which the stages end, of which the last may lie beyond ``steps``; empty for
            one stage of all steps.
    """

    steps: int
    warm: int
    first: float
    peak: float
    last: float
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; an attack takes at least 1 step.")
        for size in (self.first, self.peak, self.last):
            if not 0 < size < math.inf:
                raise InputError(f"step_size {size:g} must be a finite number above 0.")
        if self.ends and self.ends[-1] < self.steps:
            raise InputError(f"the stages end after {self.ends[-1]} steps, and steps is {self.steps}.")

    @classmethod
    def constant(cls, steps: int, step_size: float) -> "Schedule":
        """Steps of one size, as in PGD."""
        return cls(steps, warm=0, first=step_size, peak=step_size, last=step_size)

    def size(self, step: int) -> float:
        """Step size at ``step``, counted from 0."""
        if step < self.warm:
            return self.first
        ends = self.ends or (self.steps,)
        stage = bisect_right(ends, step)
        start = ends[stage - 1] if stage else self.warm
        progress = (step - start) / max(1, ends[stage] - start)
        peak = max(self.last, self.peak / (1 + 2 * stage))
        return self.last + (peak - self.last) * 0.5 * (1 + math.cos(math.pi * progress))

    def without(self, spent: int) -> "Schedule":
        """What is left of it after ``spent`` steps: at least one."""
        steps = max(1, self.steps - spent)
        ends = tuple(end - spent if end < self.steps else max(steps, end - spent) for end in self.ends)
        return replace(self, steps=steps, warm=max(0, self.warm - spent), ends=ends)


class Mixer(Protocol):
    """How one attack shares its joint steps between the prediction and the maps."""

    def __call__(
        self,
        prediction: Tensor,
        directions: Sequence[Tensor],
        distances: Sequence[Tensor],
        needs_confidence: Tensor,
        step: int,
    ) -> Tensor:
        """The direction (N, ...) of a joint step from those of the prediction and of every map.

        ``distances`` (N,) tell how far each map is from its target, and ``needs_confidence`` (N,) bool whose
        prediction is not yet what it should be; ``step`` counts from the first step of the warm start. A step that
        looks at no map has no ``directions``.
        """
        ...

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        ...


class Mix(Protocol):
    """A way to share, of which every attack begins one of its own."""

    def begin(self, x: Tensor) -> Mixer:
        """A mixer for the images ``x`` (N, C, H, W)."""
        ...


class Weighting(Protocol):
    """How the maps of several interpreters share a step among themselves."""

    @property
    def name(self) -> str:
        """What command lines and rows call it."""
        ...

    def __call__(self, directions: Sequence[Tensor], distances: Sequence[Tensor]) -> Tensor:
        """One direction (N, ...) of unit size, or 0, from those of every map; at least one.

        Args:
            directions: for each interpreter the direction (N, ...) that lowers its loss.
            distances: for each the L1 distance (N,) of its map from the target.
        """
        ...


@dataclass(frozen=True)
class Normalized:
    """Every map counts alike, whatever the size of its gradient: gradient-balanced."""

    name: ClassVar[str] = "normalized"

    def __call__(self, directions: Sequence[Tensor], distances: Sequence[Tensor]) -> Tensor:  # noqa: ARG002 - directions suffice
        """The mean of the directions at unit size; where they cancel out it is shorter."""
        return torch.stack([unit(direction) for direction in directions]).mean(dim=0)


@dataclass(frozen=True)
class Sum:
    """Every loss counts the same, as in a sum with fixed weights of 1: the steepest one leads."""

    name: ClassVar[str] = "sum"

    def __call__(self, directions: Sequence[Tensor], distances: Sequence[Tensor]) -> Tensor:  # noqa: ARG002 - directions suffice
        """The sum of the directions, at unit size."""
        return unit(torch.stack(list(directions)).sum(dim=0))


@dataclass(frozen=True)
class Minimax:
    """For each image the map that is furthest from its target has the step: the descent of a maximum."""

    name: ClassVar[str] = "minimax"

    def __call__(self, directions: Sequence[Tensor], distances: Sequence[Tensor]) -> Tensor:
        """Of each image the direction of the first interpreter with the largest map distance, at unit size."""
        chosen = torch.stack(list(distances)).argmax(dim=0)
        rows = torch.arange(len(chosen), device=chosen.device)
        return torch.stack([unit(direction) for direction in directions])[chosen, rows]


@dataclass(frozen=True)
class Unmet:
    """As `Normalized`, but for maps that meet their goal with something to spare, which have no share.

    Attributes:
        spare: by so much; distances are shortfalls, as those of `Until`.
    """

    spare: float = 0.1

    name: ClassVar[str] = "unmet"

    def __call__(self, directions: Sequence[Tensor], distances: Sequence[Tensor]) -> Tensor:
        """The mean of the directions of maps that want more, at unit size."""
        wanting = [(distance > -self.spare)[:, None, None, None] for distance in distances]
        return torch.stack([unit(d) * w for d, w in zip(directions, wanting, strict=True)]).mean(dim=0)


NORMALIZED, SUM, MINIMAX, UNMET = Normalized(), Sum(), Minimax(), Unmet()

FORMER_NAMES: Mapping[str, str] = MappingProxyType({"even": "normalized", "fixed": "sum", "worst": "minimax"})
"""What the weightings were called before: command lines still take these, and keys of work folders hold them."""


@dataclass(frozen=True)
class Balance:
    """λ, the weight of the maps' direction against the prediction's: one number per image, steered by the label.

    Directions are scaled to unit size, so λ = 1 is an even share. While the prediction wants more, λ falls, so that
    an image whose label is hard to get is not held back by its map; while the label is reached, λ recovers and the
    prediction is left alone.

    Attributes:
        lowest: λ stays in [``lowest``, 1].
        fall, rise: its factors at a step whose label wants more, and at one whose label is reached.
        weighting: among the maps.
        alone: an image's first steps, so many at most, are on its prediction alone, until that first wants no more.
    """

    lowest: float = 0.1
    fall: float = 0.95
    rise: float = 1.05
    weighting: Weighting = NORMALIZED
    alone: int = 0

    def begin(self, x: Tensor) -> Mixer:
        """λ = 1 for each of the images ``x``."""
        return _Balanced(self, x)


class _Balanced:
    def __init__(self, rule: Balance, x: Tensor) -> None:
        self._rule, self._weight = rule, x.new_ones(x.shape[0])
        self._begun = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)

    def __call__(
        self,
        prediction: Tensor,
        directions: Sequence[Tensor],
        distances: Sequence[Tensor],
        needs_confidence: Tensor,
        step: int,
    ) -> Tensor:
        mixed = unit(prediction) * needs_confidence[:, None, None, None]
        if not directions:
            return mixed
        self._begun = self._begun | ~needs_confidence | (step >= self._rule.alone)
        weight = self._weight * self._begun
        mixed = mixed + self._rule.weighting(directions, distances) * weight[:, None, None, None]
        factor = torch.where(needs_confidence, self._rule.fall, self._rule.rise)
        self._weight = torch.where(self._begun, (self._weight * factor).clamp(self._rule.lowest, 1.0), self._weight)
        return mixed

    def select(self, places: Tensor) -> None:
        self._weight, self._begun = self._weight[places], self._begun[places]


@dataclass(frozen=True)
class Weighted:
    """λ by schedule: the prediction's gradient plus λ times that of every map, unscaled and always on.

    Attributes:
        warm: the steps before the first joint one.
        weights: λ of each joint step.
    """

    warm: int
    weights: tuple[float, ...]

    def begin(self, x: Tensor) -> Mixer:  # noqa: ARG002 - remembers nothing
        """A mixer, the same for any images."""
        return _Weighed(self)


class _Weighed:
    def __init__(self, rule: Weighted) -> None:
        self._rule = rule

    def __call__(
        self,
        prediction: Tensor,
        directions: Sequence[Tensor],
        distances: Sequence[Tensor],  # noqa: ARG002
        needs_confidence: Tensor,  # noqa: ARG002
        step: int,
    ) -> Tensor:
        return prediction + self._rule.weights[step - self._rule.warm] * sum(directions)

    def select(self, places: Tensor) -> None:
        pass
