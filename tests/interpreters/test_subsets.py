"""What is drawn with known chances, and divided by them, is right in the mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire.interpreters.subsets import inclusion_chances, systematic

SIZES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12)


@given(sizes=SIZES, count=st.integers(1, 12))
def test_chances_add_up_and_follow_the_sizes(sizes: list[float], count: int) -> None:
    count, asked = min(count, len(sizes)), torch.tensor([sizes], dtype=torch.float64)
    chances = inclusion_chances(asked, count)
    assert float(chances.sum()) == pytest.approx(count, rel=1e-9)
    assert 0 < float(chances.min()) <= float(chances.max()) <= 1
    free = chances < 1
    if free.any():
        ratio = (chances / asked)[free]
        assert float(ratio.max()) == pytest.approx(float(ratio.min()), rel=1e-9)
        assert float(asked[free].max()) <= float(asked[~free].min() if (~free).any() else torch.inf)


@given(sizes=SIZES, count=st.integers(1, 12), start=st.floats(0, 1, exclude_max=True))
def test_no_part_is_drawn_twice(sizes: list[float], count: int, start: float) -> None:
    count = min(count, len(sizes))
    chances = inclusion_chances(torch.tensor([sizes], dtype=torch.float64), count)
    (drawn,) = systematic(chances, torch.tensor([start], dtype=torch.float64), count).tolist()
    assert len(set(drawn)) == len(drawn) == count


def test_each_is_drawn_with_its_chance() -> None:
    chances = inclusion_chances(torch.tensor([[5.0, 1.0, 0.5, 0.25, 0.25], [1.0, 1.0, 1.0, 1.0, 1.0]]).double(), 2)
    starts = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = torch.zeros(2, 5, dtype=torch.float64)
    for start in starts:
        places = systematic(chances, start.expand(2), 2)
        counts.scatter_add_(1, places, torch.ones_like(places, dtype=torch.float64))
    torch.testing.assert_close(counts / 1000, chances, rtol=0, atol=2e-3)
    assert chances[0].tolist() == [1, 0.5, 0.25, 0.125, 0.125]
