"""The flow field of StAdv: pixels move (Xiao et al. 2018, Spatially Transformed Adversarial Examples)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.interpreters.directional import unit

_SOFT = (
    1e-8  # under the root of the roughness, in pixels², as in the paper: it is differentiable where neighbours agree
)


@dataclass(frozen=True)
class Flow:
    """Every pixel is taken from a place at most ``eps`` pixels away, measured as the crow flies.

    θ is the field of displacements (N, 2, H, W) in pixels, to the right and down. The original has no bound, only a
    price on roughness; here the bound makes a threat model that can be checked, and the price is kept.

    Both defaults were tried on 224×224 photos: a pixel is hard to see and enough for the label and a CAM; at a price of
    0.05 edges looked torn, at 0.5 they did not and the maps were reached as well, at 2 they no longer were.

    Attributes:
        eps: largest displacement of any pixel, in pixels.
        tau: the price of roughness against the gain of the attack. The attack's direction is scaled to a mean of 1
            per value of the field; a neighbour that differs pulls with strength ``tau``, however little it differs.

    Raises:
        InputError: ``eps`` is not a finite number above 0, or ``tau`` not one of at least 0.
    """

    eps: float = 1.0
    tau: float = 0.5

    name: ClassVar[str] = "flow"
    unit: ClassVar[str] = "pixels that a pixel moves"
    summary: ClassVar[str] = "where pixels lie"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.eps < math.inf:
            raise InputError(f"eps {self.eps:g} is no displacement; give a finite number of pixels above 0, such as 1.")
        if not 0 <= self.tau < math.inf:
            raise InputError(f"tau {self.tau:g} is no price; give a finite number of at least 0.")

    def start(self, x: Tensor) -> Tensor:
        """No pixel moves."""
        return x.new_zeros(x.shape[0], 2, *x.shape[2:])

    def image(self, x: Tensor, theta: Tensor) -> Tensor:
        """Each pixel's value read from ``x`` at its place, bilinearly; beyond the border the border goes on.

        A mean of four values of ``x`` with weights that sum to 1 stays in [0, 1]; the clamp is for their rounding.
        """
        corners = _Corners(x, theta)
        return corners.mean().clamp(0, 1)

    def pull_back(self, x: Tensor, theta: Tensor, direction: Tensor) -> Tensor:
        """The product of ``direction`` with the Jacobian at mean magnitude 1, plus τ times the slope of the roughness.

        The direction that the loop hands over has no scale of its own, so a price in units of the loss would mean
        nothing; the slope of the roughness has one, since the length of a difference has slope 1 at any length.
        """
        attack = unit(_Corners(x, theta).slope(direction))
        return attack + self.tau * roughness_slope(theta)

    def steepest(self, direction: Tensor) -> Tensor:
        """Each pixel's vector at length 1: all pixels move for the price of one, each its own way."""
        size = _vectors(direction)
        return torch.where(size > 0, direction / size, 0.0)

    def share(self, theta: Tensor) -> float:  # noqa: ARG002 - the same for any field
        """1/√2: a step to the right and one down make a diagonal."""
        return 1 / math.sqrt(2)

    def project(self, x: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002 - any field keeps images in [0, 1]
        """Each pixel's vector shortened to ``eps`` where it is longer."""
        size = _vectors(theta)
        return torch.where(size > self.eps, theta * (self.eps / size), theta)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002 - the field says it all
        """(N,) the longest displacement."""
        return _vectors(theta).amax(dim=(1, 2, 3))

    def harmless(self, x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """The whole image shifted by ``eps`` in a random direction: a field for each pixel by itself would tear it."""
        turns = torch.stack([torch.rand((), generator=draw, dtype=torch.float64) for draw in draws]) * 2 * math.pi
        shift = self.eps * torch.stack([turns.cos(), turns.sin()], dim=1)
        return self.project(x, shift.to(x)[:, :, None, None].expand(-1, -1, *x.shape[2:]))

    def rounded(self, x: Tensor, image: Tensor) -> Tensor:  # noqa: ARG002 - no budget in pixel values
        """``image`` in the nearest whole grey levels, uint8: half a level per value that no displacement made."""
        return (image.double() * 255).round().to(torch.uint8)

    def whole(self, x: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002 - no field makes whole levels
        """``theta`` as it is."""
        return theta

    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) bool: every value is, to half a level, between the extremes that ``x`` has within ``eps`` of its pixel.

        The image alone does not tell its field; this is what an image of any field within the budget fulfils.
        """
        slack, reach = 0.501 / 255, min(math.ceil(self.eps), max(x.shape[2:]))
        return ((image <= _highest(x, reach) + slack) & (image >= -_highest(-x, reach) - slack)).flatten(1).all(dim=1)


def roughness(theta: Tensor) -> Tensor:
    """Σ √(‖f_p − f_q‖² + 1e-8) over all pairs of pixels p, q of a field (N, 2, H, W) side by side, (N,) in pixels.

    Each pair counts once (in the paper, where the sum goes over pixels and their neighbours, twice).
    """
    pairs = [theta.diff(dim=dim).square().sum(dim=1).add(_SOFT).sqrt() for dim in (2, 3)]
    return torch.stack([lengths.sum(dim=(1, 2)) for lengths in pairs]).sum(dim=0)


def roughness_slope(theta: Tensor) -> Tensor:
    """Gradient (N, 2, H, W) of :func:`roughness`: a sum of up to four vectors of length 1 at most."""
    slope = torch.zeros_like(theta)
    for dim in (2, 3):
        difference = theta.diff(dim=dim)
        pull = difference / difference.square().sum(dim=1, keepdim=True).add(_SOFT).sqrt()
        last = theta.shape[dim] - 1
        slope.narrow(dim, 1, last).add_(pull)
        slope.narrow(dim, 0, last).sub_(pull)
    return slope


class _Corners:
    """The four pixels around the place that each pixel is taken from, and where between them it lies.

    Not ``F.grid_sample``: that takes places as fractions of the image, whose rounding blurs an image that is not
    moved at all by some 1e-5. Here the whole part of a displacement chooses pixels, the rest is their weight: no
    displacement returns the image to the bit, and whole ones shift it exactly.
    """

    def __init__(self, x: Tensor, theta: Tensor) -> None:
        channels, height, width = x.shape[1:]
        whole = theta.floor()
        weights = theta - whole
        self._right, self._down = weights[:, :1], weights[:, 1:]
        steps = whole.to(torch.int64)
        columns = torch.arange(width, device=x.device) + steps[:, 0]
        rows = torch.arange(height, device=x.device)[:, None] + steps[:, 1]
        flat = x.flatten(2)

        def read(down: int, right: int) -> Tensor:
            places = (rows + down).clamp(0, height - 1) * width + (columns + right).clamp(0, width - 1)
            return flat.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).reshape(x.shape)

        self._upper, self._lower = (read(0, 0), read(0, 1)), (read(1, 0), read(1, 1))

    def mean(self) -> Tensor:
        """The values (N, C, H, W) in between."""
        (a, b), (c, d) = self._upper, self._lower
        upper = a + self._right * (b - a)
        lower = c + self._right * (d - c)
        return upper + self._down * (lower - upper)

    def slope(self, direction: Tensor) -> Tensor:
        """``direction`` (N, C, H, W) times the Jacobian of :meth:`mean` in the displacements, (N, 2, H, W)."""
        (a, b), (c, d) = self._upper, self._lower
        right = (b - a) + self._down * ((d - c) - (b - a))
        down = (c - a) + self._right * ((d - b) - (c - a))
        return torch.stack([(direction * change).sum(dim=1) for change in (right, down)], dim=1)


def _highest(x: Tensor, reach: int) -> Tensor:
    """The maximum of ``x`` (N, C, H, W) over the square of ``reach`` pixels to each side."""
    size = 2 * reach + 1
    over_rows = F.max_pool2d(x, (size, 1), stride=1, padding=(reach, 0))
    highest: Tensor = F.max_pool2d(over_rows, (1, size), stride=1, padding=(0, reach))
    return highest


def _vectors(field: Tensor) -> Tensor:
    """The length (N, 1, H, W) of each pixel's vector of ``field`` (N, 2, H, W)."""
    length: Tensor = torch.hypot(field[:, :1], field[:, 1:])
    return length
