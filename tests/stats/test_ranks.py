import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underfire.stats import rank_correlation


def test_known_values() -> None:
    """By hand: ranks 0 1 2 3 4 against 1 0 2 4 3, ρ = 1 − 6·4/(5·24) = 0.8."""
    found = rank_correlation([1, 2, 3, 4, 5], [20, 10, 30, 50, 40])
    assert found.value == pytest.approx(0.8)
    half = 1.959964 * math.sqrt((1 + 0.32) / 2)
    assert found.low == pytest.approx(math.tanh(math.atanh(0.8) - half), abs=1e-6)
    assert found.high == pytest.approx(math.tanh(math.atanh(0.8) + half), abs=1e-6)


def test_ties_share_their_mean_rank() -> None:
    """Ranks 0.5 0.5 2 against 0 1 2: covariance 1.5, variances 1.5 and 2."""
    assert rank_correlation([1, 1, 3], [5, 6, 7]).value == pytest.approx(1.5 / math.sqrt(3))


@pytest.mark.parametrize("pairs", [0, 1, 4])
def test_a_constant_side_has_no_value(pairs: int) -> None:
    found = rank_correlation([1.0] * pairs, list(map(float, range(pairs))))
    assert (found.n, found.value, found.low) == (pairs, None, None)


def test_few_pairs_have_no_interval() -> None:
    found = rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
    assert found.value == pytest.approx(1)
    assert (found.low, found.high) == (None, None)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=5, max_size=40))
def test_properties(pairs: list[tuple[int, int]]) -> None:
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    found = rank_correlation(a, b)
    if found.value is None:
        assert len(set(a)) == 1 or len(set(b)) == 1
        return
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low
    assert rank_correlation(b, a).value == pytest.approx(found.value)
    assert rank_correlation([math.exp(x / 20) for x in a], b).value == pytest.approx(found.value)  # order alone counts
    assert rank_correlation([-x for x in a], b).value == pytest.approx(-found.value)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        rank_correlation([1], [1, 2])
