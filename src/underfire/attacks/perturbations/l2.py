"""The L2 ball: the change of an image as a whole is small."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from underfire.attacks.perturbations.additive import Additive, random_signs
from underfire.errors import InputError


@dataclass(frozen=True)
class L2(Additive):
    """The changes of all pixel values together have a Euclidean length of at most ``eps``; values stay in [0, 1].

    The default, 3.0, is the radius most used on 224×224 photos (robust ImageNet models are trained and tested at
    it). Spread evenly it is 2 grey levels a value, against the 8 of the L∞ default.

    Raises:
        InputError: ``eps`` is not a finite number above 0.
    """

    eps: float = 3.0

    name: ClassVar[str] = "l2"
    unit: ClassVar[str] = "Euclidean length, of pixel values of [0, 1]"
    summary: ClassVar[str] = "all pixel values, together a little"

    def __post_init__(self) -> None:
        """Check the budget."""
        if not 0 < self.eps < math.inf:
            raise InputError(f"eps {self.eps:g} is no L2 radius; give a finite number above 0, such as 3.")

    def steepest(self, direction: Tensor) -> Tensor:
        """``direction`` at length 1; zero stays zero."""
        size = lengths(direction)[:, None, None, None]
        return torch.where(size > 0, direction / size, 0.0).to(direction.dtype)  # in float64: 1/size may be too large

    def share(self, theta: Tensor) -> float:
        """1/√D for images of D values."""
        return 1 / math.sqrt(theta.shape[1:].numel())

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Every value clipped to [0, 1], then the whole change shortened to ``eps`` if it is longer.

        In this order both hold: shortening moves each value towards that of ``x``, which is in [0, 1] as well. It is
        not always the nearest image that keeps both: of the whole change, not only of what was not clipped, a part
        is lost.
        """
        clipped = theta.clamp(0, 1)
        change = clipped - x
        size = lengths(change)[:, None, None, None]
        # Each of D sums is rounded by at most a quarter of finfo.eps; so much less, and the sum is inside for certain.
        radius = max(0.0, self.eps - math.sqrt(x.shape[1:].numel()) * torch.finfo(x.dtype).eps / 2)
        return torch.where(size > self.eps, x + (change * (radius / size)).to(x.dtype), clipped)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """(N,) the length of the change."""
        return lengths(theta.double() - x.double()).to(x.dtype)

    def harmless(self, x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """Every value up or down by the same, cut to [0, 1]."""
        return self.project(x, x + self.eps * self.share(x) * random_signs(x, draws))

    def rounded(self, x: Tensor, image: Tensor) -> Tensor:
        """``image`` in the nearest whole grey levels, uint8; where these leave the ball, some are one level nearer.

        Those that rounding moved away from ``x`` go back, the ones first that were nearest to the middle between two
        levels for what they take from the square of the length, and no more of them than needed. If all go back, no
        value changed by more than before, so that the image is inside. Rounding everything towards ``x`` would keep
        the ball too, at the cost of half a level for every value: a fifth of what the default budget gives.
        """
        centre = (x.double() * 255).round().flatten(1)
        change = (image.double() * 255).flatten(1) - centre
        whole = change.round()
        excess = whole.square().sum(dim=1, keepdim=True) - (self.eps * 255) ** 2  # whole numbers: exact in any order
        away = whole.abs() - change.abs()  # in (0, 1/2] where rounding moved away from x
        gain = (2 * whole.abs() - 1).clamp_min(0) * (away > 0)
        order = torch.where(gain > 0, (1 - 2 * away) / gain, torch.inf).argsort(dim=1, stable=True)
        gains = gain.gather(1, order)
        needed = (gains.cumsum(dim=1) - gains < excess - 1e-6) & (gains > 0)
        back = torch.zeros_like(needed).scatter(1, order, needed)
        return (centre + whole - whole.sign() * back).clamp(0, 255).reshape(x.shape).to(torch.uint8)

    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) bool: the change is no longer than ``eps``, but for the rounding of sums."""
        return (
            lengths(image.double() - x.double()) <= self.eps + math.sqrt(x.shape[1:].numel()) * torch.finfo(x.dtype).eps
        )


def lengths(offsets: Tensor) -> Tensor:
    """L2 norms (N,) of ``offsets`` (N, C, H, W), in float64.

    Rows of pixels are summed first, then the rows: where one image's sum is made in one go, a machine with several
    threads splits it among them if the image is alone and not if it is one of many, and the last digits differ.
    """
    rows = offsets.contiguous().double().square().sum(dim=-1)
    return rows.sum(dim=(1, 2)).sqrt()
