"""The benchmark's own attacks on photos of an audit, cached photo by photo: oblivious, adaptive and score-based."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from underfire.attacks import ADV2
from underfire.attacks.control import FORMER_NAMES, MINIMAX, NORMALIZED, SUM, Weighting
from underfire.attacks.joint import JointAttack
from underfire.attacks.perturbations import Perturbation
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
from underfire.evaluation.detectors import CandidateDetector, FittedDetector
from underfire.evaluation.extra_attacks import AttackedImage, AttackedImages, ObliviousAttack
from underfire.evaluation.measurements import MeasuredImage
from underfire.evaluation.signals import SignalCache, SignalExtractor, signal_folder
from underfire.images.png import read_pngs
from underfire.interpreters import Interpreter
from underfire.present.text import budget
from underfire.studies.source import Note

WEIGHTINGS: Mapping[str, Weighting] = MappingProxyType({each.name: each for each in (NORMALIZED, SUM, MINIMAX)})
"""How the adaptive attack combines the gradients of several maps, by name."""

PhotoAttack = Callable[[Sequence[PlannedPhoto], Tensor, Tensor], AttackResult]
"""An attack on photos, given with their pictures (N, C, H, W) and target classes (N,)."""


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

    def __str__(self) -> str:
        return f"{budget(self.perturbation.eps, self.perturbation.name)}, {self.passes} passes"

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
class AdaptiveEffort:
    """How an adaptive attacker tried to evade a detector; columns of the table.

    Attributes:
        eps: in the perturbation's unit.
        most_passes: that an attempt at a photo may take.
        steps: that these pay for, less those of a score-based attack.
        finalists: late iterates that the detector chose from.
        sharing: the weighting of several maps' gradients, ``normalized+minimax`` where the stronger attempt counts;
            None where a single map, or none, is attacked.
    """

    eps: float
    most_passes: int
    steps: int
    finalists: int
    sharing: str | None


@dataclass(frozen=True)
class AdaptiveTrial:
    """The attempts of an adaptive attacker at one detector: images by weighting and photo."""

    effort: AdaptiveEffort
    attempts: Mapping[str, Mapping[str, MeasuredImage]]

    def alone(self, weighting: str) -> "AdaptiveTrial":
        """The attempts with one of several weightings."""
        return AdaptiveTrial(replace(self.effort, sharing=weighting), {weighting: self.attempts[weighting]})


@dataclass(frozen=True)
class Attacker:
    """Attacks photos of an audit, knowing of no detector, or knowing the one under attack.

    Every image is cached under a name that depends on all that decides it and begins with what is attacked, so that
    studies of other sets find it too.

    Attributes:
        run: an audit, whose labels, targets, names and seed are taken.
        photos: of the run.
        interpreters: of all detectors.
        work: a folder that caches the images and their signals.
        note: reports progress.
    """

    run: Run
    photos: Sequence[PlannedPhoto]
    interpreters: Sequence[Interpreter]
    work: Path
    note: Note

    def oblivious(self, interpreters: Sequence[Interpreter], spent: AttackBudget) -> AttackedImages:
        """ADV² on all ``interpreters`` at once, by an attacker who does not know that a detector uses their maps.

        None for a single interpreter: that attack is the audit's.

        Raises:
            InputError: the passes don't pay for a single step, a file is damaged, or a number is not finite.
        """
        if len(interpreters) < 2:
            return {}
        condition = Condition.on(ADV2.name, *(g.name for g in interpreters))
        perturbation, passes, seed = spent.perturbation, spent.passes, self.run.plan.seed
        attack = ADV2(interpreters, perturbation=perturbation, passes=passes, seed=seed)
        settings = EnsembleDetector(interpreters).settings()["interpreters"]
        key = cache_key(self.run, ADV2.version, self._fingerprint, settings, perturbation, passes, seed)
        folder = self.work / "blind" / f"{condition.source}-{key}"
        what = f"oblivious attack on all maps, {spent}"
        return {ObliviousAttack(condition): self._images(self.photos, _on_photos(attack), perturbation, folder, what)}

    def adaptive(
        self, fitted: FittedDetector, spent: AttackBudget, weightings: Sequence[Weighting], *, what: str
    ) -> AdaptiveTrial:
        """The attempts of :class:`AdaptiveADV2` at ``fitted``, one with each of ``weightings``.

        A detector that watches fewer than two maps is attacked with the first of them alone.

        Raises:
            InputError: the passes don't pay for a single step, a file is damaged, or a number is not finite.
        """
        several = len(fitted.candidate.interpreters) > 1
        passes, perturbation, seed = spent.passes, spent.perturbation, self.run.plan.seed
        former = {name: before for before, name in FORMER_NAMES.items()}
        attempts = {}
        for weighting in weightings if several else weightings[:1]:
            attack = AdaptiveADV2(
                fitted.detector, perturbation=perturbation, passes=passes, weighting=weighting, seed=seed
            )
            # The gradient of a single map is combined with none; folders keep the names that weightings once had.
            combined = former[weighting.name] if several else None
            folder = self._folder(fitted, AdaptiveADV2.version, passes, combined, perturbation)
            said = f"{what}, {spent}" + (f", {weighting.name}" if len(weightings) > 1 else "")
            images = self._images(self.photos, _on_photos(attack), perturbation, folder, said)
            attempts[weighting.name] = self._measured(images, fitted.candidate, said)
        steps, finalists = (count(passes, fitted.detector.signals) for count in (steps_for, finalists_for))
        sharing = "+".join(attempts) if several else None
        return AdaptiveTrial(AdaptiveEffort(perturbation.eps, passes, steps, finalists, sharing), attempts)

    def search(
        self, fitted: FittedDetector, trial: AdaptiveTrial, spent: AttackBudget, passes: int, *, what: str
    ) -> AdaptiveTrial:
        """``trial`` within ``spent``, with a :class:`ScoreSearch` of ``passes`` more from the first weighting's images.

        An attempt that is not flagged, or has not the label, is left as it is.

        Raises:
            InputError: a file is damaged, a number is not finite, or ``passes`` don't pay for two queries.
        """
        weighting, before = next(iter(trial.attempts.items()))
        perturbation, seed = spent.perturbation, self.run.plan.seed

        def attack(photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> AttackResult:
            start = read_pngs([before[p.image_id].image.path for p in photos], self.run.picture_shape, x.dtype)
            start = start.to(x.device)
            search = ScoreSearch(fitted.detector, start=start, eps=perturbation.eps, passes=passes, seed=seed)
            return search(x, target, keys=[photo.image_id for photo in photos])

        reached = [photo for photo in self.photos if before[photo.image_id].image.reached]
        flagged = [photo for photo in reached if fitted.output(before[photo.image_id].signals).flagged]
        started = sorted({attempt.image.path.parent.name for attempt in before.values()})
        folder = self._folder(fitted, ScoreSearch.version, "search", passes, perturbation, *started)
        said = f"{what}, score-based attack of {passes} passes"
        images = self._images(flagged, attack, perturbation, folder, said)
        after = self._measured(images, fitted.candidate, said)
        for photo, attempt in after.items():
            together = before[photo].image.passes + attempt.image.passes
            after[photo] = replace(attempt, image=replace(attempt.image, passes=together))
        effort = replace(trial.effort, most_passes=spent.passes + passes)
        return AdaptiveTrial(effort, {**trial.attempts, weighting: {**before, **after}})

    @property
    def _fingerprint(self) -> str:
        return self.interpreters[0].classifier.fingerprint()

    def _folder(self, fitted: FittedDetector, version: int, *facts: object) -> Path:
        """That of the images that ``facts``, audit, classifier, detector and the attack's ``version`` decide."""
        detector = fitted.detector
        fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
        key = cache_key(self.run, version, self._fingerprint, fit, *facts, self.run.plan.seed)
        return self.work / "adaptive" / f"{fitted.candidate.name}-{key}"

    def _images(
        self, photos: Sequence[PlannedPhoto], attack: PhotoAttack, perturbation: Perturbation, folder: Path, what: str
    ) -> dict[str, AttackedImage]:
        """``photos`` under ``attack`` towards their targets, within ``perturbation``; ``folder`` caches them.

        ``what`` is noted with every photo that is attacked.

        Raises:
            InputError: an image of the run or a cached file is damaged, or a number is not finite.
        """
        classifier = self.interpreters[0].classifier

        def picture(photo: PlannedPhoto) -> Path:
            return folder / f"{photo.key}.png"

        def make(some: Sequence[PlannedPhoto]) -> list[dict[str, Any]]:
            names = [photo.image_id for photo in some]
            x = read_pngs([self.run.picture(p, NONE) for p in some], self.run.picture_shape, classifier.dtype)
            targets = torch.tensor([photo.target for photo in some])
            with calling(names):
                made = attack(some, x.to(classifier.device), targets.to(classifier.device))
            folder.mkdir(parents=True, exist_ok=True)
            saved = save_and_read(made.x_adv.detach().cpu(), x, perturbation, list(map(picture, some)))
            probabilities = predict(classifier, saved, names=names)
            reached = probabilities.argmax(dim=1) == targets
            confidence = probabilities.gather(1, targets[:, None])[:, 0]
            columns = zip(reached.tolist(), confidence.tolist(), made.passes.tolist(), strict=True)
            return [{"reached": r, "confidence": c, "passes": p} for r, c, p in columns]

        found = Cache(folder, encode=dict, decode=_facts).get_or_make(
            photos,
            lambda photo: photo.key,
            make,
            size=self.run.plan.batch_size,
            complete=lambda photo: picture(photo).is_file(),
            made=lambda count: self.note(f"{what}: photo {count} of {len(photos)}"),
        )
        return {photo.image_id: AttackedImage(picture(photo), **facts) for photo, facts in found}

    def _measured(
        self, images: Mapping[str, AttackedImage], candidate: CandidateDetector, what: str
    ) -> dict[str, MeasuredImage]:
        """``images``, with what the detector of ``candidate`` measures in them."""
        watched = candidate.interpreters or self.interpreters
        extractor = SignalExtractor(watched, [candidate], seed=self.run.plan.seed, shared=candidate.is_set)
        cache = SignalCache(signal_folder(self.run, extractor, self.work), extractor, self.note)
        paths = [image.path for image in images.values()]

        def load(some: range) -> Tensor:
            return read_pngs(paths[some.start : some.stop], self.run.picture_shape, extractor.classifier.dtype)

        said = f"{what}: signals of photo"
        found = cache.in_groups(list(images), load, what=said, size=self.run.plan.batch_size)
        return {
            photo: MeasuredImage(image, values) for (photo, image), values in zip(images.items(), found, strict=True)
        }


def _on_photos(attack: JointAttack) -> PhotoAttack:
    """``attack``, towards the benign maps of the photos' labels where it is on maps."""

    def make(photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> AttackResult:
        labels = {"label": torch.tensor([p.label for p in photos]).to(x.device)} if attack.interpreters else {}
        return attack(x, target, keys=[p.image_id for p in photos], **labels)

    return make


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, Callable[[Any], object]] = {"reached": bool, "confidence": float, "passes": int}
    return {name: kind(content[name]) for name, kind in kinds.items()}
