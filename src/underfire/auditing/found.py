"""The rows that are there of a run: in memory where they are few, read from their parts again and again where not."""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

import pyarrow as pa

from underfire.auditing.facts import RunFacts
from underfire.auditing.store import RunDirectory
from underfire.auditing.verification import verified_tables

MOST_HELD = 2000
"""Photos of a run up to which its rows stay in memory."""


@dataclass(frozen=True)
class FoundRows:
    """The rows of the parts that are there, each verified whenever it is read.

    Attributes:
        parts: the numbers of these parts.
        tables: gives their rows part by part, in the order of their numbers, as tables of
            `underfire.auditing.rows.read_table`. It raises `InputError` where a part is no longer the run's.
    """

    parts: Set[int]
    tables: Callable[[], Iterator[pa.Table]]

    @classmethod
    def of_run(cls, directory: RunDirectory, facts: RunFacts) -> "FoundRows":
        """Those of a run; raises `InputError` as `verified_tables` does."""
        if len(facts.photos) <= MOST_HELD:
            held = dict(verified_tables(directory, facts))
            return cls(held.keys(), lambda: iter(held.values()))
        parts = frozenset(number for number, _ in verified_tables(directory, facts))
        return cls(parts, lambda: (table for _, table in verified_tables(directory, facts)))
