"""Whether two measures rise together over photos, whatever the shape of the relation."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch

from underfire.metrics import LEVEL, Mean

LEAST = 5
"""With fewer pairs, there is no interval."""


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> Mean:
    """Spearman's rank correlation of ``a`` and ``b`` in [−1, 1], equal values sharing their mean rank.

    The interval is that of Fisher's transformation with the variance (1 + ρ²/2)/(n − 3) of Bonett and Wright, "Sample
    size requirements for estimating Pearson, Kendall and Spearman correlations", Psychometrika 2000. There is none
    below `LEAST` pairs, and no value where one side is constant.

    Raises:
        ValueError: the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need equally many values, and got {len(a)} and {len(b)}")
    n = len(a)
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(x.square().sum() * y.square().sum())) if n else 0.0
    if spread == 0:
        return Mean(n, None, None, None)
    rho = max(-1.0, min(1.0, float((x * y).sum()) / spread))
    if n < LEAST:
        return Mean(n, rho, None, None)
    # One rank off perfect at most, or the transformation is infinite and the interval a point.
    inside = max(-1 + 1 / n**2, min(1 - 1 / n**2, rho))
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * math.sqrt((1 + inside**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(inside) + side * half) for side in (-1, 1))
    return Mean(n, rho, min(low, rho), max(high, rho))


def _ranks(values: Sequence[float]) -> torch.Tensor:
    """The rank of each value from 0 on, float64 (n,)."""
    x = torch.tensor(list(values), dtype=torch.float64)
    below, equal = ((x[:, None] > x).sum(dim=1), (x[:, None] == x).sum(dim=1))
    return below + (equal - 1) / 2
