"""The L∞ ball: every pixel value may change a little."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from underfire.attacks.perturbations.additive import Additive, random_signs
from underfire.attacks.perturbations.base import Perturbation
from underfire.errors import InputError


@dataclass(frozen=True)
class Linf(Additive):
    """Every pixel value may change by at most ``eps``, and stays in [0, 1].

    Raises:
        InputError: ``eps`` is not in (0, 1].
    """

    eps: float = 8 / 255

    name: ClassVar[str] = "linf"
    unit: ClassVar[str] = "pixel values of [0, 1]"
    summary: ClassVar[str] = "each pixel value, a little"

    def __post_init__(self) -> None:
        """Check the budget."""
        if not 0 < self.eps <= 1:
            hint = f"; for 8-bit units write {self.eps:g}/255" if self.eps > 1 else ""
            raise InputError(f"eps {self.eps:g} is not in (0, 1]: images have values in [0, 1]{hint}.")

    @property
    def grey_levels(self) -> int:
        """The whole grey levels of an 8-bit image that ``eps`` amounts to: by so many a saved pixel may differ."""
        return int(self.eps * 255 + 1e-6)  # 8/255 * 255 may come out as 7.999…

    def steepest(self, direction: Tensor) -> Tensor:
        """The sign: one whole step for every pixel value, as in PGD."""
        return direction.sign()

    def share(self, theta: Tensor) -> float:  # noqa: ARG002 - the same for any image
        """1: in this norm all pixel values move at once for the price of one."""
        return 1.0

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Every value clipped to within ``eps`` of ``x`` and to [0, 1]."""
        return (theta - x).clamp_(-self.eps, self.eps).add_(x).clamp_(0, 1)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """(N,) the largest change of a pixel value."""
        return (theta - x).abs_().amax(dim=(1, 2, 3))

    def harmless(self, x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """Every value up or down by ``eps``, cut to [0, 1]."""
        return self.project(x, x + self.eps * random_signs(x, draws))

    def rounded(self, x: Tensor, image: Tensor) -> Tensor:
        """The nearest whole grey levels, uint8; where these leave the ball, the next ones on the side of ``x``."""
        # In place after the copy, and in int16 once the values are whole: the time goes into memory traffic.
        exact = (values.to(torch.float64, copy=True).mul_(255).round_() for values in (x, image))
        centre, nearest = (levels.to(torch.int16) for levels in exact)
        radius = self.grey_levels
        return nearest.sub_(centre).clamp_(-radius, radius).add_(centre).clamp_(0, 255).to(torch.uint8)

    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) bool: no value changed by more than ``eps``, but for the rounding of sums."""
        return (image - x).abs_().amax(dim=(1, 2, 3)) <= self.eps + 4 * torch.finfo(x.dtype).eps


def chosen(perturbation: Perturbation | None, eps: float | None) -> Perturbation:
    """The perturbation model of an attack's arguments: the one given, or the L∞ ball of size ``eps``, 8/255 by default.

    Raises:
        InputError: both are given, a class is given in place of a model, or ``eps`` is out of range.
    """
    if perturbation is None:
        return Linf() if eps is None else Linf(eps)
    if eps is not None:
        raise InputError(
            f"eps {eps:g} is given next to a perturbation, which has a budget of its own; give one of them."
        )
    if isinstance(perturbation, type):
        name = perturbation.__name__
        raise InputError(f"perturbation {name} is a class; write {name}() for its default budget, or {name}(eps).")
    return perturbation
