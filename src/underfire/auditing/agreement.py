"""Whether the measures of maps rank the interpreters alike, by how far an attack that keeps the map falls short.

L1, IoU and the correlations look at different things, so that which interpreter resists best may depend on the measure
that a table has chosen. Compared are the maps of each interpreter under ADV² on it, as saved in 8 bits, over the photos
on which the attack reached the label for every interpreter: the same photos for all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underfire.auditing.distances import MEASURES, is_distance
from underfire.stats import Estimate, bootstrap_ends


@dataclass(frozen=True)
class Ranking:
    """The interpreters by one measure.

    Attributes:
        measure: its name.
        means: of each interpreter, over the photos.
        ranks: of each interpreter, from 1 for the one whose map is left furthest from the benign one; equal means share
            their mean rank.
    """

    measure: str
    means: tuple[float, ...]
    ranks: tuple[float, ...]


@dataclass(frozen=True)
class MeasureAgreement:
    """How far the rankings of all measures are one.

    Attributes:
        interpreters: those that are ranked, in the order of means and ranks.
        rankings: one for each measure that all rows have.
        concordance: Kendall's W of the rankings, from 0 for none to 1 for one ranking, ties corrected for; its interval
            is that of a bootstrap of the photos. No value where every measure finds all interpreters equal.
    """

    interpreters: tuple[str, ...]
    rankings: tuple[Ranking, ...]
    concordance: Estimate


def measure_agreement(interpreters: Sequence[str], attacked: NDArray[np.float64]) -> MeasureAgreement | None:
    """The rankings of the ``interpreters`` that were attacked by themselves.

    Args:
        interpreters: their names.
        attacked: (photos, interpreters, measures) of the map of each under the attack on it, on the photos on which
            every attack reached the label; NaN for a measure that a row is too old for.

    Returns:
        None for fewer than two interpreters, or no photo.
    """
    if len(interpreters) < 2 or not len(attacked):
        return None
    known = np.flatnonzero(~np.isnan(attacked).any(axis=(0, 1)))
    measures = [MEASURES[place] for place in known]
    values = torch.from_numpy(attacked[:, :, known])
    signs = torch.tensor([-1.0 if is_distance(name) else 1.0 for name in measures], dtype=torch.float64)
    means, ranks = values.mean(dim=0), _ranks(_mean(values * signs))[0]
    rankings = tuple(
        Ranking(name, tuple(means[:, place].tolist()), tuple(ranks[:, place].tolist()))
        for place, name in enumerate(measures)
    )
    return MeasureAgreement(tuple(interpreters), rankings, _concordance(values * signs))


def _concordance(kept: Tensor) -> Estimate:
    """Of (n, k, m), the larger the nearer to the benign map, with the interval."""
    n, k, m = kept.shape
    value = float(kendall_w(_mean(kept)))
    if math.isnan(value):
        return Estimate(None, None, None, n)
    if n == 1:
        return Estimate(value, None, None, 1)

    def resampled(rows: Tensor) -> Tensor:
        times = torch.zeros(len(rows), n, dtype=torch.float64)
        times.scatter_add_(1, rows, torch.ones(rows.shape, dtype=torch.float64))
        return kendall_w(_rounded((times @ kept.flatten(1) / n).view(-1, k, m))).nan_to_num(1.0)

    low, high = bootstrap_ends(resampled, n)
    return Estimate(value, min(low, value), max(high, value), n)


def _mean(kept: Tensor) -> Tensor:
    """The means (1, k, m) over the photos."""
    return _rounded(kept.mean(dim=0, keepdim=True))


def _rounded(means: Tensor) -> Tensor:
    """Without the last bits, which the order of a sum decides: equal means are equal."""
    return means.round(decimals=12)


def kendall_w(values: Tensor) -> Tensor:
    """Kendall's coefficient of concordance W (R,) of m rankings of k things, by their ``values`` (R, k, m).

    12 Σᵢ (Rᵢ − m(k + 1)/2)² / (m²(k³ − k) − m Σⱼ Tⱼ), Rᵢ the sum of the ranks of i and Tⱼ the sum of t³ − t over the
    groups of t equal values of ranking j; NaN where all are equal in all. Source: Kendall and Babington Smith, "The
    problem of m rankings", Annals of Mathematical Statistics 1939.
    """
    _, k, m = values.shape
    spread = (_ranks(values).sum(dim=2) - m * (k + 1) / 2).square().sum(dim=1)
    equal = (values[:, :, None] == values[:, None]).sum(dim=2).double()
    ties = (equal.square() - 1).sum(dim=(1, 2))
    return 12 * spread / (m**2 * (k**3 - k) - m * ties)


def _ranks(values: Tensor) -> Tensor:
    """The ranks (R, k, m) of k values, from 1 for the lowest on, equal ones sharing their mean rank."""
    one, other = values[:, :, None], values[:, None]
    return 0.5 + (other < one).sum(dim=2).double() + 0.5 * (other == one).sum(dim=2).double()
