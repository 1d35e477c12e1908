"""Every attack of one who knows a detector: with each way to share a step among the maps, within one budget."""

from collections.abc import Sequence
from dataclasses import dataclass
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
class Trial:
    """What the attacker made of one set.

    Attributes:
        meter: of the attempts' values.
        attempts: by photo, one or several.
    """

    meter: Meter
    attempts: dict[str, list[Attempt]]


@dataclass(frozen=True)
class Attacker:
    """One who knows the detector that he attacks.

    Attributes:
        run: whose photos are attacked.
        photos: of the run.
        sharings: that he tries.
        passes: for a photo and each of them.
        work: where his images are kept.
        note: is told how he comes along.
    """

    run: Run
    photos: Sequence[PlannedPhoto]
    sharings: Sequence[Sharing]
    passes: int
    work: Path
    note: Note

    def on(
        self, detector: EnsembleDetector, perturbation: Perturbation, *, watched: Sequence[Contender], what: str
    ) -> Trial:
        """The trial of the fitted ``detector``; the values are those of all detectors ``watched``."""
        interpreters = detector.signals.interpreters
        meter = Meter(interpreters, watched, seed=detector.seed)
        tries: dict[str, list[Attempt]] = {photo.image_id: [] for photo in self.photos}
        for sharing in self.sharings if len(interpreters) > 1 else self.sharings[:1]:  # one map shares with none
            several = f", {sharing.name}" if len(self.sharings) > 1 else ""
            found = attempts(
                self.run,
                self.photos,
                detector,
                meter,
                perturbation=perturbation,
                sharing=sharing,
                passes=self.passes,
                work=self.work,
                note=self.note,
                what=f"{what}, {budget(perturbation.eps, perturbation.name)}{several}",
            )
            for photo, attempt in found.items():
                tries[photo].append(attempt)
        return Trial(meter, tries)
