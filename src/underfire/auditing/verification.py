"""Whether the rows of a run directory are those that its run.json announces; others may have written either."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from underfire.attacks.labels import TOLERANCE
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.facts import RunFacts
from underfire.auditing.plan import Unit, units
from underfire.auditing.rows import REDO, Row, codes, conditions_of, numbers, parts_in, read_table, rows_of_table
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
    """The rows of every part that is there, by the number of its unit; as `verified_tables`."""
    return {number: rows_of_table(table) for number, table in verified_tables(directory, facts, own)}


def verified_tables(
    directory: RunDirectory, facts: RunFacts, own: OwnRows | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """The rows of every part that is there, with the number of its unit, each row as ``facts`` announce it.

    One part is held at a time. The tables are those of `underfire.auditing.rows.read_table`.

    Args:
        directory: of the run, or of a study's ``own`` rows.
        facts: of the run.
        own: what a study's rows are.

    Raises:
        InputError: a part is damaged, belongs to another run, lacks rows or has some twice, or a number is not what it
            can be. The sentence names the part.
    """
    by_path = {directory.part(unit.number): unit for unit in units_of(facts)}
    announced = _Announced(facts, own)
    for path in parts_in(directory.rows):
        unit = by_path.get(path)
        if unit is None:
            raise InputError(f"{quoted(path)} is none of the {len(by_path)} parts of this run; delete it")
        table = read_table(path)
        problem = announced.problem(unit, table)
        if problem is not None:
            raise InputError(f"{quoted(path)} does not belong to this run: {problem}; {REDO}")
        yield unit.number, table


_Check: TypeAlias = tuple[NDArray[np.bool_], Callable[[int], str]]
"""Where (rows,) something is wrong, and what, with the number of such a line."""


class _Announced:
    """What ``facts`` say of the rows of a unit, or of a study's ``own`` rows, to hold against those that are there."""

    def __init__(self, facts: RunFacts, own: OwnRows | None) -> None:
        self._facts, self._whole = facts, own is None
        self._conditions = facts.attacked_under if own is None else own.conditions
        self._interpreters = facts.seen_by if own is None else (own.interpreter,)
        self._places = {condition: place for place, condition in enumerate(self._conditions)}
        if own is None and NONE not in self._places:  # which excluded photos have
            self._places[NONE] = len(self._places)
        self._goals = {condition: condition.wanted for condition in self._places}  # looked for at length
        self._budgets = {
            condition: facts.settings.perturbation_of(condition)
            for condition in self._places
            if own is None and facts.follows_plan(condition)
        }

    def problem(self, unit: Unit, table: pa.Table) -> str | None:
        """Why the rows in ``table`` are not those of ``unit``, None if they are."""
        named, which = conditions_of(table)
        condition = np.array([self._places.get(one, -1) for one in named], dtype=np.int64)[which]
        photo = codes(table, "image_id", {photo.image_id: place for place, photo in enumerate(unit.photos)})
        interpreter = codes(table, "interpreter", {name: place for place, name in enumerate(self._interpreters)})
        wanted = self._wanted(unit)
        known = np.flatnonzero((photo >= 0) & (condition >= 0) & (interpreter >= 0))
        key = np.ravel_multi_index((photo, condition, interpreter), wanted.shape, mode="clip")
        first = known[np.unique(key[known], return_index=True)[1]]
        placed = np.zeros(len(table), dtype=bool)
        placed[first] = wanted.flat[key[first]]
        problems: list[_Check] = [
            (~placed, lambda _: "it has no place for a row, or a second one, of"),
            *self._checks(unit, table, photo, condition),
        ]
        found = [(int(np.argmax(wrong)), order) for order, (wrong, _) in enumerate(problems) if wrong.any()]
        if found:
            line, order = min(found)
            return f"{problems[order][1](line)} {_where(table, line)}"
        there = np.zeros(wanted.shape, dtype=bool)
        there.flat[key] = True
        begun = there.any(axis=(1, 2)) | self._whole
        lacking = int((wanted & ~there)[begun].sum())
        return f"it lacks {lacking} of its {int(wanted.sum())} rows" if lacking else None

    def _wanted(self, unit: Unit) -> NDArray[np.bool_]:
        """(photos, conditions, interpreters): which rows there are to be."""
        wanted = np.zeros((len(unit.photos), len(self._places), len(self._interpreters)), dtype=bool)
        for place, photo in enumerate(unit.photos):
            if photo.excluded is None:
                wanted[place, : len(self._conditions)] = True
            elif self._whole:
                wanted[place, self._places[NONE]] = True
        return wanted

    def _checks(
        self, unit: Unit, table: pa.Table, photo: NDArray[np.int64], condition: NDArray[np.int64]
    ) -> list[_Check]:
        """What can be wrong with a line of ``photo`` (rows,) under ``condition`` (rows,): both as places."""
        classes = self._facts.model.num_classes
        seed, eps, change = table.column("seed").to_numpy(), numbers(table, "eps"), _change(table)
        return [
            (
                self._success_contradicts(unit, table, photo, condition),
                lambda _: "success is not what the prediction and the classes of the photo say in the row of",
            ),
            (
                _differs(unit, table, photo),
                lambda _: "hash, label, target class or exclusion is not that of the photo in run.json in the row of",
            ),
            (
                np.maximum(numbers(table, "prediction"), numbers(table, "clean_prediction")) >= classes,
                lambda _: "the prediction is a class that the model has not in the row of",
            ),
            (
                seed != self._facts.settings.seed,
                lambda at: f"the seed is {seed[at]} and not the run's {self._facts.settings.seed} in the row of",
            ),
            (
                self._other_budget(table, condition),
                lambda at: (
                    f"the budget is {eps[at]:g} in {quoted(table.column('perturbation')[at].as_py())} and not "
                    "the run's in the row of"
                ),
            ),
            (
                change > eps * 1.01 + _HALF_A_LEVEL,
                lambda at: (
                    f"the image was changed by {change[at]:g}, more than its budget of {eps[at]:g} in the row of"
                ),
            ),
        ]

    def _success_contradicts(
        self, unit: Unit, table: pa.Table, photo: NDArray[np.int64], condition: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Where the success of a line is not what its goal makes of its prediction, as far as the line tells."""
        success, prediction = numbers(table, "success") > 0, numbers(table, "prediction")
        label, target = (_told(unit, name)[photo] for name in ("label", "target"))
        moved = np.abs(numbers(table, "confidence") - numbers(table, "clean_confidence"))
        of_a_goal = {
            "none": success,
            "target": success != (prediction == target),
            "other": success & (prediction == label),
            "kept": success & ((prediction != label) | (moved > TOLERANCE + _ROUNDING)),
        }
        wrong = np.zeros(len(table), dtype=bool)
        for place, (one, goal) in enumerate(self._goals.items()):
            kind = "none" if one == NONE else "target" if goal is None else goal.label
            wrong |= of_a_goal[kind] & (condition == place)
        return wrong

    def _other_budget(self, table: pa.Table, condition: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where a line has another budget than the run's."""
        wrong, eps = np.zeros(len(table), dtype=bool), numbers(table, "eps")
        for one, model in self._budgets.items():
            other = (codes(table, "perturbation", {model.name: 0}) != 0) | (eps != model.eps)
            wrong |= other & (condition == self._places[one])
        return wrong


def _differs(unit: Unit, table: pa.Table, photo: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the facts of a photo are not those of run.json."""
    wrong = np.zeros(len(table), dtype=bool)
    for name in ("label", "label_given", "target"):
        wrong |= numbers(table, name) != _told(unit, name)[photo]
    for name, column in (("sha256", "image_sha256"), ("excluded", "excluded")):
        known: dict[str | None, int] = {}
        expected = np.array([known.setdefault(getattr(one, name), len(known)) for one in unit.photos])
        wrong |= codes(table, column, known) != expected[photo]
    return wrong


def _told(unit: Unit, name: str) -> NDArray[np.float64]:
    return np.array([getattr(photo, name) for photo in unit.photos], dtype=np.float64)


def _change(table: pa.Table) -> NDArray[np.float64]:
    """How far (rows,) the images are from the benign ones, in the unit of their budgets."""
    change = numbers(table, "used")
    for norm in ("linf", "l2"):
        measured = np.where(codes(table, "perturbation", {norm: 0}) == 0, numbers(table, norm), 0)
        change = np.maximum(change, measured)
    return change


def _where(table: pa.Table, line: int) -> str:
    (row,) = rows_of_table(table.slice(line, 1))
    return f"{quoted(row.image_id)} under {row.condition} with the map of {row.interpreter}"
