"""Whether the rows of a run directory are those that its run.json announces; others may have written either."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from underfire.attacks.goals import Goal
from underfire.attacks.labels import TOLERANCE
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.facts import RunFacts
from underfire.auditing.plan import PlannedPhoto, Unit, units
from underfire.auditing.rows import REDO, Row, RowPhoto, parts_in, read_part
from underfire.auditing.store import RunDirectory
from underfire.errors import InputError
from underfire.files import quoted

_ROUNDING = 1e-6  # of probabilities

_HALF_A_LEVEL = 0.5 / 255
"""By so much, in the unit of pixel values, a change may exceed its budget: short floats are rounded."""


def units_of(facts: RunFacts) -> list[Unit]:
    """All units of a run, those of all shards together."""
    return list(units(facts.photos, batch_size=facts.settings.batch_size))


@dataclass(frozen=True)
class OwnRows:
    """The rows that a study's own attacks on photos of a run leave: of some of the photos, within other budgets.

    Attributes:
        conditions: of each photo that takes part.
        interpreter: that all maps are taken with.
    """

    conditions: tuple[Condition, ...]
    interpreter: str


def verified_rows(directory: RunDirectory, facts: RunFacts, own: OwnRows | None = None) -> dict[int, list[Row]]:
    """The rows of every part that is there, by the number of its unit, each row as ``facts`` announce it.

    Args:
        directory: of the run, or of a study's ``own`` rows.
        facts: of the run.
        own: what a study's rows are.

    Raises:
        InputError: a part is damaged, belongs to another run, lacks rows or has some twice, or a number is not what it
            can be. The sentence names the part.
    """
    by_path = {directory.part(unit.number): unit for unit in units_of(facts)}
    wanted = cache(lambda condition: condition.wanted)  # an attack that is not installed is looked for at length
    found = {}
    for path in parts_in(directory.rows):
        unit = by_path.get(path)
        if unit is None:
            raise InputError(f"{quoted(path)} is none of the {len(by_path)} parts of this run; delete it")
        rows = read_part(path)
        problem = _problem(unit, rows, facts, own, wanted)
        if problem is not None:
            raise InputError(f"{quoted(path)} does not belong to this run: {problem}; {REDO}")
        found[unit.number] = rows
    return found


def _problem(
    unit: Unit, rows: Sequence[Row], facts: RunFacts, own: OwnRows | None, wanted: Callable[[Condition], Goal | None]
) -> str | None:
    """Why ``rows`` are not those of ``unit``, None if they are; ``wanted`` tells the goal of a condition."""
    left = dict(_announced(unit, facts) if own is None else _left_by_study(unit, own))
    count = len(left)
    for row in rows:
        key = (row.image_id, row.condition, row.interpreter)
        photo = left.pop(key, None)
        where = f"{quoted(row.image_id)} under {row.condition} with the map of {row.interpreter}"
        if photo is None:
            return f"it has no place for a row, or a second one, of {where}"
        if not _success_follows(row, photo, wanted(row.condition)):
            return f"success is not what the prediction and the classes of the photo say in the row of {where}"
        problem = _row_problem(row, photo, facts, planned=own is None and facts.follows_plan(row.condition))
        if problem is not None:
            return f"{problem} in the row of {where}"
    attacked = {row.image_id for row in rows}
    lacking = sum(own is None or photo.image_id in attacked for photo in left.values())
    return f"it lacks {lacking} of its {count} rows" if lacking else None


_Rows: TypeAlias = Iterator[tuple[tuple[str, Condition, str], PlannedPhoto]]
"""What identifies a row, and its photo."""


def _announced(unit: Unit, facts: RunFacts) -> _Rows:
    for photo in unit.photos:
        for condition in facts.attacked_under if photo.excluded is None else (NONE,):
            for interpreter in facts.seen_by:
                yield (photo.image_id, condition, interpreter), photo


def _left_by_study(unit: Unit, own: OwnRows) -> _Rows:
    for photo in unit.photos:
        if photo.excluded is None:
            yield from (((photo.image_id, condition, own.interpreter), photo) for condition in own.conditions)


def _row_problem(row: Row, photo: PlannedPhoto, facts: RunFacts, *, planned: bool) -> str | None:
    """What is wrong with ``row`` of ``photo``; ``planned``: its budget is the run's."""
    expected = RowPhoto(photo.image_id, photo.sha256, photo.label, photo.label_given, photo.target)
    if (row.photo, row.excluded) != (expected, photo.excluded):
        return "hash, label, target class or exclusion is not that of the photo in run.json"
    answer, allowed = row.answer, row.allowed
    if max(answer.prediction, answer.clean_prediction) >= facts.model.num_classes:
        return "the prediction is a class that the model has not"
    if allowed.seed != facts.settings.seed:
        return f"the seed is {allowed.seed} and not the run's {facts.settings.seed}"
    if planned:
        model = facts.settings.perturbation_of(row.condition)
        if (allowed.perturbation, allowed.eps) != (model.name, model.eps):
            return f"the budget is {allowed.eps:g} in {quoted(allowed.perturbation)} and not the run's"
    changes = {"linf": row.change.linf, "l2": row.change.l2}
    change = max(allowed.used, changes.get(allowed.perturbation, 0.0))
    if change > allowed.eps * 1.01 + _HALF_A_LEVEL:
        return f"the image was changed by {change:g}, more than its budget of {allowed.eps:g}"
    return None


def _success_follows(row: Row, photo: PlannedPhoto, goal: Goal | None) -> bool:
    """Whether the row's success is what its ``goal`` makes of its prediction, as far as the row tells."""
    answer = row.answer
    if row.condition == NONE:
        return not answer.success
    if goal is None or goal.label == "target":
        return answer.success == (answer.prediction == photo.target)
    if goal.label == "other":
        return not answer.success or answer.prediction != photo.label
    near = abs(answer.confidence - answer.clean_confidence) <= TOLERANCE + _ROUNDING
    return not answer.success or (answer.prediction == photo.label and near)
