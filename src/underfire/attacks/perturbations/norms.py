"""Balls of one norm with a radius for each image, for attacks that look for the smallest.

Images are in whole grey levels, as they would be saved; radii (N,) are float64, in pixel values of [0, 1].
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from underfire.attacks.perturbations.base import Perturbation
from underfire.attacks.perturbations.l2 import L2, lengths
from underfire.attacks.perturbations.linf import Linf
from underfire.attacks.rules import Adam, Momentum, Rule
from underfire.images.png import from_8bit

NormName = Literal["linf", "l2"]

LEVEL = 1 / 255
"""One grey level, the smallest change of an image."""


class Norm(Protocol):
    """What a search for the smallest radius asks of a norm; ``x`` (N, C, H, W) consists of multiples of 1/255."""

    name: ClassVar[NormName]

    def ball(self, eps: float) -> Perturbation:
        """All images within ``eps``."""
        ...

    def first(self, x: Tensor) -> float:
        """A radius at which most attacks get what they want."""
        ...

    def largest(self, x: Tensor) -> float:
        """The radius that holds every image."""
        ...

    def project(self, x: Tensor, theta: Tensor, radius: Tensor) -> Tensor:
        """``theta`` (N, C, H, W) brought within ``radius`` of ``x``, and into [0, 1]."""
        ...

    def saved(self, x: Tensor, theta: Tensor, radius: Tensor) -> Tensor:
        """An image in whole grey levels within ``radius`` that goes from ``x`` the way that ``theta`` goes."""
        ...

    def size(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) how far ``image``, in whole grey levels, is from ``x``: float64, without rounding."""
        ...

    def move(self, steps: Tensor, radius: Tensor) -> Tensor:
        """``steps`` (N, C, H, W) of about 1 per value as a change that ``radius`` is long."""
        ...

    def rule(self) -> Rule:
        """How directions become steps in this norm."""
        ...

    def below(self, low: Tensor, high: Tensor, stride: Tensor) -> Tensor:
        """Radii (N,) to try below ``high``, which is enough, where ``low`` is too small.

        They are smaller by the share ``stride``, but not below the geometric mean of both, and by no less than counts.
        """
        ...


@dataclass(frozen=True)
class GreyLevels:
    """L∞, in whole grey levels."""

    name: ClassVar[NormName] = "linf"

    def ball(self, eps: float) -> Linf:
        """All images within ``eps``."""
        return Linf(eps)

    def first(self, x: Tensor) -> float:  # noqa: ARG002 - the same for any image
        """The default of attacks within one ball."""
        return Linf.eps

    def largest(self, x: Tensor) -> float:  # noqa: ARG002 - the same for any image
        """From black to white."""
        return 1.0

    def project(self, x: Tensor, theta: Tensor, radius: Tensor) -> Tensor:
        """Every value clipped to within ``radius`` of ``x`` and to [0, 1]."""
        reach = _beside(radius, x)
        return torch.minimum(torch.maximum(theta, x - reach), x + reach).clamp(0, 1)

    def saved(self, x: Tensor, theta: Tensor, radius: Tensor) -> Tensor:
        """The nearest whole grey levels within ``radius``."""
        centre, reach = _levels(x), _beside((radius * 255).round(), x)
        inside = torch.minimum(torch.maximum(_levels(theta), centre - reach), centre + reach)
        return from_8bit(inside.clamp(0, 255), x.dtype)

    def size(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) the largest change of a value, k/255."""
        return (_levels(image) - _levels(x)).abs().amax(dim=(1, 2, 3)).double() / 255

    def move(self, steps: Tensor, radius: Tensor) -> Tensor:
        """Every value by its steps times ``radius``."""
        return steps * _beside(radius, steps)

    def rule(self) -> Adam:
        """Every value about as far as any other."""
        return Adam()

    def below(self, low: Tensor, high: Tensor, stride: Tensor) -> Tensor:
        """In whole levels."""
        least, most = (low * 255).round(), (high * 255).round()
        wanted = torch.maximum((most * (1 - stride)).floor(), (least * most).sqrt().floor())
        return torch.maximum(torch.minimum(wanted, most - 1), torch.minimum(least + 1, most - 1)) / 255


@dataclass(frozen=True)
class Euclidean:
    """L2, of images in whole grey levels.

    Attributes:
        finest: two radii of which the smaller is less than this share below the other are taken for one.
    """

    finest: float = 0.02

    name: ClassVar[NormName] = "l2"

    def ball(self, eps: float) -> L2:
        """All images within ``eps``."""
        return L2(eps)

    def first(self, x: Tensor) -> float:
        """Two grey levels for every value: 3.0 for a photo of 224²."""
        return 2 * LEVEL * self.largest(x)

    def largest(self, x: Tensor) -> float:
        """From black to white."""
        return math.sqrt(x.shape[1:].numel())

    def project(self, x: Tensor, theta: Tensor, radius: Tensor) -> Tensor:
        """Every value clipped to [0, 1], then the whole change shortened, as by :meth:`L2.project`."""
        clipped = theta.clamp(0, 1)
        change = clipped - x
        size = lengths(change)
        return x + change * _beside((radius / size.clamp_min(LEVEL * 1e-6)).clamp(max=1.0), x)

    def saved(self, x: Tensor, theta: Tensor, radius: Tensor) -> Tensor:
        """The change times as much as leaves its whole grey levels within ``radius``, in these.

        Spread over all values a short change is below half a level everywhere, and rounded to the nearest level it
        were none. Multiplied it keeps the values that count most, at whole levels.
        """
        centre = _levels(x)
        change = theta * 255 - centre
        most = (255 * radius + 1) / change.abs().amax(dim=(1, 2, 3)).double().clamp_min(1e-6)
        low, high = (most / 4096).log2(), most.log2()
        for _ in range(14):  # to a thousandth
            middle = (low + high) / 2
            inside = _square(_scaled(centre, change, middle.exp2())) <= (255 * radius).square()
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        whole = _scaled(centre, change, low.exp2())
        whole = whole * _beside(_square(whole) <= (255 * radius).square(), x)
        return from_8bit(centre + whole, x.dtype)

    def size(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) the length of the change."""
        return _square(_levels(image) - _levels(x)).sqrt() / 255

    def move(self, steps: Tensor, radius: Tensor) -> Tensor:
        """As long a change as ``radius`` where all values take one step."""
        return steps * _beside(radius / self.largest(steps), steps)

    def rule(self) -> Momentum:
        """Every value as far as its gradient is steep."""
        return Momentum()

    def below(self, low: Tensor, high: Tensor, stride: Tensor) -> Tensor:
        """As small a share below ``high`` as ``finest``."""
        wanted = torch.maximum(high * (1 - stride), (low * high).sqrt())
        return torch.minimum(wanted, high * (1 - self.finest))


NORMS: dict[NormName, Norm] = {norm.name: norm for norm in (GreyLevels(), Euclidean())}


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """One of the ``values`` (N,) for each image of ``x`` (N, C, H, W), in its type."""
    return values.to(x.dtype)[:, None, None, None]


def _levels(image: Tensor) -> Tensor:
    return (image * 255).round()


def _scaled(centre: Tensor, change: Tensor, scale: Tensor) -> Tensor:
    return (centre + (change * _beside(scale, change)).round()).clamp(0, 255) - centre


def _square(whole: Tensor) -> Tensor:
    """(N,) the sum of squares of whole numbers: exact, row by row."""
    return whole.square().sum(dim=-1).double().sum(dim=(1, 2))
