"""Means whose values come in pieces: the bootstrap's interval while they are few, and the same ends from moments."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special

from underfire.stats import LEVEL, MOST_RESAMPLED, NO_ESTIMATE, StreamedMeans, bootstrap_mean

N = MOST_RESAMPLED
Draw = Callable[[np.random.Generator], NDArray[np.float64]]


def streamed(values: NDArray[np.float64], pieces: int = 7) -> StreamedMeans:
    stream = StreamedMeans(values.shape[1])
    for piece in np.array_split(values, pieces):
        stream.add(piece)
    return stream


def bootstrap_limit(values: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of `bootstrap_mean` with infinitely many resamples, from the resampled mean's characteristic function.

    P(X̄* ≤ x) = ½ − 1/π ∫₀^∞ Im(e^(−itx) φ(t)ⁿ)/t dt (Gil-Pelaez 1951), of values in units of the mean's spread.
    """
    n = len(values)
    centred = (values - values.mean()) / (values.std() * math.sqrt(n))
    t = np.linspace(1e-6, 9, 1500)
    phi = np.exp(1j * t[:, None] * centred).mean(axis=1) ** n

    def excess(x: float, tail: float) -> float:
        return float(0.5 - np.trapezoid((np.exp(-1j * t * x) * phi).imag / t, t) / math.pi - tail)

    z = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(n / (n - 1))
    ends = [optimize.brentq(excess, -4, 4, args=(tail,)) for tail in (special.ndtr(-z), special.ndtr(z))]
    low, high = (values.mean() + values.std() * end / math.sqrt(n) for end in ends)
    return float(low), float(high)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng: rng.beta(2, 30, N + 1), id="L1 of kept maps"),
        pytest.param(lambda rng: rng.beta(0.3, 0.3, N + 1), id="IoU near 0 and 1"),
        pytest.param(lambda rng: rng.lognormal(0, 1, N + 1), id="seconds, skewed to the right"),
        pytest.param(lambda rng: (rng.random(N + 1) < 0.02) + rng.normal(0, 1e-3, N + 1), id="a rare event"),
    ],
)
def test_moments_give_the_ends_of_the_bootstrap(draw: Draw) -> None:
    values = draw(np.random.default_rng(3))
    (found,) = streamed(values[:, None]).estimates()
    low, high = bootstrap_limit(values)
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(values.mean())
    assert abs(found.low - low) < 0.01 * (high - low)
    assert abs(found.high - high) < 0.01 * (high - low)
    drawn = bootstrap_mean(values.tolist(), resamples=20_000)  # whose own error is about half a per cent of its width
    assert [drawn.low, drawn.high] == pytest.approx([low, high], abs=0.02 * (high - low))


@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_moments_do_not_depend_on_the_pieces(pieces: int) -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, (N + 500, 2))
    whole, split = streamed(values, 1).estimates(), streamed(values, pieces).estimates()
    for one, other in zip(whole, split, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-12)


def test_few_values_are_resampled() -> None:
    values = np.random.default_rng(2).random((40, 3))
    values[5:, 1] = np.nan
    values[:, 2] = np.nan
    found = streamed(values).estimates()
    assert found == [bootstrap_mean(values[:, 0].tolist()), bootstrap_mean(values[:5, 1].tolist()), NO_ESTIMATE]


def test_each_column_has_the_method_of_its_own_number() -> None:
    values = np.random.default_rng(4).random((N + 1, 2))
    values[N // 2 :, 1] = np.nan
    many, few = streamed(values).estimates()
    assert few == bootstrap_mean(values[: N // 2, 1].tolist())
    assert many.n == N + 1
    assert many != bootstrap_mean(values[:, 0].tolist())


def test_equal_values_have_no_width() -> None:
    (found,) = streamed(np.full((N + 1, 1), 0.25)).estimates()
    assert (found.value, found.low, found.high, found.n) == (0.25, 0.25, 0.25, N + 1)
