"""The attack on an audit's photos that knows the detector, kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from underfire.attacks.control import EVEN, FIXED, WORST, Sharing
from underfire.attacks.perturbations import Linf, Perturbation
from underfire.auditing.plan import PlannedPhoto
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.score_based import ScoreSearch
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.evaluation.attackers import Made, Maker, Struck, made_by, picture_in, strike
from underfire.evaluation.signal_cache import Ledger
from underfire.evaluation.signals import Contender
from underfire.studies.kept import identity
from underfire.studies.pictures import opened
from underfire.studies.source import Note, Run

SHARINGS: Mapping[str, Sharing] = MappingProxyType({sharing.name: sharing for sharing in (EVEN, FIXED, WORST)})
"""How the maps of several interpreters may share a step of the attack."""


@dataclass(frozen=True)
class Attempt:
    """What the attack made of one photo; all of the image as saved in 8 bit.

    Attributes:
        struck: label, confidence and passes.
        values: (S,) the signals of a meter.
        picture: where the image is.
    """

    struck: Struck
    values: Tensor
    picture: Path


@dataclass(frozen=True)
class Attempts:
    """Makes attempts at one detector, and keeps them.

    Every image is kept under a name that hangs on all that decides it and begins with the detector's, so that studies
    of other sets find it too.

    Attributes:
        run: an audit, whose labels, targets, names and seed are taken.
        photos: of it.
        contender: under attack.
        detector: that of the contender, fitted, and known to the attacker.
        ledger: keeps what its meter finds in the images.
        work: a folder for the images.
        note: is told how the attacks come along.
    """

    run: Run
    photos: Sequence[PlannedPhoto]
    contender: Contender
    detector: EnsembleDetector | FeatureSqueezing
    ledger: Ledger
    work: Path
    note: Note

    def descent(self, perturbation: Perturbation, passes: int, sharing: Sharing, *, what: str) -> dict[str, Attempt]:
        """By photo the attempt of :class:`AdaptiveADV2` within ``perturbation``.

        Raises:
            InputError: ``passes`` don't pay for a single step, a file is damaged, or a number is not finite.
        """
        seed = self.run.plan.seed
        attack = AdaptiveADV2(self.detector, perturbation=perturbation, passes=passes, sharing=sharing, seed=seed)
        shared = sharing.name if len(attack.interpreters) > 1 else None  # one map shares a step with none
        folder = self._folder(AdaptiveADV2.version, passes, shared, perturbation)
        return self._made(made_by(attack), perturbation, folder, self.photos, what)

    def searched(
        self, before: Mapping[str, Attempt], perturbation: Linf, passes: int, *, what: str
    ) -> dict[str, Attempt]:
        """By photo what :class:`ScoreSearch` makes of the attempt ``before``, with as many ``passes`` more at most.

        An attempt that is not flagged, or has not the label, is left as it is.

        Raises:
            InputError: as :meth:`descent`, or ``passes`` don't pay for two queries.
        """
        begun = {attempt.picture.parent.name for attempt in before.values()}
        dtype = self.detector.signals.classifier.dtype

        def make(photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> Made:
            start = opened([before[photo.image_id].picture for photo in photos], dtype).to(x.device)
            seed = self.run.plan.seed
            search = ScoreSearch(self.detector, start=start, eps=perturbation.eps, passes=passes, seed=seed)
            found = search(x, target, keys=[photo.image_id for photo in photos])
            return Made(found.x_adv, found.passes)

        folder = self._folder(ScoreSearch.version, "search", passes, perturbation, *sorted(begun))
        after = self._made(make, perturbation, folder, [p for p in self.photos if self._open(before[p.image_id])], what)
        for photo, attempt in after.items():
            together = before[photo].struck.passes + attempt.struck.passes
            after[photo] = replace(attempt, struck=replace(attempt.struck, passes=together))
        return {**before, **after}

    def _open(self, attempt: Attempt) -> bool:
        """Whether a search has something to do: the label is there, and the flag too."""
        columns = self.ledger.meter.columns(self.contender, self.detector)
        score = float(self.detector.density_.score(attempt.values[None, columns]))
        return attempt.struck.reached and score < self.detector.threshold_

    def _folder(self, *facts: object) -> Path:
        """That of the images that ``facts``, audit, classifier and detector decide."""
        detector, run = self.detector, self.run
        fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
        version, *others = facts
        fingerprint = detector.signals.classifier.fingerprint()
        return self.work / f"{self.contender.key}-{identity(run, version, fingerprint, fit, *others, run.plan.seed)}"

    def _made(
        self, make: Maker, perturbation: Perturbation, folder: Path, photos: Sequence[PlannedPhoto], what: str
    ) -> dict[str, Attempt]:
        """Attacks ``photos``, and looks at what came out."""
        classifier, size = self.detector.signals.classifier, self.run.plan.batch_size
        struck = strike(self.run, photos, classifier, make, perturbation, folder, what=what, note=self.note)
        made: dict[str, Attempt] = {}
        for start in range(0, len(photos), size):
            group = photos[start : start + size]
            pictures = [picture_in(folder, photo) for photo in group]
            values = self.ledger.values(
                opened(pictures, classifier.dtype),
                names=[photo.image_id for photo in group],
                what=f"{what}: photo {start + len(group)} of {len(photos)} seen",
            )
            found = zip(group, values, pictures, strict=True)
            made |= {photo.image_id: Attempt(struck[photo], line, picture) for photo, line, picture in found}
        return made
