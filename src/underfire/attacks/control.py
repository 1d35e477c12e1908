"""How an attack divides each step between the prediction and the maps, and how long its steps are."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Lengths of the steps, in pixel values.

    Attributes:
        steps: all of them, warm start included.
        warm: the first steps, on the prediction alone.
        first: step size of the warm start.
        peak, last: the joint steps go from ``peak`` down to ``last`` along half a cosine.
    """

    steps: int
    warm: int
    first: float
    peak: float
    last: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; an attack takes at least 1 step.")
        for size in (self.first, self.peak, self.last):
            if not 0 < size < math.inf:
                raise InputError(f"step_size {size:g} must be a finite number above 0.")

    @classmethod
    def constant(cls, steps: int, step_size: float) -> "Schedule":
        """Steps of one size, as in PGD."""
        return cls(steps, warm=0, first=step_size, peak=step_size, last=step_size)

    def size(self, step: int) -> float:
        """Step size at ``step``, counted from 0."""
        if step < self.warm:
            return self.first
        progress = (step - self.warm) / max(1, self.steps - self.warm)
        return self.last + (self.peak - self.last) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Confidence:
    """What counts as a prediction that holds: argmax is the target and p_t is at least ``keep``.

    A step minds the prediction as long as p_t is below ``seek``, a little above ``keep``, so that the label
    is not lost by the next step on the map.
    """

    keep: float = 0.9
    seek: float = 0.95

    def holds(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) bool: the label holds on these ``logits`` (N, K)."""
        p = probability(logits, target)
        return (p >= self.keep) & (logits.argmax(dim=1) == target)

    def wanting(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) bool: the next step minds the prediction."""
        return probability(logits, target) < self.seek


class Balance:
    """λ, the weight of the maps' direction against the prediction's: one number per image, steered by the label.

    Both directions have unit size, so λ = 1 is an even share. While the prediction wants more, λ falls, so that an
    image whose label is hard to get is not held back by its map; while the label holds, λ recovers.
    """

    LOWEST, FALL, RISE = 0.1, 0.95, 1.05

    def __init__(self, n: int, like: Tensor) -> None:
        self.weight = torch.ones(n, dtype=like.dtype, device=like.device)

    def mix(self, prediction: Tensor, maps: Tensor, wanting: Tensor) -> Tensor:
        """The step's direction (N, C, H, W) from the two unit directions; ``wanting`` (N,) bool moves λ."""
        mixed = prediction * wanting[:, None, None, None] + maps * self.weight[:, None, None, None]
        factor = torch.where(wanting, self.FALL, self.RISE)
        self.weight = (self.weight * factor).clamp(self.LOWEST, 1.0)
        return mixed


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """p_t (N,) of ``target`` (N,) under ``logits`` (N, K), detached."""
    return logits.detach().softmax(dim=1).gather(1, target[:, None]).squeeze(1)


def unit(direction: Tensor) -> Tensor:
    """``direction`` (N, C, H, W) scaled per image to mean magnitude 1; zero stays zero."""
    size = direction.abs().mean(dim=(1, 2, 3), keepdim=True)
    return direction / size.clamp_min(torch.finfo(direction.dtype).tiny)
