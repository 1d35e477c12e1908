"""Maps of different interpreters made comparable: one grid, ranks, and the correlation of ranks."""

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 28
"""Cells on a side of the grid on which maps are compared."""

TOP = 0.2
"""The share of a map's cells or pixels that count as its top: a fifth."""

_FINEST = 2**32
"""Values are rounded to multiples of 1/_FINEST, so that interpolation keeps ties; sums of them are exact."""


def on_grid(maps: Tensor) -> Tensor:
    """Maps (N, h, w) on the common grid (N, 28, 28), float64: a finer side is averaged, a coarser one interpolated.

    Values are rounded to multiples of 2⁻³², so that a constant map stays one and equal cells tie.
    """
    grid = maps.detach().to("cpu", torch.float64)[:, None]
    h, w = (min(GRID, int(side)) for side in grid.shape[2:])
    grid = F.adaptive_avg_pool2d(grid, (h, w))
    grid = F.interpolate(grid, size=(GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
    return (grid * _FINEST).round() / _FINEST


def centred_ranks(maps: Tensor) -> Tensor:
    """The ranks (N, D) of the D cells of each of ``maps`` (N, …), float64, less their mean; equal cells share theirs.

    They are multiples of ½, so that sums of their products are exact. Those of a constant map are 0.
    """
    cells = maps.flatten(1).contiguous()
    ordered = cells.sort(dim=1).values
    below = torch.searchsorted(ordered, cells, right=False)
    up_to = torch.searchsorted(ordered, cells, right=True)
    return (below + up_to - cells.shape[1]).double() / 2


def rank_correlations(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation (N,) in [−1, 1] of maps by their centred ranks (N, D).

    Where a map is constant, it has no order and the correlation is undefined; it is taken for 0, as that of maps that
    have nothing to do with each other.
    """
    scale = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    return (a * b).sum(dim=1) / scale.where(scale > 0, 1.0)


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """The log-odds (N,) in nats, float64 on the CPU, of each image's class against all others."""
    rows = zip(logits.detach().to("cpu", torch.float64), classes.tolist(), strict=True)
    return torch.stack([z[c] - torch.cat([z[:c], z[c + 1 :]]).logsumexp(dim=0) for z, c in rows])
