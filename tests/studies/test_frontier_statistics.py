import pytest

from underfire.stats import Estimate
from underfire.studies.frontier_statistics import (
    Attempt,
    Finding,
    below_zero,
    change,
    changes,
    changes_in_common,
    difference,
    difference_of_changes,
    rises,
)


def attempts(price: float, *, photos: int = 6, failed: frozenset[tuple[str, float]] = frozenset()) -> list[Attempt]:
    """A unit of confidence costs ``price`` of L1 and twice that of IoU; each photo has a level of its own."""
    return [
        Attempt(
            name, point, (name, point) not in failed, point, 0.1 + 0.01 * i + price * point, 0.9 - 2 * price * point
        )
        for i in range(photos)
        for name in [f"photo-{i}"]
        for point in (0.5, 0.7, 0.9)
    ]


def test_a_planted_price_is_found_whatever_the_photos_own_level() -> None:
    found = change(attempts(0.25), "l1")
    assert found.n == 6
    assert found.value == pytest.approx(0.25 * 0.4)
    assert found.low == pytest.approx(found.high)
    assert change(attempts(0.25), "confidence").value == pytest.approx(0.4)
    assert below_zero([change(attempts(0.25), "iou")]) is Finding.HOLDS
    assert below_zero([change(attempts(-0.25), "iou")]) is Finding.FAILS


def test_failed_attacks_are_kept_apart() -> None:
    failed = frozenset({("photo-0", 0.5), ("photo-1", 0.5), ("photo-1", 0.9), ("photo-2", 0.7)})
    found = changes(attempts(1.0, failed=failed), "l1")
    assert found.keys() == {"photo-0", "photo-2", "photo-3", "photo-4", "photo-5"}  # photo-1 has one point left
    assert found["photo-0"] == pytest.approx(0.2)
    assert found["photo-2"] == pytest.approx(0.4)


def test_a_difference_is_on_the_points_that_both_reached() -> None:
    dear, cheap = attempts(0.4), attempts(0.1, failed=frozenset({("photo-0", 0.5), ("photo-0", 0.7)}))
    found = difference(dear, cheap, "l1")
    assert found.n == 6
    assert found.value == pytest.approx((5 * 0.3 * 0.7 + 0.3 * 0.9) / 6)  # photo-0 at its one point
    assert difference(dear, [], "l1") == Estimate(None, None, None, 0)


def test_changes_are_compared_between_the_same_points() -> None:
    dear, cheap = attempts(0.4), attempts(0.1, failed=frozenset({("photo-0", 0.9)}))
    found = difference_of_changes(dear, cheap, "l1")
    assert found.n == 6
    assert found.value == pytest.approx((5 * 0.3 * 0.4 + 0.3 * 0.2) / 6)  # photo-0 up to 0.7, for both
    for confidence in changes_in_common(dear, cheap, "confidence"):
        assert confidence == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4, 0.4])


def test_a_rise_is_one_by_its_interval() -> None:
    assert rises(Estimate(1, 0.5, 2, 9))
    others = (Estimate(1, 0, 2, 9), Estimate(0, -1, 1, 9), Estimate(-1, -2, -0.5, 9), Estimate(1, None, None, 1))
    assert not any(map(rises, others))


def test_a_claim_about_all_needs_all() -> None:
    below, above, across = Estimate(-1, -2, -0.5, 9), Estimate(1, 0.5, 2, 9), Estimate(0, -1, 1, 9)
    assert below_zero([below, below]) is Finding.HOLDS
    assert below_zero([below, across]) is Finding.OPEN
    assert below_zero([below, across, above]) is Finding.FAILS
    assert below_zero([below, Estimate(-1, None, None, 1)]) is Finding.OPEN
    assert below_zero([]) is Finding.OPEN
