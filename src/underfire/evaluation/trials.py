"""Every attack of one who knows a detector: with several resources, and several ways to share a step among the maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from underfire.attacks.control import Sharing
from underfire.attacks.perturbations import Linf, Perturbation
from underfire.auditing.condition import PGD
from underfire.auditing.names import make_perturbation
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.defenses.adaptive import finalists_for, steps_for
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.errors import InputError
from underfire.evaluation.adaptive import Attempt, Attempts
from underfire.evaluation.signal_cache import Ledger
from underfire.evaluation.signals import Contender, Meter
from underfire.interpreters import Interpreter
from underfire.present.text import budget
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

    @classmethod
    def of(cls, plan: AuditPlan, passes: int) -> Self:
        """``passes`` within the budget of PGD in an audit with ``plan``."""
        return cls(plan.perturbation_of(PGD), passes)

    def __str__(self) -> str:
        return f"{budget(self.perturbation.eps, self.perturbation.name)}, {self.passes} passes"


def further(given: Resources, eps_grid: Sequence[float], passes_grid: Sequence[int]) -> tuple[Resources, ...]:
    """``given`` and those of the grids, in each of which one thing is changed, in rising order; none without grids.

    Raises:
        InputError: an ε is out of the range of the perturbation.
    """
    name = given.perturbation.name
    models = {eps: make_perturbation(name, eps) for eps in eps_grid} | {given.perturbation.eps: given.perturbation}
    along_eps = [replace(given, perturbation=models[eps]) for eps in sorted(models)]
    along_passes = [replace(given, passes=count) for count in sorted({*passes_grid, given.passes})]
    found = tuple(dict.fromkeys([*along_eps, *along_passes]))
    return found if len(found) > 1 else ()


@dataclass(frozen=True)
class Trial:
    """What the attacker made of one detector.

    Attributes:
        resources: of every attempt.
        steps: that these paid for; ``finalists``: how many late iterates were shown to the detector.
        meter: of the attempts' values.
        attempts: by sharing and photo.
    """

    resources: Resources
    steps: int
    finalists: int
    meter: Meter
    attempts: Mapping[str, Mapping[str, Attempt]]

    def alone(self, sharing: str) -> "Trial":
        """Its attempts by one of its sharings."""
        return replace(self, attempts={sharing: self.attempts[sharing]})


@dataclass(frozen=True)
class Attacker:
    """One who knows the detector under attack.

    Attributes:
        run: whose photos are attacked.
        photos: of the run.
        interpreters: of the study.
        work: where the images are kept.
        values: where is kept what detectors see in them.
        note: is told how it comes along.
    """

    run: Run
    photos: Sequence[PlannedPhoto]
    interpreters: Sequence[Interpreter]
    work: Path
    values: Path
    note: Note

    def on(
        self,
        contender: Contender,
        detector: EnsembleDetector | FeatureSqueezing,
        resources: Resources,
        sharings: Sequence[Sharing],
        *,
        what: str,
    ) -> Trial:
        """The trial of the fitted ``detector`` of ``contender``.

        A detector that watches fewer than two maps is attacked with the first of ``sharings`` alone.
        """
        attempts = self._attempts(contender, detector)
        several = sharings if len(contender.interpreters) > 1 else sharings[:1]
        named = {s: f"{what}, {resources}" + (f", {s.name}" if len(sharings) > 1 else "") for s in several}
        found = {
            s.name: attempts.descent(resources.perturbation, resources.passes, s, what=said)
            for s, said in named.items()
        }
        steps, finalists = (count(resources.passes, detector.signals) for count in (steps_for, finalists_for))
        return Trial(resources, steps, finalists, attempts.ledger.meter, found)

    def searching(
        self,
        contender: Contender,
        detector: EnsembleDetector | FeatureSqueezing,
        trial: Trial,
        passes: int,
        *,
        what: str,
    ) -> Trial:
        """``trial``, with a search by the score alone that goes on from each of the images of its first sharing."""
        attempts = self._attempts(contender, detector)
        sharing, before = next(iter(trial.attempts.items()))
        perturbation = trial.resources.perturbation
        assert isinstance(perturbation, Linf)  # noqa: S101 - see `check_search`
        after = attempts.searched(before, perturbation, passes, what=f"{what}, search of {passes} passes")
        return replace(trial, attempts={**trial.attempts, sharing: after})

    def _attempts(self, contender: Contender, detector: EnsembleDetector | FeatureSqueezing) -> Attempts:
        watched = contender.interpreters or self.interpreters
        meter = Meter(watched, [contender], seed=detector.seed, shared=contender.is_set)
        ledger = Ledger(self.values, meter, self.note)
        return Attempts(self.run, self.photos, contender, detector, ledger, self.work, self.note)


def check_search(plan: AuditPlan) -> None:
    """Refuse a search by the score where ``plan`` lets an attack change images otherwise; raises `InputError`."""
    perturbation = Resources.of(plan, 1).perturbation
    if not isinstance(perturbation, Linf):
        raise InputError(
            f"the search knows the perturbation 'linf' alone, not '{perturbation.name}'; leave --search out"
        )
