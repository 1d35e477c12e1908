"""How well a score tells attacked images from the benign ones that they were made of."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from underfire.metrics import LEVEL, Mean, bootstrap_ends

_HALVINGS = 60  # of [0, 1]: below the rounding of float64


def auroc(benign: Sequence[float], attacked: Sequence[float]) -> float:
    """The area under the ROC curve: how often a benign image has the higher score, ties counting one half.

    That is Mann and Whitney's U over the number of pairs, in [0, 1]; 0.5 is what a coin does.

    Raises:
        ValueError: a side is empty, or a score is not finite.
    """
    if not benign or not attacked:
        raise ValueError(f"{len(benign)} benign and {len(attacked)} attacked scores make no pair")
    return float(_wins(benign, attacked).mean())


def auroc_by_photo(
    benign: Sequence[float], attacked: Sequence[float], level: float = LEVEL, resamples: int = 2000, seed: int = 0
) -> Mean:
    """`auroc` of n photos, each with the score of its benign and of its attacked image, with its interval.

    Both images of a photo are drawn together in the bootstrap, whose tails are those of
    :func:`underfire.metrics.bootstrap_mean`. Where every benign score lies above every attacked one, or below, so it
    does in every resample, which says nothing; the end on the other side is then that of Newcombe's score interval
    ("Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2", Statistics in
    Medicine 2006, method 5), which takes the two sides for independent.

    Raises:
        ValueError: the lengths differ, a score is not finite, ``level`` lies outside (0, 1), or ``resamples`` is below
            1.
    """
    n = len(benign)
    if len(attacked) != n:
        raise ValueError(f"photos have one benign and one attacked score, and here are {n} and {len(attacked)}")
    if n == 0:
        return Mean(0, None, None, None)
    value = auroc(benign, attacked)
    if n == 1:
        return Mean(1, value, None, None)
    if value in (0.0, 1.0):
        end = _score_end(n, level)
        return Mean(n, value, *((1 - end, 1.0) if value else (0.0, end)))

    wins = _wins(benign, attacked)
    low, high = bootstrap_ends(lambda rows: _area(wins, rows), n, level, resamples, seed)
    return Mean(n, value, min(max(low, 0.0), value), max(min(high, 1.0), value))


def _area(wins: Tensor, rows: Tensor) -> Tensor:
    """The statistic (R,) of the photos at the places ``rows`` (R, n)."""
    n = len(wins)
    times = torch.zeros(rows.shape, dtype=torch.float64).scatter_add_(1, rows, torch.ones(rows.shape).double())
    area: Tensor = (times @ wins * times).sum(dim=1) / n**2
    return area


def _wins(benign: Sequence[float], attacked: Sequence[float]) -> Tensor:
    """(n, m) float64: 1 where the benign score is the higher one, 0 where it is the lower one, else one half."""
    if not all(map(math.isfinite, (*benign, *attacked))):
        raise ValueError("a score is not finite")
    a = torch.tensor(list(benign), dtype=torch.float64)[:, None]
    b = torch.tensor(list(attacked), dtype=torch.float64)
    return ((a > b).double() + (a >= b).double()) / 2


def _score_end(n: int, level: float) -> float:
    """The largest 1 − θ that n benign and n attacked images, perfectly apart, leave possible.

    The root of (1 − θ)² = z²·V(θ), V(θ) = θ(1 − θ)·[1 + (n − 1)·((1 − θ)/(2 − θ) + θ/(1 + θ))] / n².
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        rest = (low + high) / 2
        theta = 1 - rest
        variance = theta * (1 + (n - 1) * (rest / (1 + rest) + theta / (1 + theta))) / n**2  # less the factor 1 − θ
        low, high = (rest, high) if rest < z * z * variance else (low, rest)
    return high
