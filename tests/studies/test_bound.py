"""The study of the bound on an audit of toys: its numbers again, its words from planted numbers, and its refusals."""

import itertools
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.made_runs import made_run, with_rows
from support.rows import row
from support.snapshots import check_snapshot
from support.toy_photos import found, toy_classifier, toy_plan, write_photos
from underfire.auditing import condition
from underfire.auditing.condition import Condition
from underfire.auditing.run import Run, read_run
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.images import read_png
from underfire.interpreters.path import IncompleteError
from underfire.present.tables import to_arrow
from underfire.stats import Estimate, rank_correlation
from underfire.studies import bound
from underfire.studies.bound import (
    BoundCell,
    BoundRecord,
    ImageBounds,
    MeasuredMap,
    Tolerances,
    bound_study,
    by_family,
    cells_of,
    effective_count,
    judge,
    measure,
    record_of,
    words_of,
)
from underfire.studies.bound_statistics import BoundViolationError, Proposition1, TwoClass, proposition_1
from underfire.studies.source import attacked
from underfire.studies.study import Claim, Verdict

TOLERANCES = Tolerances(0.02, 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bound")
    photos = write_photos(folder / "photos", count=3)
    run_audit(toy_plan(), found(photos), toy_classifier(), folder / "run")
    return read_run(folder / "run")


def sides(prediction: float, norm: float, *, margin: float = 5.0, discrepancy: float = 50.0) -> ImageBounds:
    return ImageBounds(Proposition1(prediction, norm, 0.001, norm, 33), TwoClass(discrepancy, margin, 0.1))


ON_CAM, ON_GRAD = (Condition.on("adv2", name) for name in ("cam", "grad"))
NOISE = sides(0.0, 0.01, margin=0.2, discrepancy=30.0)


def made(name: str, both: ImageBounds, *, success: bool = True, l1: float = 0.1) -> MeasuredMap:
    return MeasuredMap(row(image_id=name, success=success, l1=l1), both, NOISE)


def test_a_run_is_measured_on_the_images_as_saved(run: Run, tmp_path: Path) -> None:
    study = bound_study(run, toy_classifier(), work=tmp_path, tolerance=0.02, logit_tolerance=0.5)
    rows = study.table.to_pylist()
    assert [(row["condition"], row["map"]) for row in rows] == [
        ("noise", "grad"), ("noise", "cam"), ("pgd", "grad"), ("pgd", "cam"),
        ("adv2-grad", "grad"), ("adv2-cam", "cam"),
    ]  # fmt: skip
    assert {row["n"] + row["failed"] for row in rows} == {3}
    assert {(row["unresolved"], row["unresolved_photos"]) for row in rows} == {(0, None)}
    assert all(row["residual"] <= 0.02 and row["least_slack"] >= -0.02 for row in rows)
    by_hand = [
        proposition_1(
            toy_classifier(), *(read_png(run.picture(photo, c)) for c in (condition.NONE, condition.NOISE)),
            label=photo.label, target=photo.target, tolerance=0.02,
        )
        for photo in run.photos
    ]  # fmt: skip
    assert rows[0]["attribution"] == pytest.approx(sum(sides.interpretation for sides in by_hand) / 3)
    assert [(claim.id, claim.n) for claim in study.claims] == [
        ("proposition-1", 3), ("conflict", rows[4]["n"]), ("noise-threshold", min(row["n"] for row in rows[2:])),
    ]  # fmt: skip
    assert study.claims[0].verdict is Verdict.HOLDS
    assert "on all 12 images of 3 photos" in study.words
    assert "Up to the tolerances every image lies above" in study.figure
    assert study.figure.startswith("<svg")


def test_what_was_measured_is_kept_and_bound_to_its_tolerances(run: Run, tmp_path: Path) -> None:
    told: list[str] = []

    def measured(tolerances: Tolerances) -> object:
        return measure(run, toy_classifier(), tolerances, limit=1, work=tmp_path, note=told.append)

    first = measured(TOLERANCES)
    assert told == ["both sides of the bounds: photo 1 of 1"]
    assert measured(TOLERANCES) == first
    assert len(told) == 1
    measured(Tolerances(0.02, 0.4))
    assert len(told) == 2


def test_a_damaged_piece_is_named(run: Run, tmp_path: Path) -> None:
    measure(run, toy_classifier(), TOLERANCES, limit=1, work=tmp_path, note=lambda _: None)
    (path,) = tmp_path.rglob("*.json")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path))):
        measure(run, toy_classifier(), TOLERANCES, limit=1, work=tmp_path, note=lambda _: None)


def test_a_violation_stops_the_study(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_options: object) -> Proposition1:
        raise BoundViolationError("planted")

    monkeypatch.setattr(bound, "proposition_1", broken)
    with pytest.raises(BoundViolationError, match="planted"):
        bound_study(run, toy_classifier(), work=tmp_path, limit=1)
    assert not list(tmp_path.rglob("*.json"))


def unsettled(monkeypatch: pytest.MonkeyPatch, name: str, calls: Collection[int] | None = None) -> None:
    """Within the study ``name`` does not come within its tolerance: always, or at ``calls``, counted from 0."""
    honest, count = getattr(bound, name), itertools.count()

    def hard(*args: Any, **options: Any) -> object:
        if calls is None or next(count) in calls:
            raise IncompleteError("planted")
        return honest(*args, **options)

    monkeypatch.setattr(bound, name, hard)


def test_an_image_that_is_unresolved_is_named_and_ends_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photo by photo: noise, PGD, ADV² on GRAD, ADV² on CAM. PGD of the first, noise of the second are hard."""
    unsettled(monkeypatch, "proposition_1", {1, 4})
    study = bound_study(run, toy_classifier(), work=tmp_path)
    names = [photo.image_id for photo in attacked(run.photos)]
    rows = {(row["condition"], row["map"]): row for row in study.table.to_pylist()}
    assert {key[0]: row["unresolved_photos"] for key, row in rows.items()} == {
        "noise": names[1], "pgd": f"{names[0]}, {names[1]}", "adv2-grad": names[1], "adv2-cam": names[1],
    }  # fmt: skip
    assert {row["n"] + row["failed"] + row["unresolved"] for row in rows.values()} == {3}
    assert study.claims[0].n == 2
    assert "on all 7 images of 2 photos" in study.words
    assert "5 images left out as unresolved" in study.words
    assert bound_study(run, toy_classifier(), work=tmp_path).words == study.words  # it is kept, as all else is


def test_a_photo_whose_benign_image_is_unresolved_is_left_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsettled(monkeypatch, "logit_attributions", {0})
    study = bound_study(run, toy_classifier(), work=tmp_path)
    first = attacked(run.photos)[0].image_id
    assert {row["unresolved_photos"] for row in study.table.to_pylist()} == {first}
    assert "on all 8 images of 2 photos" in study.words


def test_a_condition_of_which_nothing_is_resolved_has_an_empty_row(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsettled(monkeypatch, "proposition_1", {2, 6, 10})
    study = bound_study(run, toy_classifier(), work=tmp_path)
    (row,) = (row for row in study.table.to_pylist() if row["condition"] == "adv2-grad")
    assert (row["n"], row["failed"], row["unresolved"], row["least_slack"], row["rho"]) == (0, 0, 3, None, None)


def test_a_run_of_which_nothing_is_resolved_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsettled(monkeypatch, "proposition_1")
    with pytest.raises(InputError, match=r"no image of the run .* give larger ones, .* the model's gradients"):
        bound_study(run, toy_classifier(), work=tmp_path)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_at_least_one(run: Run, tmp_path: Path, limit: int) -> None:
    with pytest.raises(InputError, match=f"limit is {limit}"):
        bound_study(run, toy_classifier(), work=tmp_path, limit=limit)


def test_a_run_without_an_attack_on_an_interpreter_is_refused(tmp_path: Path) -> None:
    whole = made_run()
    run = with_rows(whole, (row for row in whole.records if not row.condition.is_joint))
    with pytest.raises(InputError, match="no attack on an interpreter"):
        bound_study(run, toy_classifier(), work=tmp_path)


def test_counts_and_means_by_hand() -> None:
    images = [
        made("a", sides(0.95, 1.5), l1=0.04),
        made("b", sides(0.6, 3.0), l1=0.15),
        made("c", sides(0.92, 0.99), l1=0.01, success=False),
    ]
    line = record_of(BoundCell(ON_GRAD, "grad", tuple(images)))
    assert (line.n, line.failed) == (2, 1)
    assert line.attribution.value == pytest.approx(2.25)
    assert line.slack.value == pytest.approx((0.55 + 2.4) / 2)
    assert line.least_slack == pytest.approx(0.07)
    assert line.times == 10
    assert (line.above_noise.k, line.caught.k) == (2, 2)
    assert [line.effective[effective_count(0.5, "attr", most)] for most in (1, 2, 4, 8)] == [0, 1, 2, 2]
    assert [line.effective[effective_count(0.9, "attr", most)] for most in (1, 2, 4, 8)] == [0, 1, 1, 1]
    assert [line.effective[effective_count(0.5, "l1", most)] for most in (0.05, 0.1, 0.2)] == [1, 1, 2]
    (row,) = to_arrow([line], BoundRecord).to_pylist()
    assert row["prd>=0.9 attr<=2"] == 1
    assert row["prd>=0.5 l1<=0.2"] == 2


def test_an_attack_is_counted_where_it_was_aimed() -> None:
    run = made_run(photos=1)
    measured = {"photo-0": dict.fromkeys((condition.NOISE, condition.PGD, ON_CAM, ON_GRAD), NOISE)}
    assert {(str(cell.condition), cell.map) for cell in cells_of(run.records, measured)} == {
        ("noise", "cam"), ("noise", "grad"), ("pgd", "cam"), ("pgd", "grad"),
        ("adv2-cam", "cam"), ("adv2-grad", "grad"),
    }  # fmt: skip


def judged(*cells: BoundCell) -> tuple[list[BoundRecord], tuple[Claim, Claim, Claim]]:
    records = [record_of(cell) for cell in cells]
    return records, judge(cells, records)


def test_claims_follow_a_planted_relation() -> None:
    """‖Δm‖₁ and L1 rise together under the attack on GRAD, and D is below that of noise."""
    count = 12
    cells = [
        BoundCell(condition.NOISE, "cam", tuple(made(f"{i}", NOISE, success=False) for i in range(count))),
        BoundCell(condition.PGD, "cam", tuple(made(f"{i}", sides(1.0, 3 + i)) for i in range(count))),
        BoundCell(
            ON_GRAD,
            "grad",
            tuple(made(f"{i}", sides(0.95, 2 + i, discrepancy=20.0), l1=0.01 * i) for i in range(count)),
        ),
        BoundCell(
            ON_CAM, "cam", tuple(made(f"{i}", sides(0.95, 2 + i), l1=0.01 * ((7 * i) % count)) for i in range(count))
        ),
    ]
    records, claims = judged(*cells)
    back, others = by_family(records)
    assert [record.map for record in back] == ["grad"]
    assert [record.map for record in others] == ["cam"]
    assert [claim.verdict for claim in claims] == [Verdict.HOLDS, Verdict.HOLDS, Verdict.FAILS]
    assert claims[1].estimates == {"adv2-grad/grad": rank_correlation(range(count), range(count))}
    assert {name: figure.value for name, figure in claims[2].estimates.items()} == {
        "pgd": 1.0, "adv2-grad": 0.0, "adv2-cam": 1.0,
    }  # fmt: skip
    alike = frozenset(cell.condition for cell in cells)
    check_snapshot(__file__, "bound", words_of(cells, records, claims, TOLERANCES, left_out=0, alike=alike))


def test_attacks_on_one_interpreter_are_told_apart_and_only_like_is_compared_with_pgd() -> None:
    """StAdv moves pixels: it has a correlation of its own and no difference to PGD."""
    some = tuple(made(f"{i}", sides(0.95, 2 + i), l1=0.01 * i) for i in range(8))
    stadv, joint = Condition.on("stadv", "grad"), Condition.on("adv2", "cam", "grad")
    cells = [BoundCell(c, "grad", some) for c in (condition.PGD, ON_GRAD, stadv, joint)]
    records, claims = judged(*cells)
    assert set(claims[1].estimates) == {"adv2-grad/grad", "stadv-grad/grad", "adv2-cam+grad/grad"}
    words = words_of(cells, records, claims, TOLERANCES, left_out=0, alike=frozenset({condition.PGD, ON_GRAD, joint}))
    check_snapshot(__file__, "bound-only-like-is-compared", words.split("\n\n")[2])


def test_many_unresolved_photos_are_counted_and_the_first_named() -> None:
    names = tuple(f"hard-{i}" for i in range(7))
    cells = [BoundCell(condition.PGD, name, (made("good", sides(0.95, 2.0)),), names) for name in ("cam", "grad")]
    records, claims = judged(*cells)
    assert (records[0].unresolved, records[0].unresolved_photos) == (7, ", ".join(names))
    assert (claims[1].verdict, claims[1].n) == (Verdict.UNDECIDED, 0)
    words = words_of(cells, records, claims, TOLERANCES, left_out=3, alike=frozenset())
    check_snapshot(__file__, "bound-unresolved", words)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([(0.1, 0.5), (0.2, 0.9)], Verdict.HOLDS),
        ([(0.1, 0.5), (-0.2, 0.9)], Verdict.UNDECIDED),
        ([(0.1, 0.5), (-0.9, -0.2)], Verdict.FAILS),
        ([], Verdict.UNDECIDED),
        ([(None, None)], Verdict.UNDECIDED),
    ],
)
def test_the_verdict_on_a_relation(ends: list[tuple[float | None, float | None]], verdict: Verdict) -> None:
    record = record_of(BoundCell(ON_GRAD, "grad", (made("a", sides(0.95, 2.0)),)))
    records = [replace(record, rho=Estimate(0.3, low, high, 9)) for low, high in ends]
    assert judge((), records)[1].verdict is verdict
