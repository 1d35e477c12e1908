"""The statistics of a frontier, on results whose price is planted."""

import pytest

from underfire.stats import Estimate
from underfire.studies.frontier_points import (
    PointResult,
    change,
    changes,
    changes_in_common,
    difference,
    difference_of_changes,
)
from underfire.studies.study import Verdict, above, below


def results(price: float, *, photos: int = 6, failed: frozenset[tuple[str, float]] = frozenset()) -> list[PointResult]:
    """A unit of confidence costs ``price`` of L1 and twice that of IoU; each photo has a level of its own."""
    return [
        PointResult(
            name, point, (name, point) not in failed, point, 0.1 + 0.01 * i + price * point, 0.9 - 2 * price * point
        )
        for i in range(photos)
        for name in [f"photo-{i}"]
        for point in (0.5, 0.7, 0.9)
    ]


def test_a_planted_price_is_found_whatever_the_photos_own_level() -> None:
    found = change(results(0.25), "l1")
    assert found.n == 6
    assert found.value == pytest.approx(0.25 * 0.4)
    assert found.low == pytest.approx(found.high)
    assert change(results(0.25), "confidence").value == pytest.approx(0.4)
    assert below(change(results(0.25), "iou")) is Verdict.HOLDS
    assert above(change(results(-0.25), "iou")) is Verdict.HOLDS


def test_failed_attacks_are_kept_apart() -> None:
    failed = frozenset({("photo-0", 0.5), ("photo-1", 0.5), ("photo-1", 0.9), ("photo-2", 0.7)})
    found = changes(results(1.0, failed=failed), "l1")
    assert found.keys() == {"photo-0", "photo-2", "photo-3", "photo-4", "photo-5"}  # photo-1 has one point left
    assert found["photo-0"] == pytest.approx(0.2)
    assert found["photo-2"] == pytest.approx(0.4)


def test_a_difference_is_on_the_points_that_both_reached() -> None:
    costly, cheap = results(0.4), results(0.1, failed=frozenset({("photo-0", 0.5), ("photo-0", 0.7)}))
    found = difference(costly, cheap, "l1")
    assert found.n == 6
    assert found.value == pytest.approx((5 * 0.3 * 0.7 + 0.3 * 0.9) / 6)  # photo-0 at its one point
    assert difference(costly, [], "l1") == Estimate(None, None, None, 0)


def test_changes_are_compared_between_the_same_points() -> None:
    costly, cheap = results(0.4), results(0.1, failed=frozenset({("photo-0", 0.9)}))
    found = difference_of_changes(costly, cheap, "l1")
    assert found.n == 6
    assert found.value == pytest.approx((5 * 0.3 * 0.4 + 0.3 * 0.2) / 6)  # photo-0 up to 0.7, for both
    for confidence in changes_in_common(costly, cheap, "confidence"):
        assert confidence == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4, 0.4])
