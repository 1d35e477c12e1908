"""An audit of several goals: its rows, its summary and what a forged row may not say."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import underfire as uf
from support.toy_photos import found, toy_classifier, toy_plan, write_photos
from underfire.auditing.condition import Condition
from underfire.auditing.runner import run_audit

GOALS = ("target/kept", "other/kept", "kept/topk", "kept/center", "other/free")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("goals")
    photos = write_photos(folder / "photos")
    plan = replace(toy_plan(), interpreters=("cam",), goals=GOALS, steps=40, targets="given")
    run_audit(plan, found(photos), toy_classifier(), folder / "run")
    return folder / "run"


def _load(path: Path) -> uf.Run:
    model = toy_plan().model
    return uf.load_run(path, model=model)


def test_every_goal_has_its_rows_and_what_they_say_follows(path: Path) -> None:
    rows = _load(path).records
    assert {(row.attack, row.condition.goal) for row in rows if not row.condition.is_control} == {
        *(("pgd", None), ("pgd", "other/free"), ("adv2", None), ("adv2", "other/kept")),
        *(("map", None), ("map", "kept/center")),
    }
    for row in rows:
        label, prediction = row.photo.label, row.answer.prediction
        wanted = row.condition.wanted
        if row.saved.success and wanted is not None and wanted.label == "kept":
            assert prediction == label
            assert abs(row.answer.confidence - row.answer.clean_confidence) <= 0.1
        elif row.answer.success and wanted is not None and wanted.label == "other":
            assert prediction != label
            assert row.answer.confidence > 0.5


def test_the_summary_has_the_joint_rates_of_each_goal(path: Path) -> None:
    figures = {(g.goal, g.interpreter): g for g in _load(path).summary.goals}
    assert list(figures) == [(goal, "cam") for goal in ("target/kept", "other/kept", "kept/topk", "kept/center")]
    for (goal, _), found_ in figures.items():
        shares = [rate.jsr.k for rate in found_.rates]
        assert shares == sorted(shares, reverse=True), goal  # the mildest τ first
        assert found_.label.k == found_.n == 4
    moved = figures["kept/topk", "cam"].rates[0]
    assert moved.tau == 0.5
    assert moved.jsr.k >= 3
    assert moved.noise.k == 0


def test_the_report_shows_the_goals(path: Path) -> None:
    page = _load(path)
    assert isinstance(page, uf.Run)
    text = uf.load_run(path, model=toy_plan().model).report().read_text(encoding="utf-8")
    assert "What an attacker can do to each explanation" in text
    assert all(f'<th scope="row">{goal}<small>' in text for goal in GOALS[:4])


def test_artifacts_have_names_of_files(path: Path) -> None:
    names = {file.name for file in path.glob("artifacts/*/*.png")}
    assert "map-cam@kept-center.png" in names
    assert Condition.parse("map-cam@kept/center").file_name == "map-cam@kept-center"


@pytest.mark.parametrize(
    ("goal", "lie"),
    [
        (None, lambda row: {"prediction": (row["label"] + 1) % 10}),
        (None, lambda row: {"confidence": abs(row["clean_confidence"] - 0.2)}),
        ("other/kept", lambda row: {"prediction": row["label"]}),
    ],
    ids=["kept and another class", "kept and less sure", "other and the label"],
)
def test_a_success_that_the_goal_does_not_bear_out_is_refused(
    goal: str | None, lie: Callable[[dict[str, object]], dict[str, object]], path: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "run"

    shutil.copytree(path, forged)
    part = sorted((forged / "rows").glob("*.parquet"))[0]
    table = pq.read_table(part)
    attack = "map" if goal is None else "adv2"
    rows = [
        row | (lie(row) if (row["attack"], row["goal"]) == (attack, goal) and row["success"] else {})
        for row in table.to_pylist()
    ]
    pq.write_table(table.from_pylist(rows, schema=table.schema), part)
    with pytest.raises(uf.InputError, match="success is not what the prediction"):
        _load(forged)
