"""A planted transfer is found, and none is invented."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from underfire.studies.cells import comparable

from support.made_runs import NEAR_L1, NOISE_L1, PGD_L1, made_run
from underfire.auditing.summary import summarise
from underfire.errors import InputError
from underfire.studies.source import Run
from underfire.studies.study import Study
from underfire.studies.transfer import transfer_study

THREE = ("cam", "grad", "ig")
OWN = frozenset((name, name) for name in THREE)


def study_of(run: Run) -> Study:
    return transfer_study(run, [], work=Path("nowhere"))


def cells(study: Study) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["condition"], row["map"]): row for row in study.table.to_pylist()}


def test_without_a_transfer_none_is_found() -> None:
    study = study_of(made_run(interpreters=THREE, near=OWN))
    found = cells(study)
    for source, target in product(THREE, THREE):
        row = found[f"adv2-{source}", target]
        assert row["kind"] == ("own" if source == target else "other")
        assert row["verdict"] == ("kept" if source == target else "does not transfer")
    assert study.words.startswith("Observation 7 holds here.")
    assert "0 transfer, 6 do not, and 0 are not decided" in study.words


@pytest.mark.parametrize("planted", [pair for pair in product(THREE, THREE) if pair[0] != pair[1]])
def test_a_planted_transfer_is_found_and_no_other(planted: tuple[str, str]) -> None:
    study = study_of(made_run(interpreters=THREE, near=OWN | {planted}))
    transferred = {key for key, row in cells(study).items() if row["verdict"] == "transfers"}
    assert transferred == {(f"adv2-{planted[0]}", planted[1])}
    assert study.words.startswith("Observation 7 does not hold here.")
    assert f"on {planted[0].upper()} to {planted[1].upper()} (12 of 12 photos, L1 -0.2" in study.words


def test_a_map_that_is_not_kept_speaks_against_the_claim() -> None:
    study = study_of(made_run(near=frozenset({("cam", "cam")})))
    assert cells(study)["adv2-grad", "grad"]["verdict"] == "not kept"
    assert study.words.startswith("Observation 7 does not hold here.")


def test_few_photos_decide_nothing() -> None:
    study = study_of(made_run(photos=7))
    verdicts = {row["verdict"] for row in study.table.to_pylist()} - {None}
    assert verdicts == {"not decided"}
    assert study.words.startswith("Observation 7 is not decided at this n.")
    assert "at least 8 photos are needed" in study.words


def test_means_and_differences_are_the_planted_ones_and_the_summarys() -> None:
    run = made_run(photos=10)
    found, summary = cells(study_of(run)), summarise(run.records)
    assert found["pgd", "cam"]["l1"] == pytest.approx(PGD_L1, rel=0.01)
    assert found["noise", "cam"]["l1"] == pytest.approx(NOISE_L1, rel=0.01)
    assert found["none", "cam"]["l1"] == 0
    assert found["adv2-cam", "cam"]["l1"] == pytest.approx(NEAR_L1, rel=0.01)
    assert found["adv2-cam", "cam"]["l1_minus_pgd"] == pytest.approx(NEAR_L1 - PGD_L1, rel=0.01)
    assert found["adv2-cam", "cam"]["iou_minus_pgd"] == pytest.approx(PGD_L1 - NEAR_L1, rel=0.01)
    for cell in summary.transfer:
        row = found[cell.condition, cell.interpreter]
        for measure in ("l1", "iou_50"):
            mean = cell.mean(measure)
            assert (row[measure], row[f"{measure}_low"], row[f"{measure}_high"]) == (mean.value, mean.low, mean.high)
        if cell.l1_minus_pgd_8bit is not None:
            assert row["l1_minus_pgd_low"] == cell.l1_minus_pgd_8bit.low


def test_failed_attacks_are_kept_apart() -> None:
    """Their maps did not move, which would look like the best attack of all."""
    run = made_run(photos=14, failed={"adv2-grad": (0, 1, 2), "pgd": (2, 3)})
    row = cells(study_of(run))["adv2-grad", "cam"]
    assert (row["n"], row["failed"], row["failed_l1"], row["pairs"]) == (11, 3, 0.0, 10)
    assert row["l1"] == pytest.approx(PGD_L1, rel=0.01)
    assert row["verdict"] == "does not transfer"
    label = cells(study_of(run))["adv2-grad", "-"]
    assert (label["n"], label["failed"], label["reached"]) == (14, 0, pytest.approx(11 / 14))
    assert "missed its label are kept apart: PGD 2 and ADV² on GRAD 3." in study_of(run).words


def test_an_attack_by_other_changes_than_pgds_has_no_verdict() -> None:
    run = made_run()
    rows = tuple(replace(row, perturbation="flow" if row.condition == "adv2-cam" else "linf") for row in run.records)
    found = cells(study_of(replace(run, records=rows)))
    assert {found["adv2-cam", name]["verdict"] for name in ("cam", "grad")} == {None}
    assert {found["adv2-cam", name]["pairs"] for name in ("cam", "grad")} == {0}
    assert found["adv2-grad", "grad"]["verdict"] == "kept"
    assert comparable(rows) == {"none", "noise", "pgd", "adv2-grad"}
    assert comparable([row for row in rows if row.condition != "pgd"]) == frozenset()


def test_one_interpreter_has_nothing_to_transfer_to() -> None:
    study = study_of(made_run(interpreters=("cam",), near=frozenset({("cam", "cam")})))
    assert study.words.startswith("Observation 7 is not tested")


def test_a_run_without_pgd_is_refused() -> None:
    with pytest.raises(InputError, match="no PGD to compare with"):
        study_of(made_run(pgd=False))


def test_the_figure_shows_every_cell_and_repeats() -> None:
    study = study_of(made_run(interpreters=THREE, near=OWN))
    assert study.figure == study_of(made_run(interpreters=THREE, near=OWN)).figure
    assert study.figure.count("does not transfer (0 of 12 nearer)") == 6
    assert study.figure.count("kept (12 of 12 nearer)") == 3
    for name in ("CAM", "GRAD", "IG"):
        assert f"seen by {name}" in study.figure


def test_files_that_were_left_out_are_said(tmp_path: Path) -> None:
    words = transfer_study(made_run(), [], work=tmp_path).words
    assert "12 of 12 photos attacked. 1 file could not be used." in words
