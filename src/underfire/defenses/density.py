"""How far an image's signals are from those of clean photos: a shrunk Mahalanobis distance, and its parts."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from underfire.errors import InputError

FEWEST = 5
"""The fewest photos of which a spread can be told at all; two are alike in their distance from their median."""

_NORMAL = 1.4826  # standard deviations in the median absolute deviation of a normal law: 1 / Φ⁻¹(3/4)
_CONSTANT = 1e-9  # a spread below that, relative to the values, is rounding
_SINGULAR = 1e-6  # the smallest eigenvalue of a correlation matrix that is distinguished from 0


@dataclass(frozen=True)
class Density:
    """Where the signals of clean photos lie; tensors are float64 on the CPU.

    The squared distance of a row s is ‖W·z‖², z = (s − centre) / spread, and WᵀW the inverse of the covariance of z. Of
    the matrices W with that property it is R^(−½)·D^(−½), D the variances and R the correlations of z: each component
    of W·z is as close to its own signal as any choice allows, so its square is that signal's contribution. Source:
    Garthwaite and Koch, "Evaluating the contributions of individual variables to a quadratic form", Australian & New
    Zealand Journal of Statistics 2016 (corr-max). It is at least 0, and the contributions add up to the distance.

    Attributes:
        n: photos that it was fitted on.
        centre: (S,) median of each signal.
        spread: (S,) scale of each signal, above 0.
        whitening: (S, S) W.
        shrinkage: ρ in [0, 1], the weight of the scaled identity in the covariance.

    Raises:
        ValueError: a part has another shape, type or range.
    """

    n: int
    centre: Tensor
    spread: Tensor
    whitening: Tensor
    shrinkage: float

    def __post_init__(self) -> None:
        count = len(self.centre)
        for values, shape in ((self.centre, (count,)), (self.spread, (count,)), (self.whitening, (count, count))):
            if values.shape != shape or values.dtype != torch.float64 or not bool(torch.isfinite(values).all()):
                raise ValueError(f"a part {values.dtype} {tuple(values.shape)} is no finite float64 {shape}")
        if not bool((self.spread > 0).all()) or not 0 <= self.shrinkage <= 1 or self.n < FEWEST:
            raise ValueError(f"a spread, the shrinkage {self.shrinkage} or the {self.n} photos are out of their range")
        if not bool((self.whitening != 0).any(dim=0).all()):
            raise ValueError("the whitening leaves a signal out of the distance")

    @classmethod
    def fit(cls, values: Tensor) -> Self:
        """The density of the signals ``values`` (n, S) of clean photos.

        The spread is 1.4826 times the median absolute deviation (MAD), or the root mean square deviation from the
        median where that is larger. The MAD of a signal that differs on fewer than half of the photos is 0, and that
        of a signal with long tails is so small that its variance alone would set the scale of the shrinkage.

        A signal that is the same on all photos counts as uncorrelated, with a spread of 1/√(n + 1) of its unit: as if
        one photo more had differed by 1. A new value is then unusual, and no infinitely so.

        Raises:
            InputError: there are fewer photos than `FEWEST`, or no signal.
            ValueError: ``values`` are no matrix of finite numbers.
        """
        if values.ndim != 2 or not bool(torch.isfinite(values).all()):
            raise ValueError(f"signals are finite numbers (n, S), and these are {tuple(values.shape)}")
        n, count = values.shape
        if n < FEWEST or not count:
            raise InputError(
                f"{n} photos with {count} signals have no spread; give at least {FEWEST} photos and one signal"
            )
        values = values.detach().to("cpu", torch.float64)
        centre = values.quantile(0.5, dim=0)
        deviations = values - centre
        mad = deviations.abs().quantile(0.5, dim=0)
        spread = torch.maximum(_NORMAL * mad, deviations.square().mean(dim=0).sqrt())
        varied = spread > _CONSTANT * values.abs().amax(dim=0).clamp_min(1)
        spread = torch.where(varied, spread, (n + 1) ** -0.5)
        covariance = torch.eye(count, dtype=torch.float64)
        shrinkage = 0.0
        if varied.any():
            shrunk, shrinkage = ledoit_wolf((deviations / spread)[:, varied])
            covariance[varied.outer(varied)] = shrunk.flatten()
        return cls(n, centre, spread, _whitening(covariance), shrinkage)

    def contributions(self, values: Tensor) -> Tensor:
        """What each signal of ``values`` (N, S) adds to the squared distance, (N, S), at least 0; differentiable.

        Any value is taken as it is: nothing is clipped.
        """
        standard = (values - self.centre) / self.spread
        # No matrix product: its kernels, and so the last bits, depend on the number of rows.
        return (standard[:, None, :] * self.whitening).sum(dim=2).square()

    def distance(self, values: Tensor) -> Tensor:
        """The squared Mahalanobis distance (N,) of ``values`` (N, S) from the centre; differentiable."""
        return self.contributions(values).sum(dim=1)

    def score(self, values: Tensor) -> Tensor:
        """−½ :meth:`distance`, (N,): the logarithm of a normal density up to a constant; differentiable."""
        return -0.5 * self.distance(values)


def ledoit_wolf(deviations: Tensor) -> tuple[Tensor, float]:
    """The covariance (S, S) of ``deviations`` (n, S) from a known centre, shrunk to a multiple of the identity, and ρ.

    (1 − ρ)·C + ρ·m·I, C the mean of the outer products of the rows and m the mean of its diagonal. ρ is the closed form
    that estimates the weight of least mean squared error: the mean squared distance of the outer products from C over
    n, divided by that of C from m·I, and at most 1. Source: Ledoit and Wolf, "A well-conditioned estimator for
    large-dimensional covariance matrices", Journal of Multivariate Analysis 2004, section 3.2.
    """
    n, count = deviations.shape
    sample = deviations.T @ deviations / n
    target = sample.diagonal().mean() * torch.eye(count, dtype=sample.dtype)
    # Σ‖xxᵀ − C‖² = Σ‖x‖⁴ − n‖C‖², as the mean of the xxᵀ is C.
    scatter = (deviations.square().sum(dim=1).square().mean() - sample.square().sum()) / n
    away = (sample - target).square().sum()
    shrinkage = min(1.0, max(0.0, float(scatter / away))) if away > 0 else 1.0  # then C is the target itself
    return (1 - shrinkage) * sample + shrinkage * target, shrinkage


def _whitening(covariance: Tensor) -> Tensor:
    """R^(−½)·D^(−½) of a covariance with a positive diagonal; eigenvalues of R below `_SINGULAR` count as that."""
    deviations = covariance.diagonal().sqrt()
    correlation = covariance / deviations.outer(deviations)
    eigenvalues, vectors = torch.linalg.eigh(correlation)
    root: Tensor = (vectors * eigenvalues.clamp_min(_SINGULAR).rsqrt()) @ vectors.T
    return root / deviations
