"""From raw attributions to attribution maps, differentiably."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

RawLoss = Callable[[Tensor, Tensor], Tensor]
"""Interpretation loss (N,) of unscaled maps (N, h, w), given before the target maps, that an attack descends."""

POOL = 4  # side of the mean pool of pixel-wise attributions (224² pixels give a 56² map)


def min_max(raw: Tensor) -> Tensor:
    """Each map of ``raw`` (N, h, w) scaled to [0, 1] by its own minimum and maximum; a constant map becomes 0.

    Constant is what differs by no more than the smallest normal number.
    """
    low = raw.amin(dim=(1, 2), keepdim=True)
    span = raw.amax(dim=(1, 2), keepdim=True) - low
    varied = span > torch.finfo(span.dtype).tiny
    return (raw - low) / span.where(varied, 1.0) * varied


def saliency(attributions: Tensor) -> Tensor:
    """Maps (N, H/4, W/4) of pixel-wise ``attributions`` (N, C, H, W): channel maximum of |·|, pooled, min–max."""
    return min_max(pooled(attributions))


def pooled(attributions: Tensor) -> Tensor:
    """Channel maximum of |attributions| (N, C, H, W), 4×4 mean pooled to (N, H/4, W/4), not scaled."""
    return F.avg_pool2d(attributions.abs().amax(dim=1, keepdim=True), POOL).squeeze(1)


def saliency_grid(input_size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of :func:`saliency` maps for images of ``input_size``."""
    return (input_size[0] // POOL, input_size[1] // POOL)


def distance(maps: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,): mean |maps − target| over the grid, the L1 measure itself."""
    return (maps - target).abs().mean(dim=(1, 2))


def shape_distance(raw: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,) of unscaled maps ``raw`` (N, h, w): how far their shape is from the target's.

    Both maps count from their minimum; ``raw`` is scaled to the target's mean before the mean absolute difference is
    taken. It is zero where the min–max scaled map equals a target that begins at 0. Min–max scaling hangs on a
    single cell, the largest, whose every change moves all others; a descent of :func:`distance` chases that cell.
    """
    risen, aim = _from_minimum(raw), _from_minimum(target)
    mean = risen.mean(dim=(1, 2), keepdim=True)
    # In this order: gradients of −log p fall to 1e-30 as p nears 1, and one over their square is no float32.
    scaled = risen / mean.where(mean > torch.finfo(mean.dtype).tiny, 1.0) * aim.mean(dim=(1, 2), keepdim=True)
    return (scaled - aim).abs().mean(dim=(1, 2))


def scaled_distance(raw: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,) of unscaled maps ``raw`` (N, h, w): :func:`distance` after min–max scaling."""
    return distance(min_max(raw), target)


def saliency_slope(
    attributions: Tensor, target: Tensor, loss: RawLoss = shape_distance, measure: RawLoss = distance
) -> tuple[Tensor, Tensor, Tensor]:
    """``measure`` (N,), ``loss`` (N,) and its gradient (N, C, H, W), of the saliency maps of ``attributions``.

    These are pixel-wise; ``measure`` is of the maps as they are scaled. All detached.
    """
    return _slope(attributions, target, loss, measure, pooled)


def map_slope(
    raw: Tensor, target: Tensor, loss: RawLoss = shape_distance, measure: RawLoss = distance
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`saliency_slope`, of unscaled maps ``raw`` (N, h, w), whose gradient (N, h, w) it is."""
    return _slope(raw, target, loss, measure, lambda leaf: leaf)


def _slope(
    values: Tensor, target: Tensor, loss: RawLoss, measure: RawLoss, raw_of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        leaf = values.detach().requires_grad_(True)
        raw = raw_of(leaf)
        losses = loss(raw, target)
        (slope,) = torch.autograd.grad(losses.sum(), leaf)
    return measure(min_max(raw.detach()), target), losses.detach(), slope


def _from_minimum(maps: Tensor) -> Tensor:
    return maps - maps.amin(dim=(1, 2), keepdim=True)
