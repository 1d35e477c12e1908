"""Rows laid out by photo, condition and interpreter, to compute with whole columns."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.rows import codes, conditions_of, numbers
from underfire.errors import InputError
from underfire.files import quoted


class RowGrid:
    """The rows of some photos, all of them, found by condition and interpreter and ordered by photo.

    The rows of excluded photos have no place in it.

    Args:
        table: a pyarrow.Table with the columns of `underfire.auditing.rows.SCHEMA`, in any order of its lines.

    Attributes:
        photos: their ids, sorted.
        conditions: of those that were not excluded, in the order of tables.
        interpreters: sorted.
        any_line: (photos,) a line of the table for each, for the facts that all of its rows share.
        excluded: the photos that were not attacked, with the reasons.

    Raises:
        InputError: two rows are of the same photo, condition and interpreter.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.photos: list[str] = sorted(set(table.column("image_id").to_pylist()))
        self.interpreters: tuple[str, ...] = tuple(sorted(set(table.column("interpreter").to_pylist())))
        named, which = conditions_of(table)
        self._order = tuple(sorted(named, key=rank))
        places = {condition: place for place, condition in enumerate(self._order)}
        photo = codes(table, "image_id", {name: place for place, name in enumerate(self.photos)})
        interpreter = codes(table, "interpreter", {name: place for place, name in enumerate(self.interpreters)})
        condition = np.array([places[one] for one in named], dtype=np.int64)[which]
        self.any_line = _first_lines(photo, [str(one) for one in self._order], condition, interpreter)
        self.excluded = self._excluded(photo)
        barred = np.array([name in self.excluded for name in self.photos], dtype=bool)[photo]
        kept = np.flatnonzero(~barred)
        shape = (len(self.photos), len(self._order), len(self.interpreters))
        self._place = np.full(shape, -1)
        self._place[photo[kept], condition[kept], interpreter[kept]] = kept
        there = np.flatnonzero((self._place >= 0).any(axis=(0, 2)))
        self.conditions = tuple(self._order[place] for place in there)
        self._check_once(kept, self._place[photo[kept], condition[kept], interpreter[kept]])

    def _excluded(self, photo: NDArray[np.int64]) -> dict[str, str]:
        reasons = self._table.column("excluded")
        lines = np.flatnonzero(reasons.is_valid().to_numpy())
        found = {self.photos[photo[line]]: reasons[int(line)].as_py() for line in lines[::-1]}
        return dict(sorted(found.items()))

    def _check_once(self, lines: NDArray[np.int64], placed: NDArray[np.int64]) -> None:
        for line in lines[lines != placed][:1].tolist():
            (twice,) = self._table.slice(line, 1).to_pylist()
            condition = Condition.of_columns(twice["attack"], twice["source"], twice["goal"])
            raise InputError(
                f"the run has two rows of {quoted(twice['image_id'])} under {condition} with the map of "
                f"{twice['interpreter']}; it mixes parts of several runs, so summarise each run by itself"
            )

    @cached_property
    def attacked(self) -> NDArray[np.bool_]:
        """Of which photos (photos,) there is a row of an attack."""
        attacks = [place for place, condition in enumerate(self._order) if not condition.is_control]
        return np.asarray((self._place[:, attacks] >= 0).any(axis=(1, 2)))

    def lines(self, condition: Condition, interpreter: str) -> NDArray[np.int64]:
        """The lines of the table (photos,) with the rows of a cell; −1 where a photo has none."""
        if condition not in self._order or interpreter not in self.interpreters:
            return np.full(len(self.photos), -1)
        return self._place[:, self._order.index(condition), self.interpreters.index(interpreter)]

    def photo_lines(self, condition: Condition) -> NDArray[np.int64]:
        """One line per photo (photos,) under a condition, whichever interpreter: for what maps have no part in."""
        if condition not in self._order:
            return np.full(len(self.photos), -1)
        placed = self._place[:, self._order.index(condition)]
        return np.asarray(placed[np.arange(len(placed)), np.argmax(placed >= 0, axis=1)])

    def values(self, name: str, lines: NDArray[np.int64]) -> NDArray[np.float64]:
        """A column of numbers, or of truths as 0 and 1, at some lines; NaN where it is null."""
        if name not in self._columns:
            self._columns[name] = numbers(self._table, name)
        return self._columns[name][lines]

    def taken(self, lines: NDArray[np.int64]) -> pa.Table:
        """The rows at some lines."""
        return self._table.take(pa.array(lines))

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.float64]]:
        return {}


def _first_lines(
    photo: NDArray[np.int64], conditions: Sequence[str], condition: NDArray[np.int64], interpreter: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A line of each photo, for the facts that all of its rows share: always the same one."""
    by_text = np.argsort(np.argsort(conditions)) if conditions else np.zeros(0, dtype=np.int64)
    ordered = np.lexsort((interpreter, by_text[condition], photo))
    return ordered[np.unique(photo[ordered], return_index=True)[1]]


def rank(condition: Condition) -> tuple[int, str, int, str]:
    """Controls, PGD, then the others by name; attacks on one interpreter before those on several."""
    known = (NONE, NOISE, PGD)
    place = known.index(condition) if condition in known else len(known)
    return place, condition.attack, len(condition.sources), str(condition)
