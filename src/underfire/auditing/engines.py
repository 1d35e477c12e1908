"""Where units are worked on: in this process, or on the processes and machines of a Ray cluster."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from underfire.auditing.given import NOTHING_GIVEN, GivenParts
from underfire.auditing.plan import AuditPlan, Unit
from underfire.auditing.ray_pool import RayPool, as_actor
from underfire.auditing.store import RunDirectory
from underfire.auditing.unit import Auditor, Event
from underfire.files import quoted
from underfire.models.classifier import Classifier


class Engine(Protocol):
    """Works on units in any order and tells what is done."""

    def run(self, units: Sequence[Unit]) -> Iterator[Event]:
        """Works on all ``units``; stops at the first error, which is raised."""
        ...


class LocalEngine:
    """One unit after the other, in this process."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def run(self, units: Sequence[Unit]) -> Iterator[Event]:
        """Works on all ``units`` in order."""
        for unit in units:
            yield from self._auditor.run(unit)


class RayEngine:
    """The actors of a pool, each with a copy of the model."""

    def __init__(
        self,
        plan: AuditPlan,
        classifier: Classifier,
        directory: RunDirectory,
        *,
        pool: RayPool,
        given: GivenParts = NOTHING_GIVEN,
    ) -> None:
        given.check_portable()
        self._given, self._pool = given, pool
        self._plan = anywhere(plan)
        self._classifier = classifier
        self._directory = replace(directory, path=directory.path.resolve())

    def run(self, units: Sequence[Unit]) -> Iterator[Event]:
        """Works on all ``units``, each by the actor that is free first."""
        facts = self._plan, self._directory, self._given
        sweep = self._directory.sweep
        for _, events in self._pool.run(units, _AuditWorker, self._classifier, *facts, named=_named, lost=sweep):
            yield from events


def anywhere(plan: AuditPlan) -> AuditPlan:
    """``plan`` with the file that it names by its whole path: actors have their own current directory."""
    return plan if plan.rts is None else replace(plan, rts=str(Path(plan.rts).resolve()))


def _named(unit: Unit) -> str:
    return f"part {unit.number} ({', '.join(quoted(photo.image_id) for photo in unit.photos)})"


class _AuditWorker:
    """An `Auditor` in a process of its own."""

    def __init__(self, classifier: Classifier, plan: AuditPlan, directory: RunDirectory, given: GivenParts) -> None:
        as_actor()
        self._auditor = Auditor(plan, classifier, directory, given=given)

    def run(self, unit: Unit) -> list[Event]:
        """Works on ``unit`` to its end."""
        return list(self._auditor.run(unit))
