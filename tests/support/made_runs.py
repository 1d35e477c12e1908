"""Rows of an audit whose transfer is planted, and studies of nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from support.rows import row
from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.facts import ModelFacts, RunFacts, SkippedFile
from underfire.auditing.found import FoundRows
from underfire.auditing.plan import AuditPlan, PlannedPhoto, photo_key
from underfire.auditing.rows import SCHEMA_VERSION, Row, table_of
from underfire.auditing.run import Run
from underfire.auditing.verification import units_of
from underfire.studies.study import Study

R = TypeVar("R", bound=Run)

PGD_L1, NEAR_L1, NOISE_L1 = 0.30, 0.03, 0.05


def made_run(
    *,
    photos: int = 12,
    interpreters: tuple[str, ...] = ("cam", "grad"),
    near: frozenset[tuple[str, str]] = frozenset({("cam", "cam"), ("grad", "grad")}),
    failed: Mapping[str, tuple[int, ...]] | None = None,
    pgd: bool = True,
) -> Run:
    """A run of made rows: under ADV² on SOURCE the map of TARGET is near the benign one for the pairs ``near``.

    Everywhere else it is as far as PGD's, a little more or less. ``failed`` are photos on which a condition missed
    its label; their maps did not move.
    """
    conditions = [NONE, NOISE, *([PGD] if pgd else []), *(Condition.on("adv2", source) for source in interpreters)]
    missed = failed or {}
    rows = []
    for index in range(photos):
        for condition in conditions:
            success = not condition.is_control and index not in missed.get(str(condition), ())
            for interpreter in interpreters:
                l1 = _l1(condition, interpreter, near) * (1 + 0.02 * ((index * 7 + len(str(condition))) % 5 - 2))
                lost = not condition.is_control and not success
                rows.append(_row(f"photo-{index}", condition, interpreter, success, 0.0 if lost else l1))
    plan = AuditPlan(interpreters=interpreters, attacks=("pgd", "adv2") if pgd else ("adv2",))
    planned = [
        PlannedPhoto(f"photo-{i}", photo_key(i, ""), "", f"photo-{i}.png", 1, True, 2, None) for i in range(photos)
    ]
    return run_of(plan, planned, rows, path=Path("made"), skipped=(SkippedFile("notes.txt", "it is no image"),))


def planned_otherwise(run: Run, **changes: Any) -> Run:
    """``run`` as if its plan had these ``changes``."""
    return replace(run, facts=replace(run.facts, plan=replace(run.plan, **changes)))


def run_of(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto] = (),
    rows: Sequence[Row] = (),
    *,
    path: Path = Path(),
    **facts: Any,
) -> Run:
    """A run of ``plan`` that was never made; ``facts`` are in its run.json."""
    model = ModelFacts("made", "f" * 64, 10, (32, 32), 32, {str(index): f"class {index}" for index in range(10)})
    said: dict[str, Any] = {
        "schema": SCHEMA_VERSION, "created": "2031-05-06T07:08:09+00:00", "underfire_version": "0.1.0", "versions": {},
        "device": "cpu", "threads": 1, "platform": "toy", "model": model, "threat_model": {}, "config": {},
        "model_checks": (), "skipped": (), "finished": True,
    }  # fmt: skip
    described = RunFacts(**said | facts, plan=plan, photos=tuple(photos))
    return Run(path, described, found(described, rows))


def with_rows(run: R, rows: Iterable[Row]) -> R:
    """``run`` as if it had these ``rows``."""
    return replace(run, found=found(run.facts, list(rows)))


def found(facts: RunFacts, rows: Sequence[Row]) -> FoundRows:
    """``rows`` as those that are there of a run."""
    there = {row.image_id for row in rows}
    parts = {unit.number for unit in units_of(facts) if unit.photos[0].image_id in there}
    return FoundRows(parts, lambda: iter([table_of(rows)]))


def _l1(condition: Condition, interpreter: str, near: frozenset[tuple[str, str]]) -> float:
    if condition.is_control:
        return NOISE_L1 if condition == NOISE else 0.0
    return NEAR_L1 if (condition.source, interpreter) in near else PGD_L1


def _row(image_id: str, condition: Condition, interpreter: str, success: bool, l1: float) -> Row:
    return row(
        image_id=image_id, image_sha256="", condition=condition, interpreter=interpreter, success=success, l1=l1,
        iou=1 - l1, passes=10, seconds=1.0, eps=0.03,
    )  # fmt: skip


def made_study(name: str = "transfer", *, words: str = "It holds.") -> Study:
    """A study with a number, an interval, a hostile cell and a figure in the page's colours."""
    table = pa.table(
        {
            "model": ["<script>alert(1)</script>|net", "other"],
            "l1": [0.123456, None],
            "l1_low": [0.1, None],
            "l1_high": [0.2, None],
            "n": [12, 0],
            "nothing": pa.array([None, None], pa.string()),
        }
    )
    figure = (
        '<svg role="img" aria-label="said &quot;aloud&quot;" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
        '<rect width="9" height="9" style="fill: var(--adv2)"/></svg>'
    )
    return Study(name, f"A title of {name}", "A claim, <b>ours</b>.", (), table, figure, words)
