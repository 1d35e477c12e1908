"""Target maps that have nothing to do with the image (the random patches of Zhang et al. 2020)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.seeding import generator

_SIDE = 224
_RADIUS = (30, 60)  # of the disc, in pixels of the 224² canvas, from (inclusive) to (exclusive)


def random_patch(grid: tuple[int, int], *, seed: int, key: str) -> Tensor:
    """A map (h, w) = ``grid`` in [0, 1] that shows a disc or a rotated rectangle somewhere, by (seed, key).

    Drawn on 224² and averaged down to the grid: inside U(0.9, 1), outside U(0, 0.1) per pixel. The radius is
    30 to 59 pixels; the rectangle's sides are twice such radii. One ``key`` is the same patch on every grid.
    """
    random = generator(seed, key, "patch")

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    first, second = (int(torch.randint(*_RADIUS, (), generator=random)) for _ in range(2))
    is_disc = bool(torch.rand((), generator=random) < 0.5)
    row, column = (uniform(first, _SIDE - first) for _ in range(2))
    angle = uniform(0, math.pi)
    y, x = torch.meshgrid(torch.arange(_SIDE) + 0.5 - row, torch.arange(_SIDE) + 0.5 - column, indexing="ij")
    if is_disc:
        inside = x**2 + y**2 <= first**2
    else:
        along = x * math.cos(angle) + y * math.sin(angle)
        across = y * math.cos(angle) - x * math.sin(angle)
        inside = (along.abs() <= first) & (across.abs() <= second)
    noise = 0.1 * torch.rand((_SIDE, _SIDE), generator=random)
    return F.adaptive_avg_pool2d(torch.where(inside, 0.9 + noise, noise)[None, None], grid)[0, 0]
