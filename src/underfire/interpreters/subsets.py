"""Subsets drawn with known chances: a sum over them, each part divided by its chance, is right in the mean."""

import torch
from torch import Tensor


def inclusion_chances(sizes: Tensor, count: int) -> Tensor:
    """The chances (N, K) with which ``count`` of K parts are drawn without repetition, as ``sizes`` (N, K) > 0 ask.

    They are proportional to the sizes but where that would be more than 1, and add up to ``count``, which is K at most.
    """
    certain = torch.zeros_like(sizes, dtype=torch.bool)
    chances = certain.to(sizes.dtype)
    for _ in range(count + 1):  # each time at least one more part becomes certain, or it is done
        others = sizes.masked_fill(certain, 0)
        total = others.sum(dim=1, keepdim=True)
        chances = (count - certain.sum(dim=1, keepdim=True)) * others / total.where(total > 0, 1.0)
        certain |= chances >= 1
    return chances.masked_fill(certain, 1)


def systematic(chances: Tensor, start: Tensor, count: int) -> Tensor:
    """The places (N, n) of the n = ``count`` parts drawn with ``chances`` (N, K) by ``start`` (N,) in [0, 1).

    Systematic sampling (Madow 1949): the chances, which add up to n, are laid end to end, and the parts at ``start``,
    ``start`` + 1 … are taken. Each is taken with its chance exactly, and none twice.
    """
    ends = chances.cumsum(dim=1)
    steps = torch.arange(count, dtype=ends.dtype, device=ends.device)
    exact = ends * (count / ends[:, -1:])  # as if nothing had been rounded
    points = start.clamp(max=1 - 1e-9)[:, None] + steps  # so that no sum is rounded up to the next part
    return torch.searchsorted(exact, points, right=True).clamp(max=chances.shape[1] - 1)
