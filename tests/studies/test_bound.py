"""The study of the bound on an audit of toys: its numbers again, its words from planted numbers, and its refusals."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from audit.toy_photos import found, toy_classifier, toy_plan, write_photos
from studies.made_runs import made_run
from underfire.analysis.bound import BoundViolationError, Proposition1, TwoClass, proposition_1
from underfire.analysis.frontier import Finding
from underfire.audit.runner import run_audit
from underfire.errors import InputError
from underfire.images import read_png
from underfire.metrics import Mean
from underfire.studies import bound_sides
from underfire.studies.bound import bound_study
from underfire.studies.bound_cells import Image, attribution_count, distance_count, images_of, line_of, table
from underfire.studies.bound_sides import Sides, Tolerances, sides_of
from underfire.studies.bound_words import bound_words, correlations, related
from underfire.studies.source import Run, read_run

TOLERANCES = Tolerances(0.02, 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bound")
    photos = write_photos(folder / "photos", count=3)
    run_audit(toy_plan(), found(photos), toy_classifier(), folder / "run")
    return read_run(folder / "run")


def sides(prediction: float, norm: float, *, margin: float = 5.0, discrepancy: float = 50.0) -> Sides:
    return Sides(Proposition1(prediction, norm, 0.001, norm, 33), TwoClass(discrepancy, margin, 0.1))


NOISE = sides(0.0, 0.01, margin=0.2, discrepancy=30.0)


def made(name: str, both: Sides, *, success: bool = True, l1: float = 0.1) -> Image:
    return Image(name, success, l1, both, NOISE)


def test_a_run_is_measured_on_the_images_as_saved(run: Run, tmp_path: Path) -> None:
    study = bound_study(run, toy_classifier(), work=tmp_path, tolerance=0.02, logit_tolerance=0.5)
    rows = study.table.to_pylist()
    assert [(row["condition"], row["map"]) for row in rows] == [
        ("noise", "grad"), ("noise", "cam"), ("pgd", "grad"), ("pgd", "cam"),
        ("adv2-grad", "grad"), ("adv2-cam", "cam"),
    ]  # fmt: skip
    assert {row["n"] + row["failed"] for row in rows} == {3}
    assert all(row["residual"] <= 0.02 and row["least_slack"] >= -0.02 for row in rows)
    by_hand = [
        proposition_1(
            toy_classifier(), read_png(run.picture(photo, "benign")), read_png(run.picture(photo, "noise")),
            label=photo.label, target=photo.target, tolerance=0.02,
        )
        for photo in run.photos
    ]  # fmt: skip
    assert rows[0]["attribution"] == pytest.approx(sum(sides.interpretation for sides in by_hand) / 3)
    assert study.words.startswith("Proposition 1 holds, as it must: on all 12 images of 3 photos")
    assert study.figure.startswith("<svg")


def test_what_was_measured_is_kept_and_bound_to_its_tolerances(run: Run, tmp_path: Path) -> None:
    told: list[str] = []

    def measure(tolerances: Tolerances) -> object:
        return sides_of(run, toy_classifier(), tolerances, limit=1, work=tmp_path, note=told.append)

    first = measure(TOLERANCES)
    assert told == ["both sides of the bounds: photo 1 of 1"]
    assert measure(TOLERANCES) == first
    assert len(told) == 1
    measure(Tolerances(0.02, 0.4))
    assert len(told) == 2


def test_a_damaged_piece_is_named(run: Run, tmp_path: Path) -> None:
    sides_of(run, toy_classifier(), TOLERANCES, limit=1, work=tmp_path, note=lambda _: None)
    (path,) = tmp_path.rglob("*.json")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path))):
        sides_of(run, toy_classifier(), TOLERANCES, limit=1, work=tmp_path, note=lambda _: None)


def test_a_violation_stops_the_study(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_options: object) -> Proposition1:
        raise BoundViolationError("planted")

    monkeypatch.setattr(bound_sides, "proposition_1", broken)
    with pytest.raises(BoundViolationError, match="planted"):
        bound_study(run, toy_classifier(), work=tmp_path, limit=1)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_at_least_one(run: Run, tmp_path: Path, limit: int) -> None:
    with pytest.raises(InputError, match=f"limit is {limit}"):
        bound_study(run, toy_classifier(), work=tmp_path, limit=limit)


def test_a_run_without_an_attack_on_an_interpreter_is_refused(tmp_path: Path) -> None:
    whole = made_run()
    run = replace(whole, rows=tuple(row for row in whole.rows if row.source == "-"))
    with pytest.raises(InputError, match="no attack on an interpreter"):
        bound_study(run, toy_classifier(), work=tmp_path)


def test_counts_and_means_by_hand() -> None:
    images = [
        made("a", sides(0.95, 1.5), l1=0.04),
        made("b", sides(0.6, 3.0), l1=0.15),
        made("c", sides(0.92, 9.0), l1=0.3, success=False),
    ]
    line = line_of("adv2-grad", "grad", images)
    assert (line.n, line.failed) == (2, 1)
    assert line.attribution == pytest.approx(2.25)
    assert line.slack == pytest.approx((0.55 + 2.4) / 2)
    assert line.least_slack == pytest.approx(0.55)
    assert line.times == 10
    assert (line.above_noise, line.caught) == (1, 1)
    assert [line.effective[attribution_count(0.5, most)] for most in (1, 2, 4, 8)] == [0, 1, 2, 2]
    assert [line.effective[attribution_count(0.9, most)] for most in (1, 2, 4, 8)] == [0, 1, 1, 1]
    assert [line.effective[distance_count(0.5, most)] for most in (0.05, 0.1, 0.2)] == [1, 1, 2]
    (row,) = table([line]).to_pylist()
    assert row["prd>=0.9 attr<=2"] == 1
    assert row["prd>=0.5 l1<=0.2"] == 2


def test_an_attack_is_counted_where_it_was_aimed() -> None:
    run = made_run(photos=1)
    measured = {"photo-0": dict.fromkeys(("noise", "pgd", "adv2-cam", "adv2-grad"), NOISE)}
    assert set(images_of(run.rows, measured)) == {
        ("noise", "cam"), ("noise", "grad"), ("pgd", "cam"), ("pgd", "grad"),
        ("adv2-cam", "cam"), ("adv2-grad", "grad"),
    }  # fmt: skip


def test_words_follow_a_planted_relation() -> None:
    """‖Δm‖₁ and L1 rise together under the attack on GRAD, and D is below that of noise."""
    count = 12
    grad = [made(f"{i}", sides(0.95, 2 + i, discrepancy=20.0), l1=0.01 * i) for i in range(count)]
    cam = [made(f"{i}", sides(0.95, 2 + i), l1=0.01 * ((7 * i) % count)) for i in range(count)]
    images = {
        ("noise", "cam"): [made(f"{i}", NOISE, success=False) for i in range(count)],
        ("pgd", "cam"): [made(f"{i}", sides(1.0, 3 + i)) for i in range(count)],
        ("adv2-grad", "grad"): grad,
        ("adv2-cam", "cam"): cam,
    }
    lines = [line_of(*key, some) for key, some in images.items()]
    back, others = correlations(lines)
    assert [line.map for line in back] == ["grad"]
    assert [line.map for line in others] == ["cam"]
    words = bound_words(images, lines, TOLERANCES, count, 0)
    assert "further from the benign ones there. That holds: rank correlation" in words
    assert "‖Δm‖₁ minus that of PGD -1.00" in words
    assert "One threshold on D does not tell these attacks from noise" in words


@pytest.mark.parametrize(
    ("ends", "finding"),
    [
        ([(0.1, 0.5), (0.2, 0.9)], Finding.HOLDS),
        ([(0.1, 0.5), (-0.2, 0.9)], Finding.OPEN),
        ([(0.1, 0.5), (-0.9, -0.2)], Finding.FAILS),
        ([], Finding.OPEN),
        ([(None, None)], Finding.OPEN),
    ],
)
def test_the_verdict_on_a_relation(ends: list[tuple[float | None, float | None]], finding: Finding) -> None:
    assert related([Mean(9, 0.3, low, high) for low, high in ends]) is finding
