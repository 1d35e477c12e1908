"""Distances between maps and between images.

Pure functions on tensors. Maps are floating point (N, h, w) on the native grid; a measure returns one value
per map, (N,). Source: the measures of Zhang et al., "Interpretable Deep Learning under Fire", USENIX Security
2020.
"""

import math

import torch
from torch import Tensor


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each pair of maps.

    Args:
        a: Maps (N, h, w), floating point.
        b: Maps of the same shape.

    Returns:
        (N,), in [0, 1] for maps in [0, 1].

    Raises:
        ValueError: Shapes differ, a tensor is not floating point or a value is not finite.
    """
    _check_maps(a, b)
    return (a - b).abs().mean(dim=(1, 2))


def iou(a: Tensor, b: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Intersection over union of each pair of maps, binarised at ``threshold``.

    A cell belongs to the set of its map when its value is at least ``threshold``. Two empty sets agree: IoU
    1.

    Args:
        a: Maps (N, h, w) in [0, 1].
        b: Maps of the same shape.
        threshold: In (0, 1]; at 0 every cell would belong to every map.

    Returns:
        (N,) in [0, 1].

    Raises:
        ValueError: As for `l1`, or ``threshold`` lies outside (0, 1].
    """
    _check_maps(a, b)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must lie in (0, 1]")
    return _jaccard(a >= threshold, b >= threshold)


def iou_top(a: Tensor, b: Tensor, *, share: float = 0.2) -> Tensor:
    """Intersection over union of the most salient cells of each pair of maps.

    The set of a map is its ``k = max(1, round(share · h · w))`` largest cells. Ties are decided by value
    alone, never by position: every cell as large as the k-th belongs to the set, except that a cell at the
    map's minimum is never salient. So a map with fewer than k cells above its minimum (a rectified one, say)
    is represented by exactly those, and a constant map by the empty set. Two empty sets agree: IoU 1.

    Args:
        a: Maps (N, h, w), floating point; only the order of their values matters.
        b: Maps of the same shape.
        share: In (0, 1].

    Returns:
        (N,) in [0, 1].

    Raises:
        ValueError: As for `l1`, or ``share`` lies outside (0, 1].
    """
    _check_maps(a, b)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must lie in (0, 1]")
    return _jaccard(_top_cells(a, share), _top_cells(b, share))


def linf(x: Tensor, x0: Tensor) -> Tensor:
    """Largest absolute difference of each pair of images (N, …), as (N,), in units of the range [0, 1].

    Raises:
        ValueError: As for `l1`.
    """
    _check_pair(x, x0)
    return (x - x0).abs().flatten(1).amax(dim=1)


def l2(x: Tensor, x0: Tensor) -> Tensor:
    """Euclidean norm of the difference of each pair of images (N, …), as (N,), in units of the range [0, 1].

    Raises:
        ValueError: As for `l1`.
    """
    _check_pair(x, x0)
    return (x - x0).flatten(1).square().sum(dim=1).sqrt()


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if a.ndim < 2 or math.prod(a.shape[1:]) == 0:
        raise ValueError(f"shape is {tuple(a.shape)}; it takes a batch (N, …) of items with values")
    for tensor in (a, b):
        if not tensor.is_floating_point():
            raise ValueError(f"dtype is {tensor.dtype}; it takes floating point")
        if not torch.isfinite(tensor).all():
            raise ValueError("a value is NaN or infinite")


def _check_maps(a: Tensor, b: Tensor) -> None:
    _check_pair(a, b)
    if a.ndim != 3:
        raise ValueError(f"shape is {tuple(a.shape)}; maps are (N, h, w)")


def _jaccard(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boolean (N, h, w) as (N,) of the default dtype, 1 where the union is empty."""
    shared = (a & b).sum(dim=(1, 2))
    union = (a | b).sum(dim=(1, 2))
    return torch.where(union == 0, 1.0, shared / union.clamp(min=1))


def _top_cells(maps: Tensor, share: float) -> Tensor:
    cells = maps.flatten(1)
    k = max(1, round(share * cells.shape[1]))
    smallest_of_top = cells.topk(k, dim=1).values[:, -1:]
    top = (cells >= smallest_of_top) & (cells > cells.amin(dim=1, keepdim=True))
    return top.view(maps.shape)
