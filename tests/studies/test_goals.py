"""The study of an audit's goals: planted rates and what is claimed of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from support.toy_photos import found, toy_classifier, toy_plan, write_photos
from underfire.auditing.run import Run, read_run
from underfire.auditing.runner import run_audit
from underfire.studies.goals import goals_study
from underfire.studies.study import Verdict, read, save


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("goals-study")
    photos = write_photos(folder / "photos", count=3)
    plan = replace(toy_plan(), interpreters=("cam",), goals=("target/kept", "kept/topk"), steps=30, targets="given")
    run_audit(plan, found(photos), toy_classifier(), folder / "run")
    return read_run(folder / "run")


def test_a_row_for_every_goal_and_interpreter_and_a_claim_on_each(run: Run, tmp_path: Path) -> None:
    study = goals_study(run)
    rows = {row["goal"]: row for row in study.table.to_pylist()}
    assert list(rows) == ["target/kept", "kept/topk"]
    summary = {figures.goal: figures.headline for figures in run.summary.goals}
    for goal, row in rows.items():
        rate = summary[goal]
        assert rate is not None
        assert (row["jsr"], row["noise"], row["tau"]) == (rate.jsr.value, rate.noise.value, rate.tau)
        assert row["jsr_milder"] >= row["jsr"] >= row["jsr_harder"]
    assert [claim.id for claim in study.claims] == [
        *("target/kept", "target/kept/ADV²/cam", "kept/topk", "kept/topk/Map attack/cam")
    ]
    assert {claim.n for claim in study.claims} == {3}
    # three of three photos decide nothing by a sign test
    assert {claim.verdict for claim in study.claims} == {Verdict.UNDECIDED}
    assert study.figure.startswith("<svg")
    assert "3 of 3 photos attacked" in study.words
    save(study, tmp_path, command="underfire study goals", seed=0)
    (saved,) = read(tmp_path)
    assert saved.study.claims == study.claims
