"""Every attack of one who knows a detector: with several resources, and several ways to share a step among the maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from underfire.attacks.control import Sharing
from underfire.attacks.perturbations import Perturbation
from underfire.audit.plan import PlannedPhoto
from underfire.defenses.ensemble import EnsembleDetector
from underfire.report.wording import budget
from underfire.studies.defence_adaptive import Attempt, attempts
from underfire.studies.defence_measure import Contender, Meter
from underfire.studies.source import Note, Run


@dataclass(frozen=True)
class Resources:
    """What an attacker may spend on a photo.

    Attributes:
        perturbation: how far the image may be from the photo.
        passes: forward and backward, at most.
    """

    perturbation: Perturbation
    passes: int

    def __str__(self) -> str:
        return f"{budget(self.perturbation.eps, self.perturbation.name)}, {self.passes} passes"


@dataclass(frozen=True)
class Trial:
    """What the attacker made of one set.

    Attributes:
        resources: of every attempt.
        meter: of the attempts' values.
        attempts: by sharing and photo.
    """

    resources: Resources
    meter: Meter
    attempts: Mapping[str, Mapping[str, Attempt]]

    def alone(self, sharing: str) -> "Trial":
        """Its attempts by one of its sharings."""
        return replace(self, attempts={sharing: self.attempts[sharing]})


@dataclass(frozen=True)
class Attacker:
    """One who knows the detector that he attacks.

    Attributes:
        run: whose photos are attacked.
        photos: of the run.
        work: where his images are kept.
        note: is told how he comes along.
    """

    run: Run
    photos: Sequence[PlannedPhoto]
    work: Path
    note: Note

    def on(
        self,
        detector: EnsembleDetector,
        resources: Resources,
        sharings: Sequence[Sharing],
        *,
        watched: Sequence[Contender],
        what: str,
    ) -> Trial:
        """The trial of the fitted ``detector``; the values are those of all detectors ``watched``.

        A single map shares a step with none: it is attacked with the first of ``sharings`` alone.
        """
        interpreters = detector.signals.interpreters
        meter = Meter(interpreters, watched, seed=detector.seed)
        return Trial(
            resources,
            meter,
            {
                sharing.name: attempts(
                    self.run,
                    self.photos,
                    detector,
                    meter,
                    perturbation=resources.perturbation,
                    sharing=sharing,
                    passes=resources.passes,
                    work=self.work,
                    note=self.note,
                    what=f"{what}, {resources}" + (f", {sharing.name}" if len(sharings) > 1 else ""),
                )
                for sharing in (sharings if len(interpreters) > 1 else sharings[:1])
            },
        )
