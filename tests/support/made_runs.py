"""Rows of an audit whose transfer is planted, and studies of nothing."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.studies.source import Run
from underfire.studies.study import Study

PGD_L1, NEAR_L1, NOISE_L1 = 0.30, 0.03, 0.05


def made_run(
    *,
    photos: int = 12,
    interpreters: tuple[str, ...] = ("cam", "grad"),
    near: frozenset[tuple[str, str]] = frozenset({("cam", "cam"), ("grad", "grad")}),
    failed: Mapping[str, tuple[int, ...]] | None = None,
    pgd: bool = True,
) -> Run:
    """A run of made rows: under ``adv2-SOURCE`` the map of TARGET is near the benign one for the pairs ``near``.

    Everywhere else it is as far as PGD's, a little more or less. ``failed`` are photos on which a condition missed
    its label; their maps did not move.
    """
    conditions = ["none", "noise", *(["pgd"] if pgd else []), *(f"adv2-{source}" for source in interpreters)]
    missed = failed or {}
    rows = []
    for index in range(photos):
        for condition in conditions:
            success = condition not in ("none", "noise") and index not in missed.get(condition, ())
            for interpreter in interpreters:
                l1 = _l1(condition, interpreter, near) * (1 + 0.02 * ((index * 7 + len(condition)) % 5 - 2))
                lost = condition not in ("none", "noise") and not success
                rows.append(_row(f"photo-{index}", condition, interpreter, success, 0.0 if lost else l1))
    plan = AuditPlan(interpreters=interpreters, attacks=("pgd", "adv2") if pgd else ("adv2",))
    planned = tuple(
        PlannedPhoto(f"photo-{i}", f"{i:05d}", "", f"photo-{i}.png", 1, True, 2, None) for i in range(photos)
    )
    names = {str(index): f"class {index}" for index in range(10)}
    facts = {
        "created": "2031-05-06T07:08:09+00:00",
        "skipped": [{"name": "notes.txt", "reason": "it is no image"}],
        "model": {"name": "made", "fingerprint": "f" * 64, "input_size": [32, 32], "class_names": names},
    }
    return Run(Path("made"), facts, plan, planned, tuple(rows))


def _l1(condition: str, interpreter: str, near: frozenset[tuple[str, str]]) -> float:
    attack, _, source = condition.partition("-")
    if attack in ("none", "noise"):
        return {"none": 0.0, "noise": NOISE_L1}[attack]
    return NEAR_L1 if (source, interpreter) in near else PGD_L1


def _row(image_id: str, condition: str, interpreter: str, success: bool, l1: float) -> Row:
    attack, _, source = condition.partition("-")
    iou = 1 - l1
    return Row(
        image_id=image_id, image_sha256="", label=1, label_given=True, target=2, attack=attack, source=source or "-",
        interpreter=interpreter, excluded=None, success=success, prediction=2 if success else 1, confidence=0.9,
        clean_prediction=1, clean_confidence=0.9, l1=l1, iou_50=iou, iou_25=iou, iou_75=iou, iou_top20=iou, linf=0.03,
        l2=1.0, success_8bit=success, confidence_8bit=0.9, l1_8bit=l1, iou_50_8bit=iou, iou_25_8bit=iou,
        iou_75_8bit=iou, iou_top20_8bit=iou, steps=10, passes=10, seconds=1.0, seed=0, perturbation="linf", eps=0.03,
        used=0.03,
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
