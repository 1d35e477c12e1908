"""The table of budgets: what is worse, and that the beginnings of one run are what shorter runs end at."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import more_passes
from benchmarks.more_passes import KEPT, MOVED, Cell, Point, costs, measure, run, table, worsening
from benchmarks.quality.measure import Batch
from support.toys import images
from underfire import CAM, IG, Classifier, Interpreter

GOOD = Point(budget=100, passes=99, met=True, loss=0.05, value=0.1)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (GOOD, replace(GOOD, value=0.13, loss=0.01), 0.03),
        (GOOD, replace(GOOD, value=0.08, loss=0.1), -0.02),
        (GOOD, replace(GOOD, value=0.01, met=False), float("inf")),
        (replace(GOOD, met=False), replace(GOOD, value=0.9), float("-inf")),
        (replace(GOOD, met=False, value=0.1), replace(GOOD, met=False, loss=0.15, value=0.0), 0.1),
    ],
)
def test_what_is_worse(before: Point, after: Point, change: float) -> None:
    assert worsening(before, after) == pytest.approx(change)


def _cell(photo: str, *values: float) -> Cell:
    points = (
        replace(GOOD, budget=budget, value=value) for budget, value in zip((100, 300, 1000), values, strict=False)
    )
    return Cell(KEPT, "cam", photo, tuple(points), seconds=4.0)


def test_photos_are_compared_between_neighbouring_budgets() -> None:
    found = [_cell("a", 0.2, 0.1), _cell("b", 0.3, 0.3 + 1e-3, 0.2)]
    first, second = table(found).rows
    assert [row[:5] for row in (first, second)] == [
        (KEPT, "cam", "100 → 300", "2", "2"),
        (KEPT, "cam", "300 → 1000", "1", "1"),
    ]
    assert (first[5:7], second[5:7]) == (("1", "0"), ("0", "0"))
    assert [float(first[k]) for k in (7, 8, 9)] == pytest.approx([0.001, 0.25, 0.2005], abs=1e-4)
    assert [row[2:] for row in costs(found).rows] == [("300", "1", "4"), ("1000", "1", "4")]


def _batch(classifier: Classifier) -> Batch:
    x = (images(2, 32) * 255).round() / 255
    label = classifier(x).argmax(dim=1)
    return Batch(("a", "b"), x, label, (label + 1) % classifier.num_classes)


@pytest.mark.parametrize("goal", [KEPT, MOVED])
@pytest.mark.parametrize("make", [CAM, IG])
def test_the_beginnings_of_a_run_are_shorter_runs(
    make: type[Interpreter], goal: str, relu_classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underfire.attacks.budget.STAGES", (20, 30, 60, 80))
    g = IG(relu_classifier, points=4, strata=3) if make is IG else make(relu_classifier)
    budgets = (15, 25, 60, 80)  # the first is shorter than a stage
    together, apart = (measure(goal, g, _batch(relu_classifier), budgets, apart=alone) for alone in (False, True))
    for one, other in zip(together, apart, strict=True):
        assert one.points == other.points
        assert all(
            worsening(before, after) <= 1e-6 for before, after in zip(one.points[1:], one.points[2:], strict=False)
        )


def test_a_run_goes_on_where_it_was_stopped_and_gives_few_photos_the_longest_budget(
    relu_classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(more_passes, "BUDGETS", (5, 10))
    monkeypatch.setattr(more_passes, "LONGEST", 15)
    whole = _batch(relu_classifier)
    parts = [
        Batch((name,), *(values[i : i + 1] for values in (whole.x, whole.label, whole.target)))
        for i, name in enumerate(whole.names)
    ]
    found = list(run(relu_classifier, {KEPT: ["cam"]}, parts, tmp_path, few=1))
    assert [(one.photo, [point.budget for point in one.points]) for one in found] == [
        ("a", [5, 10, 15]),
        ("b", [5, 10]),
    ]
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["a.json", "b.json"]
    monkeypatch.delattr(more_passes, "ADV2")
    assert list(run(relu_classifier, {KEPT: ["cam"]}, parts, tmp_path, few=1)) == found
    with pytest.raises(NameError):
        list(run(relu_classifier, {KEPT: ["cam"]}, parts, tmp_path, few=2))
