"""The benchmark's own attacks on photos of an audit, cached photo by photo: oblivious, adaptive and score-based."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from underfire.attacks import ADV2
from underfire.attacks.control import FORMER_NAMES, MINIMAX, NORMALIZED, SUM, Weighting
from underfire.attacks.joint import JointAttack
from underfire.attacks.perturbations import Linf, Perturbation
from underfire.attacks.result import AttackResult
from underfire.auditing.cache import Cache, cache_key
from underfire.auditing.condition import NONE, PGD, Condition
from underfire.auditing.look import calling, predict
from underfire.auditing.names import make_perturbation
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.run import Run
from underfire.auditing.unit import save_and_read
from underfire.defenses.adaptive import AdaptiveADV2, finalists_for, steps_for
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.score_based import ScoreSearch
from underfire.evaluation.detectors import CandidateDetector
from underfire.evaluation.extra_attacks import AttackedImage, AttackedImages, ObliviousAttack
from underfire.evaluation.signals import FittedDetector, SignalCache, SignalExtractor
from underfire.images.png import read_pngs
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.text import budget
from underfire.studies.source import Note

WEIGHTINGS: Mapping[str, Weighting] = MappingProxyType({each.name: each for each in (NORMALIZED, SUM, MINIMAX)})
"""How the adaptive attack combines the gradients of several maps, by name."""


@dataclass(frozen=True)
class AttackBudget:
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

    @property
    def eps_title(self) -> str:
        """The ε in words."""
        return budget(self.perturbation.eps, self.perturbation.name)

    def __str__(self) -> str:
        return f"{self.eps_title}, {self.passes} passes"

    def along(self, eps_grid: Sequence[float], passes_grid: Sequence[int]) -> "tuple[AttackBudget, ...]":
        """This budget and those of the grids, each with one thing changed, in rising order; none without grids.

        Raises:
            InputError: an ε is out of the range of the perturbation.
        """
        name = self.perturbation.name
        models = {eps: make_perturbation(name, eps) for eps in eps_grid} | {self.perturbation.eps: self.perturbation}
        along_eps = [replace(self, perturbation=models[eps]) for eps in sorted(models)]
        along_passes = [replace(self, passes=count) for count in sorted({*passes_grid, self.passes})]
        found = tuple(dict.fromkeys([*along_eps, *along_passes]))
        return found if len(found) > 1 else ()


@dataclass(frozen=True)
class AttackRecord:
    """The outcome of an attack on one photo.

    Attributes:
        reached: whether the classifier's prediction for the image as saved in 8 bit is the target class.
        confidence: the target's probability, in [0, 1].
        passes: forward and backward, that the attack took.
    """

    reached: bool
    confidence: float
    passes: int


PhotoAttack = Callable[[Sequence[PlannedPhoto], Tensor, Tensor], AttackResult]
"""An attack on photos, given with their pictures (N, C, H, W) and target classes (N,)."""


def picture_in(folder: Path, photo: PlannedPhoto) -> Path:
    """Where the image of ``photo`` under an attack that is cached in ``folder`` is."""
    return folder / f"{photo.key}.png"


def on_photos(attack: JointAttack) -> PhotoAttack:
    """``attack``, towards the benign maps of the photos' labels where it is on maps."""

    def make(photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> AttackResult:
        labels = {"label": torch.tensor([p.label for p in photos]).to(x.device)} if attack.interpreters else {}
        return attack(x, target, keys=[p.image_id for p in photos], **labels)

    return make


def attack_photos(
    run: Run,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    attack: PhotoAttack,
    perturbation: Perturbation,
    folder: Path,
    *,
    what: str,
    note: Note,
) -> dict[PlannedPhoto, AttackRecord]:
    """Attacks ``photos`` of ``run`` towards their targets; ``folder`` caches images and records.

    Args:
        run: an audit.
        photos: of it.
        classifier: that of the audit.
        attack: on some of them.
        perturbation: within which the images are.
        folder: its name is a `cache_key` of all that decides the images.
        what: is noted with every photo that is attacked.
        note: receives it.

    Raises:
        InputError: an image of the run or a cached file is damaged, or a number is not finite.
    """

    def make(some: Sequence[PlannedPhoto]) -> list[AttackRecord]:
        names = [photo.image_id for photo in some]
        x = read_pngs([run.picture(photo, NONE) for photo in some], run.input_size, classifier.dtype)
        targets = torch.tensor([photo.target for photo in some])
        with calling(names):
            made = attack(some, x.to(classifier.device), targets.to(classifier.device))
        folder.mkdir(parents=True, exist_ok=True)
        paths = [picture_in(folder, photo) for photo in some]
        saved = save_and_read(made.x_adv.detach().cpu(), x, perturbation, paths)
        probabilities = predict(classifier, saved, names=names)
        reached = probabilities.argmax(dim=1) == targets
        confidence = probabilities.gather(1, targets[:, None])[:, 0]
        columns = (reached.tolist(), confidence.tolist(), made.passes.tolist())
        return [AttackRecord(*facts) for facts in zip(*columns, strict=True)]

    return dict(
        Cache(folder, encode=asdict, decode=_record).get_or_make(
            photos,
            lambda photo: photo.key,
            make,
            size=run.plan.batch_size,
            complete=lambda photo: picture_in(folder, photo).is_file(),
            made=lambda count: note(f"{what}: photo {count} of {len(photos)}"),
        )
    )


def _record(content: Mapping[str, Any]) -> AttackRecord:
    return AttackRecord(bool(content["reached"]), float(content["confidence"]), int(content["passes"]))


def oblivious_attack(
    run: Run,
    photos: Sequence[PlannedPhoto],
    interpreters: Sequence[Interpreter],
    spent: AttackBudget,
    *,
    work: Path,
    note: Note,
) -> AttackedImages:
    """ADV² on all ``interpreters`` at once, by an attacker who does not know that a detector uses their maps.

    None for a single interpreter: that attack is the audit's. ``work`` caches the images, photo by photo.

    Raises:
        InputError: the passes don't pay for a single step, a file is damaged, or a number is not finite.
    """
    if len(interpreters) < 2:
        return {}
    condition = Condition.on(ADV2.name, *(g.name for g in interpreters))
    perturbation, passes, seed = spent.perturbation, spent.passes, run.plan.seed
    attack = ADV2(interpreters, perturbation=perturbation, passes=passes, seed=seed)
    settings = EnsembleDetector(interpreters).settings()["interpreters"]
    facts = (ADV2.version, attack.classifier.fingerprint(), settings, perturbation, passes, seed)
    folder = work / f"{condition.source}-{cache_key(run, *facts)}"
    what = f"oblivious attack on all maps, {spent}"
    records = attack_photos(
        run, photos, attack.classifier, on_photos(attack), perturbation, folder, what=what, note=note
    )
    images = {photo.image_id: AttackedImage(picture_in(folder, photo), one.reached) for photo, one in records.items()}
    return {ObliviousAttack(condition): images}


@dataclass(frozen=True)
class AttackAttempt:
    """One attempt at one photo; all of the image as saved in 8 bit.

    Attributes:
        record: label, confidence and passes.
        signals: (S,) of an extractor.
        path: of the image.
    """

    record: AttackRecord
    signals: Tensor
    path: Path


@dataclass(frozen=True)
class AdaptiveEffort:
    """How an adaptive attacker tried to evade a detector.

    Attributes:
        budget: of one attempt at a photo.
        steps: that the budget pays for.
        finalists: how many late iterates the detector chose from.
        weightings: how the gradients of several maps were combined, one attempt for each.
        search_passes: further passes of a score-based attack; None without one.
    """

    budget: AttackBudget
    steps: int
    finalists: int
    weightings: tuple[str, ...]
    search_passes: int | None = None


@dataclass(frozen=True)
class AdaptiveTrial:
    """The attempts of an adaptive attacker at one detector.

    Attributes:
        effort: what was tried.
        extractor: of the attempts' signals.
        attempts: by weighting and photo.
    """

    effort: AdaptiveEffort
    extractor: SignalExtractor
    attempts: Mapping[str, Mapping[str, AttackAttempt]]

    def alone(self, weighting: str) -> "AdaptiveTrial":
        """The attempts with one of the weightings."""
        effort = replace(self.effort, weightings=(weighting,))
        return replace(self, effort=effort, attempts={weighting: self.attempts[weighting]})


@dataclass(frozen=True)
class AdaptiveAttacker:
    """An attacker who knows the detector under attack.

    Every image is cached under a name that depends on all that decides it and begins with the detector's, so that
    studies of other sets find it too.

    Attributes:
        run: an audit, whose labels, targets, names and seed are taken.
        photos: of the run.
        interpreters: of all detectors.
        work: caches the images.
        signal_folder: caches their signals.
        note: reports progress.
    """

    run: Run
    photos: Sequence[PlannedPhoto]
    interpreters: Sequence[Interpreter]
    work: Path
    signal_folder: Path
    note: Note

    def attack(
        self, fitted: FittedDetector, spent: AttackBudget, weightings: Sequence[Weighting], *, what: str
    ) -> AdaptiveTrial:
        """The attempts of :class:`AdaptiveADV2` at ``fitted``, one with each of ``weightings``.

        A detector that watches fewer than two maps is attacked with the first of them alone.

        Raises:
            InputError: the passes don't pay for a single step, a file is damaged, or a number is not finite.
        """
        cache, several = self._cache(fitted.candidate), len(fitted.candidate.interpreters) > 1
        passes, perturbation, seed = spent.passes, spent.perturbation, self.run.plan.seed
        former = {name: before for before, name in FORMER_NAMES.items()}
        attempts = {}
        for weighting in weightings if several else weightings[:1]:
            made = AdaptiveADV2(
                fitted.detector, perturbation=perturbation, passes=passes, weighting=weighting, seed=seed
            )
            # The gradient of a single map is combined with none; folders keep the names that weightings once had.
            combined = former[weighting.name] if several else None
            folder = self._folder(fitted, AdaptiveADV2.version, passes, combined, perturbation)
            said = f"{what}, {spent}" + (f", {weighting.name}" if len(weightings) > 1 else "")
            attempts[weighting.name] = self._attempts(
                self.photos, on_photos(made), perturbation, folder, cache, what=said
            )
        steps, finalists = (count(passes, fitted.detector.signals) for count in (steps_for, finalists_for))
        effort = AdaptiveEffort(spent, steps, finalists, tuple(attempts))
        return AdaptiveTrial(effort, cache.extractor, attempts)

    def search(self, fitted: FittedDetector, trial: AdaptiveTrial, passes: int, *, what: str) -> AdaptiveTrial:
        """``trial`` with a :class:`ScoreSearch` of ``passes`` more, from the attempts of its first weighting.

        An attempt that is not flagged, or has not the label, is left as it is.

        Raises:
            InputError: a file is damaged, a number is not finite, or ``passes`` don't pay for two queries.
        """
        weighting, before = next(iter(trial.attempts.items()))
        perturbation, seed = trial.effort.budget.perturbation, self.run.plan.seed
        assert isinstance(perturbation, Linf)  # noqa: S101 - see `check_options`
        eps, detector = perturbation.eps, fitted.detector
        flagged = [p for p in self.photos if _can_go_on(before[p.image_id], fitted, trial.extractor)]

        def make(photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> AttackResult:
            start = read_pngs([before[photo.image_id].path for photo in photos], self.run.input_size, x.dtype)
            attack = ScoreSearch(detector, start=start.to(x.device), eps=eps, passes=passes, seed=seed)
            return attack(x, target, keys=[photo.image_id for photo in photos])

        started = sorted({attempt.path.parent.name for attempt in before.values()})
        folder = self._folder(fitted, ScoreSearch.version, "search", passes, perturbation, *started)
        said = f"{what}, score-based attack of {passes} passes"
        after = self._attempts(flagged, make, perturbation, folder, self._cache(fitted.candidate), what=said)
        for photo, attempt in after.items():
            together = before[photo].record.passes + attempt.record.passes
            after[photo] = replace(attempt, record=replace(attempt.record, passes=together))
        effort = replace(trial.effort, search_passes=passes)
        return replace(trial, effort=effort, attempts={**trial.attempts, weighting: {**before, **after}})

    def _cache(self, candidate: CandidateDetector) -> SignalCache:
        watched = candidate.interpreters or self.interpreters
        extractor = SignalExtractor(watched, [candidate], seed=self.run.plan.seed, shared=candidate.is_set)
        return SignalCache(self.signal_folder, extractor, self.note)

    def _folder(self, fitted: FittedDetector, version: int, *facts: object) -> Path:
        """That of the images that ``facts``, audit, classifier, detector and the attack's ``version`` decide."""
        detector, run = fitted.detector, self.run
        fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
        key = cache_key(run, version, detector.signals.classifier.fingerprint(), fit, *facts, run.plan.seed)
        return self.work / f"{fitted.candidate.name}-{key}"

    def _attempts(
        self,
        photos: Sequence[PlannedPhoto],
        attack: PhotoAttack,
        perturbation: Perturbation,
        folder: Path,
        cache: SignalCache,
        *,
        what: str,
    ) -> dict[str, AttackAttempt]:
        """Attacks ``photos``, and measures what a detector sees of the images."""
        classifier, size = cache.extractor.classifier, self.run.plan.batch_size
        records = attack_photos(self.run, photos, classifier, attack, perturbation, folder, what=what, note=self.note)
        made: dict[str, AttackAttempt] = {}
        for start in range(0, len(photos), size):
            group = photos[start : start + size]
            paths = [picture_in(folder, photo) for photo in group]
            values = cache.values(
                read_pngs(paths, self.run.input_size, classifier.dtype),
                names=[photo.image_id for photo in group],
                what=f"{what}: signals of photo {start + len(group)} of {len(photos)}",
            )
            found = zip(group, values, paths, strict=True)
            made |= {photo.image_id: AttackAttempt(records[photo], line, path) for photo, line, path in found}
        return made


def _can_go_on(attempt: AttackAttempt, fitted: FittedDetector, extractor: SignalExtractor) -> bool:
    """Whether a search has something to do: the label is reached, and the image is flagged."""
    return attempt.record.reached and fitted.output(attempt.signals, extractor).flagged
