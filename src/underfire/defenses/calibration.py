"""The threshold of a detector at a false-positive rate that the user names, and what that rate is worth.

Split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005; as a test for
outliers: Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values", Annals of Statistics
2023). It needs no law of the scores: only that the calibration photos and a new clean photo could change places.

The rate measured on other clean photos gets its interval from :func:`underfire.stats.wilson`.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.stats import LEVEL, beta_quantile


@dataclass(frozen=True)
class Calibration:
    """A threshold on scores that are higher for clean photos.

    Attributes:
        fpr: the rate that was named; the probability that a new clean photo is flagged is at most that.
        n: clean photos behind the threshold.
        threshold: the lowest score that is not flagged.

    Raises:
        InputError: ``fpr`` is out of its range.
        ValueError: ``n`` is too small for it, or the threshold is not finite.
    """

    fpr: float
    n: int
    threshold: float

    def __post_init__(self) -> None:
        if self.n < photos_needed(self.fpr) or not math.isfinite(self.threshold):
            raise ValueError(f"{self.n} photos set no threshold {self.threshold} at a rate of {self.fpr}")

    @property
    def rank(self) -> int:
        """k: the threshold is the k-th lowest of the ``n`` scores."""
        return _rank(self.fpr, self.n)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval, of confidence ``level``, of the true false-positive rate of this very threshold.

        Over the choice of the calibration photos the rate has the law Beta(k, n + 1 − k), of mean k / (n + 1), where
        scores have no ties; with ties it is lower. The interval leaves the same probability on either side. Source:
        Vovk, "Conditional validity of inductive conformal predictors", ACML 2012.

        Raises:
            ValueError: ``level`` lies outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; it must lie in (0, 1)")
        k, side = self.rank, (1 - level) / 2
        return beta_quantile(side, k, self.n + 1 - k), beta_quantile(1 - side, k, self.n + 1 - k)


def check_rate(fpr: float) -> None:
    """Refuse a false-positive rate outside (0, 1); raises `InputError`."""
    if not 0 < fpr < 1:
        raise InputError(f"a false-positive rate of {fpr} is not in (0, 1); give a share such as 0.05")


def photos_needed(fpr: float) -> int:
    """The fewest calibration photos for the rate ``fpr``: with fewer, no threshold but −∞ holds it.

    Raises:
        InputError: ``fpr`` is out of its range.
    """
    check_rate(fpr)
    return math.ceil(1 / _exact(fpr)) - 1


def calibrate(scores: Tensor, fpr: float) -> Calibration:
    """The highest threshold that flags a new clean photo with probability at most ``fpr``.

    With n clean ``scores`` (n,) it is the k-th lowest, k = ⌊fpr·(n + 1)⌋; a photo is flagged when its score is *below*
    it. That is the test whose conformal p-value (1 + #{scores ≤ s}) / (n + 1) is at most ``fpr``.

    Raises:
        InputError: ``fpr`` is out of its range, or there are too few scores for it.
        ValueError: ``scores`` is no tensor (n,), or holds NaN.
    """
    needed = photos_needed(fpr)
    if scores.ndim != 1 or bool(scores.isnan().any()):
        raise ValueError(f"scores are a tensor (n,) without NaN, and these are {tuple(scores.shape)}")
    n = scores.shape[0]
    if n < needed:
        raise InputError(
            f"{n} clean photos cannot set a threshold at a false-positive rate of {fpr}; give at least {needed}, or a "
            "higher rate"
        )
    lowest = torch.sort(scores.detach().to("cpu", torch.float64)).values
    return Calibration(fpr, n, float(lowest[_rank(fpr, n) - 1]))


def _rank(fpr: float, n: int) -> int:
    return math.floor(_exact(fpr) * (n + 1))


def _exact(fpr: float) -> Fraction:
    """The decimal that the user wrote: 0.29 · 100 is 29, which float64 rounds to less."""
    return Fraction(repr(float(fpr)))
