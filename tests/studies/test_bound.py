"""The study of the bound on an audit of toys: its numbers again, its words from planted numbers, and its refusals."""

import itertools
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from underfire.studies.bound_cells import Image, attribution_count, cells_of, distance_count, line_of, table
from underfire.studies.bound_sides import Sides, Tolerances, sides_of
from underfire.studies.bound_words import bound_words, correlations, related

from support.made_runs import made_run
from support.toy_photos import found, toy_classifier, toy_plan, write_photos
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.images import read_png
from underfire.interpreters.path import IncompleteError
from underfire.stats import Estimate
from underfire.studies import bound_sides
from underfire.studies.bound import bound_study
from underfire.studies.bound_statistics import BoundViolationError, Proposition1, TwoClass, proposition_1
from underfire.studies.frontier_statistics import Finding
from underfire.studies.source import Run, attacked, read_run

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
    assert {(row["unresolved"], row["unresolved_photos"]) for row in rows} == {(0, None)}
    assert all(row["residual"] <= 0.02 and row["least_slack"] >= -0.02 for row in rows)
    by_hand = [
        proposition_1(
            toy_classifier(), read_png(run.picture(photo, "benign")), read_png(run.picture(photo, "noise")),
            label=photo.label, target=photo.target, tolerance=0.02,
        )
        for photo in run.photos
    ]  # fmt: skip
    assert rows[0]["attribution"] == pytest.approx(sum(sides.interpretation for sides in by_hand) / 3)
    assert study.words.startswith(
        "Proposition 1 holds, as it must: on all 12 images of 3 photos ℓ_prd is at most ‖Δm‖₁ up to the tolerance,"
    )
    assert "unresolved" not in study.words
    assert "Up to the tolerances every image lies above" in study.figure
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


def unsettled(monkeypatch: pytest.MonkeyPatch, name: str, calls: Collection[int] | None = None) -> None:
    """Within the study ``name`` does not come within its tolerance: always, or at ``calls``, counted from 0."""
    honest, count = getattr(bound_sides, name), itertools.count()

    def hard(*args: Any, **options: Any) -> object:
        if calls is None or next(count) in calls:
            raise IncompleteError("planted")
        return honest(*args, **options)

    monkeypatch.setattr(bound_sides, name, hard)


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
    assert "on all 7 images of 2 photos" in study.words
    assert "5 images left out as unresolved" in study.words
    assert f"{names[0]} (PGD); {names[1]} (Harmless noise, PGD, ADV² on GRAD, ADV² on CAM)." in study.words
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
    run = replace(whole, records=tuple(row for row in whole.records if row.source == "-"))
    with pytest.raises(InputError, match="no attack on an interpreter"):
        bound_study(run, toy_classifier(), work=tmp_path)


def test_counts_and_means_by_hand() -> None:
    images = [
        made("a", sides(0.95, 1.5), l1=0.04),
        made("b", sides(0.6, 3.0), l1=0.15),
        made("c", sides(0.92, 0.99), l1=0.01, success=False),
    ]
    line = line_of("adv2-grad", "grad", images)
    assert (line.n, line.failed) == (2, 1)
    assert line.attribution == pytest.approx(2.25)
    assert line.slack == pytest.approx((0.55 + 2.4) / 2)
    assert line.least_slack == pytest.approx(0.07)
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
    assert set(cells_of(run.records, measured)) == {
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
    alike = {condition for condition, _ in images}
    words = bound_words(images, lines, TOLERANCES, unresolved={}, left_out=0, alike=alike)
    assert "further from the benign ones there. That holds: rank correlation" in words
    assert "under ADV² on GRAD 1.00 (" in words
    assert "‖Δm‖₁ minus that of PGD -1.00" in words
    assert "under attacks on others: ADV² on CAM " in words
    assert "of 36 attacked images with the label, 0 / 2 / 8 / 20 have ℓ_prd ≥ 0.9 with ‖Δm‖₁ ≤ 1 / 2 / 4 / 8;" in words
    assert "lowest in the mean under ADV² on GRAD (7.50" in words
    assert "highest under PGD (8.50" in words
    assert "12 / 22 / 24 of the maps that were attacked (24)" in words  # L1 of 0 to 0.11 by hundredths, twice
    assert "times its bound in the median of an attack, lowest under ADV² on GRAD" in words
    assert "One threshold on D does not tell these attacks from noise. D needs the benign image" in words


def test_attacks_on_one_interpreter_are_told_apart_and_only_like_is_compared_with_pgd() -> None:
    """StAdv moves pixels: it has a correlation of its own and no difference to PGD."""
    some = [made(f"{i}", sides(0.95, 2 + i), l1=0.01 * i) for i in range(8)]
    keys = [("pgd", "grad"), ("adv2-grad", "grad"), ("stadv-grad", "grad"), ("adv2-cam+grad", "grad")]
    images = dict.fromkeys(keys, some)
    alike = {"pgd", "adv2-grad", "adv2-cam+grad"}
    lines = [line_of(*key, some) for key in keys]
    words = bound_words(images, lines, TOLERANCES, unresolved={}, left_out=0, alike=alike)
    (told,) = re.findall(r"under (ADV² on GRAD .*?)\. A measure", words)
    adv2, stadv, joint = told.split("; ")
    assert adv2.startswith("ADV² on GRAD 1.00 (")
    assert "minus that of PGD 0.00" in adv2
    assert stadv.startswith("StAdv on GRAD 1.00 (")
    assert "PGD" not in stadv
    assert joint.startswith("ADV² on CAM + GRAD seen by GRAD 1.00 (")


def test_many_unresolved_photos_are_counted_and_the_first_named() -> None:
    some = [made("good", sides(0.95, 2.0))]
    images = {("pgd", "cam"): some, ("pgd", "grad"): some}
    names = [f"hard-{i}" for i in range(7)]
    lines = [line_of(*key, some, names) for key in images]
    words = bound_words(images, lines, TOLERANCES, unresolved=dict.fromkeys(images, names), left_out=0, alike=())
    assert "7 images left out as unresolved" in words
    assert "hard-4 (PGD) and 2 more photos, see the table." in words
    assert lines[0].unresolved_photos == ", ".join(names)


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
    assert related([Estimate(0.3, low, high, 9) for low, high in ends]) is finding
