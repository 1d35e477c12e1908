"""AUROC against brute force, its properties, and intervals over photos."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire.stats import auroc, auroc_by_photo

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)
PHOTOS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=15)


def by_hand(benign: Sequence[float], attacked: Sequence[float]) -> float:
    wins = [1.0 if b > a else 0.5 if b == a else 0.0 for b in benign for a in attacked]
    return sum(wins) / len(wins)


def test_known_values() -> None:
    assert auroc([3, 2], [1, 0]) == 1
    assert auroc([0, 1], [2, 3]) == 0
    assert auroc([1, 1], [1]) == 0.5
    assert auroc([0, 2, 3], [1, 2]) == pytest.approx((0 + 0 + 1 + 0.5 + 1 + 1) / 6)


@given(SCORES, SCORES)
def test_it_is_the_share_of_pairs(benign: list[float], attacked: list[float]) -> None:
    assert auroc(benign, attacked) == pytest.approx(by_hand(benign, attacked))


@given(SCORES, SCORES)
def test_only_the_order_matters_and_sides_are_alike(benign: list[float], attacked: list[float]) -> None:
    found = auroc(benign, attacked)
    assert auroc([s**3 + 7 for s in benign], [s**3 + 7 for s in attacked]) == found
    assert auroc(attacked, benign) == pytest.approx(1 - found)


@given(PHOTOS)
def test_the_interval_holds_the_value_and_mirrors(photos: list[tuple[int, int]]) -> None:
    benign, attacked = [float(b) for b, _ in photos], [float(a) for _, a in photos]
    found, other = auroc_by_photo(benign, attacked), auroc_by_photo(attacked, benign)
    assert found == auroc_by_photo(benign, attacked)
    assert found.value == pytest.approx(by_hand(benign, attacked))
    assert found.n == len(photos)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert other.low == pytest.approx(1 - found.high)
    assert other.high == pytest.approx(1 - found.low)


def test_both_images_of_a_photo_are_drawn_together() -> None:
    """Whatever is drawn, images that score alike win half of the pairs; drawn apart, they would not."""
    scores = [float(s) for s in range(20)]
    found = auroc_by_photo(scores, scores)
    for figure in (found.low, found.value, found.high):
        assert figure == pytest.approx(0.5)


def test_the_interval_is_that_of_resampled_photos() -> None:
    """The middle of the resamples is where brute force puts it, and the tails are the expanded percentiles."""
    draw = torch.Generator().manual_seed(3)
    n = 12
    benign = torch.randn(n, generator=draw).tolist()
    attacked = (torch.randn(n, generator=draw) - 0.5).tolist()
    again = torch.Generator().manual_seed(0)
    rows = torch.randint(n, (2000, n), generator=again).tolist()
    values = [by_hand([benign[i] for i in some], [attacked[i] for i in some]) for some in rows]
    # Φ(−t·√(n/(n−1))), t the 97.5 % quantile of Student's law for 11 degrees of freedom
    tail = 0.5 * torch.special.erfc(torch.tensor(2.200985 * (n / (n - 1)) ** 0.5 / 2**0.5, dtype=torch.float64))
    ends = torch.quantile(torch.tensor(values, dtype=torch.float64), torch.stack([tail, 1 - tail]))
    found = auroc_by_photo(benign, attacked)
    assert found.low == pytest.approx(float(ends[0]), abs=1e-4)
    assert found.high == pytest.approx(float(ends[1]), abs=1e-4)


@pytest.mark.parametrize("n", [2, 10, 40])
def test_perfectly_apart_is_not_certainty(n: int) -> None:
    """Newcombe's end θ solves (1 − θ)² = z²·V(θ)."""
    found = auroc_by_photo([2.0] * n, [1.0] * n)
    assert (found.value, found.high) == (1, 1)
    theta = found.low
    assert theta is not None
    assert 0 < theta < 1
    inner = 1 + (n - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    assert (1 - theta) ** 2 == pytest.approx(1.959964**2 * theta * (1 - theta) * inner / n**2, rel=1e-5)
    mirrored = auroc_by_photo([1.0] * n, [2.0] * n)
    assert mirrored.low == 0
    assert mirrored.high == pytest.approx(1 - theta)


def test_few_photos() -> None:
    assert auroc_by_photo([], []).value is None
    one = auroc_by_photo([1.0], [0.0])
    assert (one.n, one.value, one.low, one.high) == (1, 1.0, None, None)


def test_what_makes_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="no pair"):
        auroc([], [1.0])
    with pytest.raises(ValueError, match="2 and 1"):
        auroc_by_photo([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        auroc([float("nan")], [1.0])
