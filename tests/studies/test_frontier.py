"""The frontier on the toy: what is run, that it resumes, and what is said of a planted one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.made_runs import run_of
from support.rows import row
from support.snapshots import check_snapshot
from support.stopping import Stop, stopping_after
from support.toy_photos import found, rows_of, toy_classifier, toy_plan
from underfire.auditing.names import make_perturbation
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row, read_rows
from underfire.auditing.run import Run
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.stats import Estimate, bootstrap_mean, bootstrap_paired
from underfire.studies import frontier
from underfire.studies.frontier import Along, Reached, changes, difference, frontier_study, in_common, reached_in
from underfire.studies.reruns import Rerun
from underfire.studies.source import decide
from underfire.studies.study import Claim, Study, Verdict, above, below

PLAN = replace(toy_plan(), steps=8)


def decided(photos: Path, plan: AuditPlan = PLAN) -> tuple[PlannedPhoto, ...]:
    return decide(plan, found(photos), toy_classifier()).photos


def study(photos: Path, work: Path, along: Along, grid: Sequence[float], plan: AuditPlan = PLAN, **more: Any) -> Study:
    return frontier_study(plan, decided(photos, plan), toy_classifier(), work=work, along=along, grid=grid, **more)


def claim(made: Study, name: str) -> Claim:
    (found,) = [one for one in made.claims if one.id == name]
    return found


def lines(made: Study, kind: str) -> list[dict[str, Any]]:
    return [line for line in made.table.to_pylist() if line["kind"] == kind]


@pytest.fixture(scope="module")
def weighed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    work = tmp_path_factory.mktemp("weighed")
    return work, study(photos, work, "weight", (0.5, 0.9))


def test_the_point_of_adv2s_own_confidence_is_the_audits_adv2(
    photos: Path, weighed: tuple[Path, Study], tmp_path: Path
) -> None:
    run_audit(PLAN, found(photos), toy_classifier(), tmp_path / "run")
    for name in ("grad", "cam"):
        audited = [r for r in rows_of(tmp_path / "run") if (r.source, r.interpreter) == (name, name)]
        assert len(audited) == 4
        assert rows_of(weighed[0] / "weight-0.9" / name) == audited
        assert rows_of(weighed[0] / "weight-0.5" / name) != audited


def test_more_confidence_demanded_is_more_confidence_kept(photos: Path, tmp_path: Path) -> None:
    made = study(photos, tmp_path, "weight", (0.3, 0.99), replace(PLAN, steps=40))
    low, high = (
        {line["interpreter"]: line["confidence"] for line in lines(made, "point") if line["point"] == point}
        for point in (0.3, 0.99)
    )
    assert all(low[name] < high[name] for name in ("grad", "cam"))


def test_every_figure_has_its_n_and_says_what_was_left_out(weighed: tuple[Path, Study]) -> None:
    _, made = weighed
    for line in lines(made, "point"):
        assert (line["n"], line["failed"]) == (round(4 * line["reached"]), 4 - round(4 * line["reached"]))
        assert line["pairs"] <= line["n"]
        assert (line["l1"] is None) == (line["n"] == 0)
        assert line["confidence_all"] > 0
    assert ET.fromstring(made.figure).tag.endswith("svg")  # noqa: S314 - our own output


def test_the_words_of_the_toy(weighed: tuple[Path, Study]) -> None:
    check_snapshot(__file__, "frontier-weight", weighed[1].words)


def test_along_eps_and_passes_every_point_is_an_audit_of_its_own(photos: Path, tmp_path: Path) -> None:
    alone = replace(PLAN, interpreters=("cam",))
    study(photos, tmp_path, "eps", (2 / 255, 16 / 255), alone)
    rows = [read_rows(tmp_path / name) for name in ("eps-0.00784314", "eps-0.0627451")]
    assert [{row.allowed.eps for row in here} for here in rows] == [{2 / 255}, {16 / 255}]
    made = study(photos, tmp_path, "passes", (20, 40), replace(alone, steps=None))
    passes = {row.spent.passes for row in read_rows(tmp_path / "passes-20") if row.attack == "adv2"}
    assert max(passes) <= 20
    assert {line["along"] for line in made.table.to_pylist()} == {"passes"}


@pytest.mark.parametrize(("along", "grid"), [("weight", (0.5, 0.9)), ("eps", (4 / 255, 8 / 255))])
def test_an_interrupted_study_in_other_batches_goes_on_to_the_same_numbers(
    photos: Path, tmp_path: Path, weighed: tuple[Path, Study], along: Along, grid: tuple[float, ...]
) -> None:
    whole = weighed[1] if along == "weight" else study(photos, tmp_path / "whole", along, grid)
    plan = replace(PLAN, batch_size=1)
    for lines in (3, 5):
        with pytest.raises(Stop):
            study(photos, tmp_path / "parts", along, grid, plan, note=stopping_after(lines))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("part-*.parquet")}
    assert len(kept) == 8
    assert study(photos, tmp_path / "parts", along, grid, plan) == whole
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_the_default_grid_surrounds_the_default_budget(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    def audit_of(plan: AuditPlan, *_: Any, **__: Any) -> Run:
        asked.append(plan.eps)
        return run_of(plan)

    monkeypatch.setattr(frontier, "audit_of", audit_of)
    for perturbation in ("linf", "l2", "flow"):
        plan = replace(PLAN, perturbation=perturbation)
        frontier_study(plan, decided(photos), toy_classifier(), work=Path())
        default = make_perturbation(perturbation, None).eps
        assert asked[-5:] == [default * share for share in (1 / 8, 1 / 4, 1 / 2, 1, 2)]
    assert asked[:5] == [k / 255 for k in (1, 2, 4, 8, 16)]


@pytest.mark.parametrize(
    ("plan", "values"),
    [
        (replace(PLAN, steps=None), [38, 75, 150, 300, 600]),
        (replace(PLAN, steps=None, preset="standard"), [75, 150, 300, 600, 1200]),
        (replace(PLAN, steps=None, passes=40), [10, 20, 40, 80, 160]),
        (replace(PLAN, steps=None, passes=1), [1, 2, 4]),
        (PLAN, [38, 75, 150, 300, 600]),
    ],
)
def test_the_default_grid_of_passes_surrounds_the_plan_s(
    photos: Path, monkeypatch: pytest.MonkeyPatch, plan: AuditPlan, values: list[int]
) -> None:
    asked: list[int | None] = []

    def audit_of(plan: AuditPlan, *_: Any, **__: Any) -> Run:
        asked.append(plan.passes)
        return run_of(plan)

    monkeypatch.setattr(frontier, "audit_of", audit_of)
    frontier_study(plan, decided(photos), toy_classifier(), work=Path(), along="passes")
    assert asked == values


def test_demands_that_differ_little_have_folders_of_their_own(photos: Path, tmp_path: Path) -> None:
    study(photos, tmp_path, "weight", (0.9999991, 0.9999992), replace(PLAN, steps=1, interpreters=("cam",)))
    assert {"weight-0.9999991", "weight-0.9999992"} <= {path.name for path in tmp_path.iterdir()}


def planted(prices: dict[str, float], some: Row) -> Callable[..., Run]:
    """Audits in which the label is always reached, and IoU is ``prices`` below its best."""

    def audit_of(plan: AuditPlan, photos: Sequence[PlannedPhoto], *_: Any, **__: Any) -> Run:
        rows = [
            row(
                some, image_id=f"photo-{i}", attack=attack, source=source, interpreter=name, success_8bit=True,
                confidence_8bit=0.8, l1_8bit=0.1 + price * (plan.eps or 0),
                iou_50_8bit=min(1.0, 0.9 - price + 0.001 * i),
            )
            for i in range(8)
            for name, price in prices.items()
            for attack, source in (("pgd", "-"), ("adv2", name))
        ]  # fmt: skip
        return run_of(plan, photos, rows)

    return audit_of


@pytest.fixture
def some_row(weighed: tuple[Path, Study]) -> Row:
    return next(found for found in read_rows(weighed[0] / "weight-0.9" / "cam") if found.attack == "adv2")


@pytest.mark.filterwarnings("ignore:eps .* grey levels")
@pytest.mark.parametrize(
    ("prices", "order", "explanation"),
    [
        ({"grad": 0.5, "ig": 0.4, "cam": 0.0}, Verdict.HOLDS, Verdict.HOLDS),
        ({"grad": 0.3, "ig": 0.4, "cam": 0.5}, Verdict.FAILS, Verdict.FAILS),
        ({"grad": 0.4, "ig": 0.4, "cam": 0.0}, Verdict.UNDECIDED, Verdict.HOLDS),
        ({"grad": 0.5, "ig": 0.3, "cam": 0.4}, Verdict.HOLDS, Verdict.FAILS),
    ],
)
def test_a_planted_frontier_is_told_as_it_was_planted(
    photos: Path,
    some_row: Row,
    monkeypatch: pytest.MonkeyPatch,
    prices: dict[str, float],
    order: Verdict,
    explanation: Verdict,
) -> None:
    monkeypatch.setattr(frontier, "audit_of", planted(prices, some_row))
    made = study(photos, Path(), "eps", (0.05, 0.1), replace(PLAN, interpreters=tuple(prices)))
    assert claim(made, "lowest").verdict is order
    assert claim(made, "behind").verdict is explanation
    assert {name: claim(made, f"cost/{name}").verdict for name in prices} == {
        name: Verdict.HOLDS if price else Verdict.UNDECIDED for name, price in prices.items()
    }
    if order is explanation is Verdict.HOLDS:
        check_snapshot(__file__, "frontier-eps", made.words)
    (cost,) = [line for line in lines(made, "change") if line["interpreter"] == "grad"]
    assert cost["l1"] == pytest.approx(0.05 * prices["grad"])
    assert cost["n"] == 8


@pytest.mark.parametrize(
    ("prices", "conflict", "price", "steeper"),
    [
        ({"grad": 0.5, "cam": 0.1}, Verdict.HOLDS, Verdict.HOLDS, Verdict.HOLDS),
        ({"grad": 0.1, "cam": 0.5}, Verdict.FAILS, Verdict.HOLDS, Verdict.FAILS),
        ({"grad": -0.1, "cam": 0.1}, Verdict.FAILS, Verdict.FAILS, Verdict.FAILS),
        ({"grad": 0.0, "cam": -0.1}, Verdict.UNDECIDED, Verdict.UNDECIDED, Verdict.HOLDS),
    ],
)
def test_a_planted_price_of_confidence_is_found(
    photos: Path,
    some_row: Row,
    monkeypatch: pytest.MonkeyPatch,
    prices: dict[str, float],
    conflict: Verdict,
    price: Verdict,
    steeper: Verdict,
) -> None:
    made = priced(photos, some_row, monkeypatch, prices, {})
    verdicts = [claim(made, name).verdict for name in ("conflict", "conflict/price", "conflict/steeper")]
    assert verdicts == [conflict, price, steeper]
    loss = claim(made, "conflict/steeper").estimates["GRAD less CAM"]
    assert loss.value == pytest.approx(-0.4 * (prices["grad"] - prices["cam"]))
    (pair,) = lines(made, "difference of changes")
    assert (pair["rise"], pair["rise_against"]) == (pytest.approx(0.4), pytest.approx(0.4))


@pytest.mark.parametrize(("settled", "price"), [("cam", Verdict.HOLDS), ("grad", Verdict.UNDECIDED)])
def test_what_is_paid_for_no_confidence_is_no_price(
    photos: Path, some_row: Row, monkeypatch: pytest.MonkeyPatch, settled: str, price: Verdict
) -> None:
    made = priced(photos, some_row, monkeypatch, {"grad": 0.5, "cam": 0.1}, {settled: 0.99})
    assert claim(made, "conflict").verdict is Verdict.UNDECIDED
    assert claim(made, "conflict/price").verdict is price
    assert claim(made, "conflict/steeper").verdict is Verdict.UNDECIDED
    assert claim(made, f"cost/{settled}").verdict is Verdict.UNDECIDED
    check_snapshot(__file__, f"frontier-settled-{settled}", made.words)


def priced(
    photos: Path, some_row: Row, monkeypatch: pytest.MonkeyPatch, prices: dict[str, float], settled: dict[str, float]
) -> Study:
    """Each unit of demand costs ``prices`` of IoU; it is the confidence, or that is ``settled`` at all demands."""

    def rerun_rows(_: Run, rerun: Rerun, **__: Any) -> list[Row]:
        name, demanded = rerun.interpreter.name, float(rerun.folder.parent.name.removeprefix("weight-"))
        return [
            row(
                some_row, image_id=f"photo-{i}", source=name, interpreter=name, success_8bit=True,
                confidence_8bit=settled.get(name, demanded), iou_50_8bit=0.7 - prices[name] * demanded,
            )
            for i in range(8)
        ]  # fmt: skip

    monkeypatch.setattr(frontier, "audit_of", planted(prices, some_row))
    monkeypatch.setattr(frontier, "rerun_rows", rerun_rows)
    return study(photos, Path(), "weight", (0.5, 0.9), replace(PLAN, interpreters=tuple(prices)))


@pytest.mark.filterwarnings("ignore:eps .* grey levels")
def test_what_cannot_be_tested_is_no_claim(photos: Path, some_row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "audit_of", planted({"cam": 0.1}, some_row))
    made = study(photos, Path(), "eps", (0.05, 0.1), replace(PLAN, interpreters=("cam",)))
    assert [one.id for one in made.claims] == ["cost/cam"]
    check_snapshot(__file__, "frontier-alone", made.words)


@pytest.mark.parametrize(
    ("along", "grid", "complaint"),
    [
        ("eps", (0.1,), "'0.1' is no frontier"),
        ("eps", (0.2, 0.1), "each larger than the one before"),
        ("eps", (0.0, 0.1), "not above 0"),
        ("eps", (0.1, float("inf")), "not above 0"),
        ("passes", (20, 30.5), "no whole number"),
        ("weight", (0.5, 1.0), "below 1"),
        ("steps", (1, 2), "along 'steps' is unknown; there are: eps, passes, weight"),
    ],
)
def test_a_grid_that_is_none_is_refused(
    photos: Path, tmp_path: Path, along: Any, grid: tuple[float, ...], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        study(photos, tmp_path / "work", along, grid)
    assert not (tmp_path / "work").exists()


def test_what_cannot_be_run_is_refused_before_anything_is(photos: Path, tmp_path: Path) -> None:
    authors = replace(PLAN, preset="authors")
    with pytest.raises(InputError, match="preset 'authors' demands no confidence"):
        study(photos, tmp_path / "work", "weight", (0.5, 0.9), authors)
    misclassified = [photo for photo in decided(photos) if photo.excluded]
    with pytest.raises(InputError, match="none of the 1 photos"):
        frontier_study(PLAN, misclassified, toy_classifier(), work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_work_of_other_settings_or_photos_is_refused(photos: Path, tmp_path: Path, weighed: tuple[Path, Study]) -> None:
    with pytest.raises(InputError, match="is a run with seed '0'"):
        study(photos, weighed[0], "weight", (0.5, 0.9), replace(PLAN, seed=1))
    with pytest.raises(InputError, match="give the same"):
        frontier_study(PLAN, decided(photos)[:2], toy_classifier(), work=weighed[0], along="weight", grid=(0.5, 0.9))


def results(price: float, *, failed: frozenset[tuple[str, float]] = frozenset()) -> Reached:
    """A unit of confidence costs ``price`` of L1 and twice that of IoU; each of six photos has a level of its own."""
    return reached_in(
        {
            point: [
                row(
                    image_id=name, success=(name, point) not in failed, confidence=point,
                    l1=max(0.0, 0.05 + 0.01 * i + price * point), iou=max(0.0, 0.5 - 2 * price * point),
                )
                for i, name in enumerate(f"photo-{i}" for i in range(6))
            ]
            for point in (0.5, 0.7, 0.9)
        }
    )  # fmt: skip


def test_a_planted_price_is_found_whatever_the_photos_own_level() -> None:
    found = bootstrap_mean(changes(results(0.25), "l1"))
    assert found.n == 6
    assert found.value == pytest.approx(0.25 * 0.4)
    assert found.low == pytest.approx(found.high)
    assert changes(results(0.25), "confidence") == pytest.approx([0.4] * 6)
    assert below(bootstrap_mean(changes(results(0.25), "iou_50"))) is Verdict.HOLDS
    assert above(bootstrap_mean(changes(results(-0.25), "iou_50"))) is Verdict.HOLDS


def test_failed_attacks_are_kept_apart() -> None:
    failed = frozenset({("photo-0", 0.5), ("photo-1", 0.5), ("photo-1", 0.9), ("photo-2", 0.7)})
    reached = results(1.0, failed=failed)
    found = dict(zip((name for name in reached if name != "photo-1"), changes(reached, "l1"), strict=True))
    assert found.keys() == {"photo-0", "photo-2", "photo-3", "photo-4", "photo-5"}  # photo-1 has one point left
    assert found["photo-0"] == pytest.approx(0.2)
    assert found["photo-2"] == pytest.approx(0.4)


def test_a_difference_is_on_the_points_that_both_reached() -> None:
    costly, cheap = results(0.4), results(0.1, failed=frozenset({("photo-0", 0.5), ("photo-0", 0.7)}))
    found = difference(costly, cheap, "l1")
    assert found.n == 6
    assert found.value == pytest.approx((5 * 0.3 * 0.7 + 0.3 * 0.9) / 6)  # photo-0 at its one point
    assert difference(costly, {}, "l1") == Estimate(None, None, None, 0)


def test_changes_are_compared_between_the_same_points() -> None:
    sides = in_common(results(0.4), results(0.1, failed=frozenset({("photo-0", 0.9)})))
    ours, theirs = (changes(side, "l1") for side in sides)
    found = bootstrap_paired(ours, theirs)
    assert found.n == 6
    assert found.value == pytest.approx((5 * 0.3 * 0.4 + 0.3 * 0.2) / 6)  # photo-0 up to 0.7, for both
    for side in sides:
        assert changes(side, "confidence") == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4, 0.4])
