"""A planted transfer is found, and none is invented."""

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from support.made_runs import NEAR_L1, NOISE_L1, PGD_L1, made_run, with_rows
from support.snapshots import check_snapshot
from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.run import Run
from underfire.errors import InputError
from underfire.stats import wilson
from underfire.studies.study import Study, Verdict
from underfire.studies.transfer import comparable, nearness, transfer_study

THREE = ("cam", "grad", "ig")
OWN = frozenset((name, name) for name in THREE)


def study_of(run: Run) -> Study:
    return transfer_study(run, [], work=Path("nowhere"))


def verdict(study: Study) -> Verdict:
    """On Observation 7."""
    assert study.claims[0].id == "observation-7"
    return study.claims[0].verdict


def counted(study: Study) -> Counter[Verdict]:
    """How many cells are decided how, all but the overall claim."""
    return Counter(claim.verdict for claim in study.claims[1:])


def cells(study: Study) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["condition"], row["map"]): row for row in study.table.to_pylist()}


def test_without_a_transfer_none_is_found() -> None:
    study = study_of(made_run(interpreters=THREE, near=OWN))
    found = cells(study)
    for source, target in product(THREE, THREE):
        row = found[f"adv2-{source}", target]
        assert row["kind"] == ("own" if source == target else "other")
        assert row["verdict"] == ("kept" if source == target else "does not transfer")
    assert verdict(study) is Verdict.HOLDS
    assert counted(study) == {Verdict.HOLDS: 9}
    check_snapshot(__file__, "transfer", study.words)


@pytest.mark.parametrize("planted", [pair for pair in product(THREE, THREE) if pair[0] != pair[1]])
def test_a_planted_transfer_is_found_and_no_other(planted: tuple[str, str]) -> None:
    study = study_of(made_run(interpreters=THREE, near=OWN | {planted}))
    transferred = {key for key, row in cells(study).items() if row["verdict"] == "transfers"}
    assert transferred == {(f"adv2-{planted[0]}", planted[1])}
    assert verdict(study) is Verdict.FAILS
    (failed,) = [claim for claim in study.claims[1:] if claim.verdict is Verdict.FAILS]
    assert failed.id == f"made/adv2-{planted[0]}/{planted[1]}"
    assert failed.estimates["nearer"] == wilson(12, 12)
    assert failed.estimates["l1_minus_pgd"].value == pytest.approx(NEAR_L1 - PGD_L1, rel=0.02)


def test_a_map_that_is_not_kept_speaks_against_the_claim() -> None:
    study = study_of(made_run(near=frozenset({("cam", "cam")})))
    assert cells(study)["adv2-grad", "grad"]["verdict"] == "not kept"
    assert verdict(study) is Verdict.FAILS


def test_few_photos_decide_nothing() -> None:
    study = study_of(made_run(photos=7))
    verdicts = {row["verdict"] for row in study.table.to_pylist()} - {None}
    assert verdicts == {"not decided"}
    assert verdict(study) is Verdict.UNDECIDED
    assert counted(study) == {Verdict.UNDECIDED: 4}


def test_means_and_differences_are_the_planted_ones_and_the_summarys() -> None:
    run = made_run(photos=10)
    found, summary = cells(study_of(run)), run.summary
    assert found["pgd", "cam"]["l1"] == pytest.approx(PGD_L1, rel=0.01)
    assert found["noise", "cam"]["l1"] == pytest.approx(NOISE_L1, rel=0.01)
    assert found["none", "cam"]["l1"] == 0
    assert found["adv2-cam", "cam"]["l1"] == pytest.approx(NEAR_L1, rel=0.01)
    assert found["adv2-cam", "cam"]["l1_minus_pgd"] == pytest.approx(NEAR_L1 - PGD_L1, rel=0.01)
    assert found["adv2-cam", "cam"]["iou_minus_pgd"] == pytest.approx(PGD_L1 - NEAR_L1, rel=0.01)
    for cell in summary.transfer:
        row = found[str(cell.condition), cell.interpreter]
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
    check_snapshot(__file__, "transfer-failed", study_of(run).words)


def test_an_attack_by_other_changes_than_pgds_has_no_verdict() -> None:
    run = made_run()
    on_cam = Condition.on("adv2", "cam")
    rows = tuple(
        replace(row, allowed=replace(row.allowed, perturbation="flow" if row.condition == on_cam else "linf"))
        for row in run.records
    )
    found = cells(study_of(with_rows(run, rows)))
    assert {found["adv2-cam", name]["verdict"] for name in ("cam", "grad")} == {None}
    assert {found["adv2-cam", name]["pairs"] for name in ("cam", "grad")} == {0}
    assert found["adv2-grad", "grad"]["verdict"] == "kept"
    assert comparable(rows) == {NONE, NOISE, PGD, Condition.on("adv2", "grad")}
    assert comparable([row for row in rows if row.condition != PGD]) == frozenset()


def test_one_interpreter_has_nothing_to_transfer_to() -> None:
    study = study_of(made_run(interpreters=("cam",), near=frozenset({("cam", "cam")})))
    assert (verdict(study), study.claims[0].n) == (Verdict.UNDECIDED, 0)
    check_snapshot(__file__, "transfer-untested", study.words)


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


def test_nearer_is_nearer_by_more_than_the_margin() -> None:
    pgd = [1.0, 1.0, 1.0, 0.0, 0.5]
    attack = [0.79, 0.8, 0.81, 0.0, 0.1]
    assert nearness(attack, pgd, margin=0.2) == wilson(2, 5)
    assert nearness(attack, pgd, margin=0.0) == wilson(4, 5)
    assert nearness([], []) == wilson(0, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearness([0.1], []),
        lambda: nearness([-0.1], [0.1]),
        lambda: nearness([float("nan")], [0.1]),
        lambda: nearness([0.1], [0.1], margin=1.0),
    ],
)
def test_distances_that_are_none_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()  # type: ignore[operator]
