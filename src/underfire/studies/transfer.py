"""Observation 7: does an image that keeps one interpreter's map keep another's, and another classifier's?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from underfire.auditing.condition import PGD, Condition
from underfire.auditing.rows import Row
from underfire.auditing.summary import Summary
from underfire.errors import InputError
from underfire.images.files import quoted
from underfire.models.classifier import Classifier
from underfire.studies.cells import Distance, Line, against, comparable, judged, kind_of, means, table
from underfire.studies.columns import three
from underfire.studies.onlooking import Onlooking, onlooking
from underfire.studies.others import onlookers, sights
from underfire.studies.source import Note, Run, attacked, quiet
from underfire.studies.study import Study
from underfire.studies.transfer_figure import transfer_figure
from underfire.studies.transfer_words import CLAIM, transfer_words


def transfer_study(run: Run, others: Sequence[Classifier], *, work: Path, note: Note = quiet) -> Study:
    """Who else is fooled by the images of ``run``: its other interpreters, and ``others`` with theirs.

    All on images as saved in 8 bit. ``work`` keeps what was seen with ``others``, photo by photo.

    Raises:
        InputError: ``run`` has no PGD or no attack on an interpreter, or one of ``others`` has other classes.
    """
    summary = run.summary
    attacked(run.photos)
    if summary.attack(PGD) is None:
        raise InputError(f"the run {quoted(run.path)} has no PGD to compare with; run an audit with --attacks pgd,adv2")
    if not any(attack.condition.is_joint for attack in summary.attacks):
        raise InputError(
            f"the run {quoted(run.path)} has no attack on an interpreter; run an audit with --attacks pgd,adv2"
        )
    lines = judged(audited_lines(summary, run.records, str(run.facts["model"]["name"])))
    seen: list[Onlooking] = []
    for other in onlookers(run, others):
        found = onlooking(run, summary.conditions, other, sights(run, other, work, note=note))
        seen.append(found)
        lines = [*lines, *found.lines]
    return Study(
        name="transfer",
        title="Does an attack on one interpreter fool another?",
        claim=CLAIM,
        claims=(),
        table=table(lines),
        figure=transfer_figure(lines),
        words=transfer_words(run.photos, lines, seen, skipped=run.skipped),
    )


def audited_lines(summary: Summary, rows: Sequence[Row], model: str) -> list[Line]:
    """The transfer matrix of an audit, without verdicts."""
    cells = _distances(rows)
    alike = comparable(rows)
    lines = [
        Line(model=model, condition=str(a.condition), kind="label", n=a.n, **three("reached", a.asr_8bit))
        for a in summary.attacks
    ]
    for cell in summary.transfer:
        control = cell.condition.is_control
        kind = kind_of(cell.condition, cell.interpreter)
        found, failed = cells[cell.condition, cell.interpreter]
        columns = means({**found, **failed}) if control else means(found, failed)
        if kind in ("own", "other"):
            fair = cell.condition in alike
            pgd = cells[PGD, cell.interpreter][0] if fair else {}
            columns |= against(found, pgd, judged=fair)
        lines.append(
            Line(
                model=model, condition=str(cell.condition), map=cell.interpreter, kind=kind, compared="seen", **columns
            )
        )
    return lines


_Split = tuple[dict[str, Distance], dict[str, Distance]]


def _distances(rows: Sequence[Row]) -> Mapping[tuple[Condition, str], _Split]:
    """By condition and interpreter the distances of the photos whose label was reached, and of the others."""
    excluded = {row.image_id for row in rows if row.excluded is not None}
    cells: dict[tuple[Condition, str], _Split] = {}
    for row in sorted(rows, key=lambda row: row.image_id):
        if row.image_id not in excluded:
            reached, failed = cells.setdefault((row.condition, row.interpreter), ({}, {}))
            kept = reached if row.success_8bit else failed
            kept[row.image_id] = Distance(row.l1_8bit, row.iou_50_8bit)
    return cells
