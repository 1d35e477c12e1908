"""The mathematics of certificates, against closed forms and scipy's other ways."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from underfire import InputError
from underfire.certificates.bounds import (
    lower_limit,
    outvoted_rate,
    per_query,
    radius_below,
    rate_within,
    upper_limit,
    voted_rate,
)
from underfire.stats import clopper_pearson

ALPHAS = (0.05, 1e-3, 1e-9)


def _of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestLimits:
    @pytest.mark.parametrize("alpha", ALPHAS)
    @pytest.mark.parametrize("n", [1, 7, 1000])
    def test_at_the_ends_they_are_closed_forms(self, n: int, alpha: float) -> None:
        ends = torch.tensor([0, n])
        none, always = upper_limit(ends, n, alpha).tolist()
        assert none == pytest.approx(-math.expm1(math.log(alpha) / n), rel=1e-12)
        assert always == 1.0
        zero, most = lower_limit(ends, n, alpha).tolist()
        assert zero == 0.0
        assert most == pytest.approx(alpha ** (1 / n), rel=1e-12)

    @pytest.mark.parametrize("alpha", ALPHAS)
    def test_at_them_the_count_has_the_chance_alpha(self, alpha: float) -> None:
        counts = torch.tensor([0, 1, 3, 50, 99])
        upper, lower = upper_limit(counts, 100, alpha).numpy(), lower_limit(counts, 100, alpha).numpy()
        assert stats.binom.cdf(counts, 100, upper) == pytest.approx([alpha] * 5, rel=1e-6)
        assert stats.binom.sf(counts[1:] - 1, 100, lower[1:]) == pytest.approx([alpha] * 4, rel=1e-6)

    def test_they_are_the_ends_of_the_exact_interval(self) -> None:
        share = clopper_pearson(13, 200, level=0.9)
        assert float(upper_limit(torch.tensor(13), 200, 0.05)) == pytest.approx(share.high, rel=1e-12)
        assert float(lower_limit(torch.tensor(13), 200, 0.05)) == pytest.approx(share.low, rel=1e-12)

    @given(st.integers(1, 400), st.data())
    def test_the_rest_has_the_rest(self, n: int, data: st.DataObject) -> None:
        k = data.draw(st.integers(0, n))
        alpha = data.draw(st.floats(1e-6, 0.5))
        rest = 1 - lower_limit(torch.tensor(n - k), n, alpha)
        assert float(upper_limit(torch.tensor(k), n, alpha)) == pytest.approx(float(rest), abs=1e-12)

    @given(st.integers(2, 400), st.floats(1e-6, 0.4), st.data())
    def test_they_rise_with_the_count_and_fall_with_alpha(self, n: int, alpha: float, data: st.DataObject) -> None:
        k = data.draw(st.integers(0, n - 1))
        fewer, more = upper_limit(torch.tensor([k, k + 1]), n, alpha).tolist()
        assert k / n < fewer < more
        assert float(upper_limit(torch.tensor(k), n, 2 * alpha)) < fewer

    def test_what_is_no_experiment_is_refused(self) -> None:
        with pytest.raises(ValueError, match="among 5"):
            upper_limit(torch.tensor(6), 5, 0.1)
        for n, alpha in ((0, 0.1), (5, 0.0), (5, 1.0), (5, math.nan)):
            with pytest.raises(InputError):
                upper_limit(torch.tensor(0), n, alpha)


class TestRates:
    def test_a_radius_is_where_the_rate_is_reached(self) -> None:
        p = _of(1e-9, 0.01, 0.2, 0.49)
        radius = radius_below(p, 0.5, 0.25)
        assert [float(rate_within(q, float(r), 0.25)) for q, r in zip(p, radius, strict=True)] == pytest.approx(
            [0.5] * 4
        )
        assert radius_below(_of(0.5, 0.7, 1.0), 0.5, 0.25).tolist() == [0, 0, 0]

    def test_certainty_stays_certainty(self) -> None:
        assert rate_within(_of(0.0, 1.0), 3.0, 0.1).tolist() == [0.0, 1.0]
        assert rate_within(_of(1e-300, 1 - 1e-16), 0.0, 0.1).tolist() >= [1e-300, 1 - 1e-16]

    @given(st.floats(1e-12, 1 - 1e-12), st.floats(0, 2), st.floats(0, 1), st.floats(0.01, 1))
    def test_rates_rise_with_the_radius(self, p: float, radius: float, more: float, sigma: float) -> None:
        near, far = (float(rate_within(_of(p), r, sigma)) for r in (radius, radius + more))
        assert p <= near <= far <= 1

    def test_a_cohen_radius_is_that_of_both_sides(self) -> None:
        """σ/2·(Φ⁻¹(p_A) − Φ⁻¹(p_B)) of two classes, p_B = 1 − p_A, is where a wrong label has a chance of one half."""
        lower = lower_limit(torch.tensor([600, 990, 1000]), 1000, 0.001)
        cohen = 0.5 * (stats.norm.ppf(lower) - stats.norm.ppf(1 - lower))
        assert radius_below(1 - lower, 0.5, 1.0).numpy() == pytest.approx(cohen)

    @pytest.mark.parametrize("queries", [1, 10, 100])
    def test_of_so_many_queries_one_succeeds_at_the_rate(self, queries: int) -> None:
        u = per_query(0.5, queries)
        assert 1 - (1 - u) ** queries == pytest.approx(0.5)
        assert u == pytest.approx(1 - 2 ** (-1 / queries))

    def test_numbers_out_of_range_are_refused(self) -> None:
        for rate, queries in ((0.0, 1), (1.0, 1), (0.5, 0)):
            with pytest.raises(InputError):
                per_query(rate, queries)
        with pytest.raises(InputError):
            voted_rate(_of(0.1), 0)


class TestVotes:
    @pytest.mark.parametrize("draws", [1, 2, 3, 10, 101])
    def test_they_are_means_over_the_binomial_law(self, draws: int) -> None:
        k, least = np.arange(draws + 1), draws // 2 + 1
        for u in (0.0, 0.01, 0.3, 0.5, 0.9, 1.0):
            law = stats.binom.pmf(k, draws, u)
            assert float(voted_rate(_of(u), draws)[0]) == pytest.approx(law @ np.minimum(1, k / least), abs=1e-12)
            assert float(outvoted_rate(_of(u), draws)[0]) == pytest.approx(law[least:].sum(), abs=1e-12)

    def test_one_draw_is_the_draw_itself(self) -> None:
        assert voted_rate(_of(0.3), 1).tolist() == outvoted_rate(_of(0.3), 1).tolist() == [pytest.approx(0.3)]

    @given(st.floats(0, 1), st.integers(1, 300))
    def test_a_vote_at_most_doubles_a_rate(self, u: float, draws: int) -> None:
        assert float(voted_rate(_of(u), draws)[0]) <= min(1.0, 2 * u) + 1e-12

    def test_no_system_shows_a_pair_more_often(self) -> None:
        """Simulated: the event's pairs share a label, and the other draws have labels of their own, or that one too."""
        draws, u, trials = 5, 0.4, 40_000
        hits = torch.rand(trials, draws, generator=torch.Generator().manual_seed(0)) < u
        shown = hits.sum(dim=1) > draws / 2  # the others never agree, and the map is of one that agrees
        bound = float(voted_rate(_of(u), draws)[0])
        assert float(shown.double().mean()) == pytest.approx(float(outvoted_rate(_of(u), draws)[0]), abs=0.01)
        same = hits.double().mean(dim=1).mean()  # all draws have one label, and u of them the event's map
        assert float(same) <= bound
