"""Distances between maps and between images.

Pure functions on tensors. Maps are floating point (N, h, w) on the native grid; a measure returns one value
per map, (N,). Source, where none is named: the measures of Zhang et al., "Interpretable Deep Learning under Fire",
USENIX Security 2020.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from underfire.devices import filled

_WINDOW = 7  # cells
_STABLE = (0.01**2, 0.03**2)
"""C₁ and C₂ of `ssim`, for values whose range is 1."""

_LOOKS: ContextVar[bool] = ContextVar("values are looked at", default=True)


@contextmanager
def unchecked() -> Iterator[None]:
    """Inside the block no value is looked at, for which a GPU would have to be waited for.

    What a measure says of a map that is out of its range, or not finite, then means nothing.
    """
    token = _LOOKS.set(False)
    try:
        yield
    finally:
        _LOOKS.reset(token)


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
    return _jaccard(*_both_tops(a, b, share))


def is_constant(maps: Tensor) -> Tensor:
    """Whether all cells of a map have one value, (N,) bool: such a map shows nothing.

    No measure that compares what maps show finds it like a map that shows something, whatever 0/0 a formula has there:
    it agrees with a constant map alone.

    Args:
        maps: Maps (N, h, w), floating point.

    Raises:
        ValueError: As for `l1`.
    """
    _check_maps(maps, maps)
    cells = maps.flatten(1)
    return cells.amin(dim=1) == cells.amax(dim=1)


def topk(a: Tensor, b: Tensor, *, share: float = 0.2) -> Tensor:
    """Share of the most salient cells of ``b`` that are among those of ``a``: top-k intersection.

    The sets are those of `iou_top`, ties included, so they may differ in size, and then ``a`` and ``b`` cannot be
    exchanged. With b the benign map it is what an attack that moves the map makes small. The set of a constant map is
    empty: the share is 0 where one of both is, 1 where both are. Source: Ghorbani, Abid and Zou, "Interpretation of
    neural networks is fragile", AAAI 2019.

    Args:
        a: Maps (N, h, w), floating point; only the order of their values matters.
        b: Maps of the same shape.
        share: In (0, 1].

    Returns:
        (N,) in [0, 1].

    Raises:
        ValueError: As for `l1`, or ``share`` lies outside (0, 1].
    """
    top_a, top_b = _both_tops(a, b, share)
    shared, asked = (top_a & top_b).sum(dim=(1, 2)), top_b.sum(dim=(1, 2))
    alike = (is_constant(a) & is_constant(b)).to(torch.get_default_dtype())
    return torch.where(asked == 0, alike, shared / asked.clamp(min=1))


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the cells of each pair of maps.

    Two constant maps agree: 1. One that is constant and one that is not have no correlation: 0.

    Args:
        a: Maps (N, h, w), floating point.
        b: Maps of the same shape.

    Returns:
        (N,) in [-1, 1], computed in float64 on the CPU, in the type of ``a`` and where that is.

    Raises:
        ValueError: As for `l1`.
    """
    _check_maps(a, b)
    return _unless_constant(a, b, _correlation(_cells(a), _cells(b)))


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of the cells of each pair of maps: Pearson's of their ranks.

    Equal cells share their mean rank. Constant maps, arguments, values and errors are as for `pearson`; only the order
    of a map's values matters. Source: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, and Ghorbani,
    Abid and Zou, AAAI 2019, both of whom compare maps by it.
    """
    _check_maps(a, b)
    ranks = [torch.from_numpy(stats.rankdata(_cells(maps).numpy(), axis=1)) for maps in (a, b)]
    return _unless_constant(a, b, _correlation(*ranks))


def kendall(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's rank correlation of the cells of each pair of maps, τ_b, which corrects for equal cells.

    (C − D) / √((P − T_a)(P − T_b)) with C and D the pairs of cells that both maps order alike and unlike, P all pairs
    and T those that a map has equal. Constant maps, arguments, values and errors are as for `spearman`. Source:
    Kendall, "The treatment of ties in ranking problems", Biometrika 1945.
    """
    _check_maps(a, b)
    pairs = zip(_cells(a).numpy(), _cells(b).numpy(), is_constant(a) | is_constant(b), strict=True)
    found = [0.0 if still else float(stats.kendalltau(one, other).statistic) for one, other, still in pairs]
    return _unless_constant(a, b, torch.tensor(found, dtype=torch.float64))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair of maps, whose range of values is taken to be 1.

    The mean, over all windows of 7 × 7 cells that lie within the map, of
    (2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂)) with C₁ = 0.01², C₂ = 0.03², and variances
    over the number of cells less 1: the values of scikit-image's ``structural_similarity`` with ``data_range=1``. A
    side that is shorter than 7 is the window's side. The two constants leave no 0/0: two constant maps of one value
    have 1, and a constant map of 0 has next to nothing with one that varies. Source: Wang et al., "Image quality
    assessment: from error visibility to structural similarity", IEEE Transactions on Image Processing 2004.

    Args:
        a: Maps (N, h, w) in [0, 1].
        b: Maps of the same shape.

    Returns:
        (N,) in [-1, 1], computed in float64, in the type of ``a``.

    Raises:
        ValueError: As for `l1`.
    """
    _check_maps(a, b)
    one, other = a.double()[:, None], b.double()[:, None]
    window = (min(_WINDOW, a.shape[1]), min(_WINDOW, a.shape[2]))
    cells = math.prod(window)
    unbiased = cells / max(1, cells - 1)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    mean_a, mean_b = mean(one), mean(other)
    spread = unbiased * (mean(one * one) - mean_a**2 + mean(other * other) - mean_b**2)
    together = unbiased * (mean(one * other) - mean_a * mean_b)
    c1, c2 = _STABLE
    likeness = (2 * mean_a * mean_b + c1) * (2 * together + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
    return likeness.mean(dim=(1, 2, 3)).to(a.dtype)


def mass_center(maps: Tensor) -> Tensor:
    """The centre of mass of each map, (N, 2): row and column as shares of the map's height and width, differentiable.

    The cell in row i and column j weighs its value and lies at ((i + ½)/h, (j + ½)/w). A constant map has its centre in
    the middle, (½, ½), and so has a map of zeros, which has no mass.

    Args:
        maps: Maps (N, h, w), floating point and not negative.

    Raises:
        ValueError: As for `l1`, or a cell is negative.
    """
    _check_maps(maps, maps)
    if _LOOKS.get() and bool((maps < 0).any()):
        raise ValueError("a cell is negative; a centre of mass takes maps from 0 up")
    # The least value that adds nothing to any mass but to none at all.
    weights = maps + (maps.sum(dim=(1, 2), keepdim=True) == 0)
    total = weights.sum(dim=(1, 2))
    centers = []
    for axis in (1, 2):
        places = (torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device) + 0.5) / maps.shape[axis]
        centers.append((weights.sum(dim=3 - axis) * places).sum(dim=1) / total)
    return torch.stack(centers, dim=1)


def center_shift(a: Tensor, b: Tensor) -> Tensor:
    """How far the centres of mass of each pair of maps are apart, as a share of the map's diagonal, (N,) in [0, 1).

    The distance is in cells, over √(h² + w²). A constant map points nowhere, so that nothing was moved from it or to
    it: 0 where one is constant. Source: Ghorbani, Abid and Zou, AAAI 2019, who measure it in pixels.

    Args:
        a: Maps (N, h, w), floating point and not negative.
        b: Maps of the same shape.

    Raises:
        ValueError: As for `mass_center`.
    """
    _check_maps(a, b)
    sides = filled(a.shape[1:], a)
    apart = ((mass_center(a) - mass_center(b)) * sides).square().sum(dim=1).sqrt() / sides.square().sum().sqrt()
    return torch.where(is_constant(a) | is_constant(b), 0.0, apart)


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
        if _LOOKS.get() and not torch.isfinite(tensor).all():
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


def _both_tops(a: Tensor, b: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The most salient cells of both, bool (N, h, w), after a check of all."""
    _check_maps(a, b)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must lie in (0, 1]")
    return top_cells(a, share), top_cells(b, share)


def top_cells(maps: Tensor, share: float) -> Tensor:
    """Which cells (N, h, w) of maps (N, h, w) are the most salient ``share`` of them, as `iou_top` has them."""
    cells = maps.flatten(1)
    k = max(1, round(share * cells.shape[1]))
    smallest_of_top = cells.topk(k, dim=1).values[:, -1:]
    top = (cells >= smallest_of_top) & (cells > cells.amin(dim=1, keepdim=True))
    return top.view(maps.shape)


def _cells(maps: Tensor) -> Tensor:
    """(N, h·w), detached, in float64 on the CPU."""
    return maps.detach().to("cpu", torch.float64).flatten(1)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's of the rows of two (N, D), as (N,); something where a row is constant."""
    a, b = (values - values.mean(dim=1, keepdim=True) for values in (a, b))
    a, b = (F.normalize(values / values.abs().amax(dim=1, keepdim=True), dim=1) for values in (a, b))
    return (a * b).sum(dim=1).clamp(-1, 1)


def _unless_constant(a: Tensor, b: Tensor, found: Tensor) -> Tensor:
    """The correlations ``found`` (N,), in the type of ``a``, but what constant maps are said to have."""
    still = is_constant(a), is_constant(b)
    alike = (still[0] & still[1]).to(a.dtype)
    return torch.where(still[0] | still[1], alike, found.to(a))
