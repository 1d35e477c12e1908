"""The median and its exact interval."""

import math

import pytest
import torch

from underfire.stats import NO_ESTIMATE, Estimate, median


@pytest.mark.parametrize(
    ("n", "rank"),
    [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6), (50, 18)],  # the tables of the sign test at 0.05, two-sided
)
def test_the_ends_are_the_order_statistics_of_the_tables(n: int, rank: int) -> None:
    found = median([float(v) for v in torch.randperm(n, generator=torch.Generator().manual_seed(n)) + 1])
    assert found == Estimate((n + 1) / 2, float(rank), float(n + 1 - rank), n)


def test_infinite_values_are_values() -> None:
    assert median([1.0, math.inf, math.inf]).value == math.inf
    assert median([2.0, 1.0, math.inf]).value == 2.0
    assert median([1.0, 2.0, 3.0, math.inf, 5.0, 6.0, 7.0]).high == math.inf


def test_few_values_have_no_interval_and_none_no_median() -> None:
    assert median([1.0, 3.0]) == Estimate(2.0, None, None, 2)
    assert median([]) == NO_ESTIMATE
    with pytest.raises(ValueError, match="NaN"):
        median([math.nan])


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    draw = torch.Generator().manual_seed(0)
    samples = torch.randn(2000, 15, generator=draw).tolist()
    held = sum(found.low <= 0 <= found.high for found in map(median, samples) if found.low and found.high)
    assert 0.95 <= held / 2000 <= 0.98  # 0.965 by the binomial law
