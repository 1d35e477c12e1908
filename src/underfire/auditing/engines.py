"""Where units are worked on: in this process, or on the processes and machines of a Ray cluster."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from underfire.auditing.given import NOTHING_GIVEN, GivenParts
from underfire.auditing.plan import AuditPlan, PlannedPhoto, Unit
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
        found = self._pool.run(
            units, _AuditWorker, self._classifier, *facts, named=_named, files=_files, lost=self._directory.sweep
        )
        for unit, (events, made) in found:
            if made is not None:
                self._directory.take(unit, made)
            yield from events


def anywhere(plan: AuditPlan) -> AuditPlan:
    """``plan`` with the file that it names by its whole path: actors have their own current directory."""
    return plan if plan.rts is None else replace(plan, rts=str(Path(plan.rts).resolve()))


@contextmanager
def readable(photos: Sequence[PlannedPhoto], contents: Sequence[bytes] | None) -> Iterator[tuple[PlannedPhoto, ...]]:
    """``photos`` where this process can read them: their own files, or for a while those of ``contents``."""
    if contents is None:
        yield tuple(photos)
        return
    with tempfile.TemporaryDirectory(prefix="underfire-") as folder:
        here = []
        for place, (photo, content) in enumerate(zip(photos, contents, strict=True)):
            file = Path(folder, str(place), Path(photo.file).name)
            file.parent.mkdir()
            file.write_bytes(content)
            here.append(replace(photo, file=str(file)))
        yield tuple(here)


def _files(unit: Unit) -> list[str]:
    return [photo.file for photo in unit.photos]


def _named(unit: Unit) -> str:
    return f"part {unit.number} ({', '.join(quoted(photo.image_id) for photo in unit.photos)})"


class _AuditWorker:
    """An `Auditor` in a process of its own."""

    def __init__(self, classifier: Classifier, plan: AuditPlan, directory: RunDirectory, given: GivenParts) -> None:
        as_actor()
        self._auditor = Auditor(plan, classifier, directory, given=given)

    def run(
        self, unit: Unit, contents: Sequence[bytes] | None
    ) -> tuple[list[Event], Mapping[tuple[str, ...], bytes] | None]:
        """Works on ``unit`` to its end; with ``contents`` of its photos, what was made comes back too."""
        if contents is None:
            return list(self._auditor.run(unit)), None
        with (
            readable(unit.photos, contents) as photos,
            tempfile.TemporaryDirectory(prefix="underfire-") as folder,
        ):
            directory = replace(self._auditor.directory, path=Path(folder))
            self._auditor.directory = directory
            return list(self._auditor.run(replace(unit, photos=photos))), directory.made(unit)
