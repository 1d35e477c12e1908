"""From features of several resolutions to one map (Dabkowski & Gal 2017, section 4.1, figure 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (96, 64, 32, 16)  # channels at the coarsest grid, and at each finer one
_NARROWEST = 16
_FACTOR = 2  # by which a step refines the grid
SHUFFLED = _FACTOR**2
"""Channels that a pixel shuffle lays side by side in one."""


class Decoder(nn.Module):
    """A U-Net's way up: at each step convolution, pixel shuffle, and the features of the finer grid beside it.

    Args:
        channels: of the features, coarsest grid first.
        scales: the size of their values, which they are divided by.
        grid: (h, w) of the map.
    """

    def __init__(self, channels: Sequence[int], scales: Sequence[float], grid: tuple[int, int]) -> None:
        super().__init__()
        widths = [*_WIDTHS, *[_NARROWEST] * len(channels)][: len(channels)]
        self.grid = grid
        self.register_buffer("scales", torch.tensor(list(scales)))
        self.entry = nn.Conv2d(channels[0], widths[0], 1)
        self.mix = nn.Conv2d(widths[0] + 1, widths[0], 1)  # the gate is one channel more
        self.steps = nn.ModuleList(
            _Step(wide, narrow, skip) for wide, narrow, skip in zip(widths[:-1], widths[1:], channels[1:], strict=True)
        )
        self.out = nn.Conv2d(widths[-1], 2, 3, padding=1, padding_mode="replicate")

    def forward(self, features: Sequence[Tensor], gate: Tensor) -> Tensor:
        """Maps (N, h, w) in [0, 1] from ``features`` (N, C, h, w), coarsest first, and the ``gate`` (N, 1, h, w)."""
        scales = self.get_buffer("scales")
        first, *finer = (values / scale for values, scale in zip(features, scales, strict=True))
        z = F.silu(self.mix(torch.cat([gate * self.entry(first), gate], dim=1)))
        for step, skip in zip(self.steps, finer, strict=True):
            z = step(z, skip)
        return share(resized(self.out(z), self.grid))


class _Step(nn.Module):
    """From ``wide`` channels to ``narrow`` ones on a grid twice as fine."""

    def __init__(self, wide: int, narrow: int, skip: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(wide, SHUFFLED * narrow, 3, padding=1, padding_mode="replicate")
        self.skip = nn.Conv2d(skip, narrow, 1)
        self.join = nn.Conv2d(2 * narrow, narrow, 3, padding=1, padding_mode="replicate")

    def forward(self, z: Tensor, skip: Tensor) -> Tensor:
        risen = resized(F.pixel_shuffle(F.silu(self.up(z)), _FACTOR), (skip.shape[2], skip.shape[3]))
        joined: Tensor = F.silu(self.join(torch.cat([risen, F.silu(self.skip(skip))], dim=1)))
        return joined


def share(pair: Tensor) -> Tensor:
    """|a| / (|a| + |b|), (N, h, w), of the two channels of ``pair`` (N, 2, h, w); 0 where both are 0."""
    a, b = pair.abs().unbind(dim=1)
    total = a + b
    return a / total.where(total > torch.finfo(total.dtype).tiny, 1.0)


def resized(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """``values`` (N, C, h, w) on ``grid``: themselves, means of cells on a coarser one, bilinear on a finer one."""
    size = (values.shape[2], values.shape[3])
    if size == grid:
        return values
    if size[0] >= grid[0] and size[1] >= grid[1]:
        return F.adaptive_avg_pool2d(values, grid)
    return F.interpolate(values, size=grid, mode="bilinear", align_corners=False)
