"""The exact rank of the threshold, the rate that it holds, and the interval of that rate."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire.defenses.calibration import Calibration, calibrate, photos_needed
from underfire.errors import InputError
from underfire.stats import beta_quantile


def _ranks(n: int) -> torch.Tensor:
    """Scores 1 … n in no order: the k-th lowest is k."""
    return torch.tensor([(7 * i) % n + 1 for i in range(n)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("fpr", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.3, 3), (0.001, 999), (0.9, 1)]
)
def test_the_photos_needed(fpr: float, needed: int) -> None:
    assert photos_needed(fpr) == needed
    assert calibrate(torch.arange(float(needed)), fpr).n == needed
    if needed > 1:
        with pytest.raises(InputError, match=rf"^{needed - 1} clean photos .* at least {needed}, or a higher rate$"):
            calibrate(torch.arange(float(needed - 1)), fpr)


@pytest.mark.parametrize(
    ("n", "fpr", "rank"),
    [(19, 0.05, 1), (38, 0.05, 1), (39, 0.05, 2), (99, 0.01, 1), (99, 0.29, 29), (99, 0.07, 7), (9, 0.99, 9)],
)
def test_the_threshold_is_the_kth_lowest_score(n: int, fpr: float, rank: int) -> None:
    # In float64, 0.29 · 100 is below 29 and 0.07 · 100 above 7.
    found = calibrate(_ranks(n), fpr)
    assert found.rank == rank
    assert found.threshold == rank


@given(st.lists(st.integers(-4, 4), min_size=19, max_size=60), st.integers(-5, 5), st.sampled_from([0.05, 0.1, 0.37]))
def test_flagged_is_what_has_a_conformal_p_value_of_at_most_the_rate(scores: list[int], new: int, fpr: float) -> None:
    found = calibrate(torch.tensor(scores, dtype=torch.float64), fpr)
    p_value = Fraction(1 + sum(s <= new for s in scores), len(scores) + 1)
    assert (new < found.threshold) == (p_value <= Fraction(str(fpr)))


@pytest.mark.parametrize(("n", "fpr"), [(30, 0.05), (30, 0.1), (99, 0.1)])
def test_the_rate_is_held_on_average_and_varies_as_said(n: int, fpr: float) -> None:
    draws = 4000
    scores = torch.rand(draws, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [calibrate(row, fpr) for row in scores]
    rates = torch.tensor([c.threshold for c in found])  # of uniform scores: P(s < t) = t
    mean = found[0].rank / (n + 1)
    assert mean <= fpr
    assert float(rates.mean()) == pytest.approx(mean, abs=4 * float(rates.std()) / math.sqrt(draws))
    low, high = found[0].interval()
    for outside in (rates < low, rates > high):
        assert float(outside.double().mean()) == pytest.approx(0.025, abs=4 * math.sqrt(0.025 * 0.975 / draws))


def test_ties_never_flag_more() -> None:
    assert not bool((torch.ones(40) < calibrate(torch.ones(40), 0.05).threshold).any())


def test_the_beta_quantile_solves_the_binomial_identity() -> None:
    for p, a, b in [(0.025, 1, 19), (0.975, 1, 19), (0.5, 3, 4), (0.975, 20, 381), (0.025, 9, 1)]:
        x = Fraction(beta_quantile(p, a, b))
        n = a + b - 1
        tail = sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))
        assert float(tail) == pytest.approx(p, rel=1e-11)


def test_the_beta_quantile_of_one_and_n_is_closed() -> None:
    assert beta_quantile(0.3, 1, 1) == pytest.approx(0.3, rel=1e-12)
    assert beta_quantile(0.025, 1, 40) == pytest.approx(1 - 0.975 ** (1 / 40), rel=1e-12)
    assert beta_quantile(0.025, 40, 1) == pytest.approx(0.025 ** (1 / 40), rel=1e-12)


def test_the_interval_is_scipys() -> None:
    special = pytest.importorskip("scipy.special")
    for n, fpr in [(19, 0.05), (250, 0.05), (99, 0.01), (3000, 0.05), (9, 0.95)]:
        found = Calibration(fpr, n, 0.0)
        for level in (0.95, 0.5):
            tails = [(1 - level) / 2, (1 + level) / 2]
            wanted = special.betaincinv(found.rank, n + 1 - found.rank, tails)
            np.testing.assert_allclose(found.interval(level), wanted, rtol=1e-8)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 5.0, math.nan, math.inf])
def test_a_rate_out_of_range_is_quoted(fpr: float) -> None:
    with pytest.raises(InputError, match=rf"^a false-positive rate of {fpr} is not in \(0, 1\)"):
        calibrate(torch.zeros(50), fpr)


def test_what_is_no_calibration_is_refused() -> None:
    with pytest.raises(ValueError, match="without NaN"):
        calibrate(torch.tensor([0.0] * 30 + [math.nan]), 0.05)
    with pytest.raises(ValueError, match=r"\(n,\)"):
        calibrate(torch.zeros(30, 1), 0.05)
    with pytest.raises(ValueError, match="18 photos"):
        Calibration(0.05, 18, 0.0)
    with pytest.raises(ValueError, match="nan"):
        Calibration(0.05, 19, math.nan)
    with pytest.raises(ValueError, match="level"):
        Calibration(0.05, 19, 0.0).interval(1.0)
