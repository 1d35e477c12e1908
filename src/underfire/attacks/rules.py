"""Step rules: from a direction to a move of about one step per value."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from underfire.attacks.perturbations.l2 import lengths


class Stepper(Protocol):
    """The moves of one attack, with whatever must be remembered from step to step."""

    def __call__(self, direction: Tensor) -> Tensor:
        """The move, shaped like ``direction`` (N, ...), in steps."""
        ...

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        ...


class Rule(Protocol):
    """A step rule, of which every attack begins one of its own."""

    def begin(self, theta: Tensor) -> Stepper:
        """A stepper for parameters shaped like ``theta`` (N, ...)."""
        ...


@dataclass(frozen=True)
class Adam:
    """Moves by the ratio of the mean direction to its spread (Kingma & Ba 2015), at most ``longest`` steps.

    A map's direction is noisy: the next iterate crosses kinks of the network that the last one did not. Where a
    pixel's direction changes from step to step it hardly moves; the sign of the mean would move it a whole step
    and undo what the others gained.

    Attributes:
        mean, spread: how much of the running mean and of the running mean square a step keeps.
        longest: no value moves further than so many steps at once.
    """

    mean: float = 0.9
    spread: float = 0.95
    longest: float = 1.5

    def begin(self, theta: Tensor) -> Stepper:
        """A stepper that has seen nothing yet."""
        return _Moments(self, theta)


class _Moments:
    def __init__(self, rule: Adam, like: Tensor) -> None:
        self._rule, self._count = rule, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def __call__(self, direction: Tensor) -> Tensor:
        rule = self._rule
        self._count += 1
        # In place: allocating tensors of this size takes longer than the arithmetic.
        self._mean.mul_(rule.mean).add_(direction * (1 - rule.mean))
        self._square.mul_(rule.spread).add_(direction.square().mul_(1 - rule.spread))
        mean = self._mean / (1 - rule.mean**self._count)
        spread = (self._square / (1 - rule.spread**self._count)).sqrt_()
        return mean.div_(spread.clamp_min_(torch.finfo(spread.dtype).tiny)).clamp_(-rule.longest, rule.longest)

    def select(self, places: Tensor) -> None:
        self._mean, self._square = self._mean[places], self._square[places]


@dataclass(frozen=True)
class Sign:
    """Moves every value by one whole step, as in PGD."""

    def begin(self, theta: Tensor) -> Stepper:  # noqa: ARG002 - remembers nothing
        """A stepper, the same for any parameters."""
        return _Signs()


class _Signs:
    def __call__(self, direction: Tensor) -> Tensor:
        return direction.sign()

    def select(self, places: Tensor) -> None:
        pass


@dataclass(frozen=True)
class Momentum:
    """Moves along the running mean of the directions, by one step in the root mean square of all values.

    In the Euclidean norm a value earns its move by the size of its gradient, which the other rules take away.

    Attributes:
        mean: how much of the running mean a step keeps.
    """

    mean: float = 0.9

    def begin(self, theta: Tensor) -> Stepper:
        """A stepper that has seen nothing yet."""
        return _Averaged(self, theta)


class _Averaged:
    def __init__(self, rule: Momentum, like: Tensor) -> None:
        self._rule, self._mean = rule, torch.zeros_like(like)

    def __call__(self, direction: Tensor) -> Tensor:
        self._mean = self._rule.mean * self._mean + (1 - self._rule.mean) * rms_one(direction)
        return rms_one(self._mean)

    def select(self, places: Tensor) -> None:
        self._mean = self._mean[places]


def rms_one(direction: Tensor) -> Tensor:
    """``direction`` (N, C, H, W) scaled per image to root mean square 1; zero stays zero."""
    size = lengths(direction)[:, None, None, None] / math.sqrt(direction.shape[1:].numel())
    return torch.where(size > 0, direction / size, 0.0).to(direction.dtype)
