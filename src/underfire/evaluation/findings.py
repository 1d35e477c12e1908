"""What each detector made of every image, in the numbers that the study's tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.signals import SIGNALS, Signal
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.evaluation.extra import Attacked
from underfire.evaluation.signals import Contender, Meter
from underfire.evaluation.trials import Resources, Trial
from underfire.evaluation.values import BENIGN
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Seen:
    """What a detector says of an image; ``strictly``: at the stricter rate, None without photos enough for it."""

    score: float
    flagged: bool
    strictly: bool | None


@dataclass(frozen=True)
class Shot:
    """An attacked image: whether the classifier sees the target class, and what the detector says."""

    reached: bool
    seen: Seen

    @property
    def evaded(self) -> bool:
        """Whether the attacker has what they want: the label, and no flag."""
        return self.reached and not self.seen.flagged


@dataclass(frozen=True)
class AdaptiveShot(Shot):
    """An image of the attacker who knows a detector: with the probability of the target, and the passes it took."""

    confidence: float
    passes: int


@dataclass(frozen=True)
class Findings:
    """One detector.

    Attributes:
        key: ``grad+cam``, or a baseline's name.
        interpreters: whose maps it watches.
        is_set: no baseline.
        passes: that it takes for an image.
        clean: photos that it was fitted on, its threshold included.
        benign: by photo.
        harmless: by change and photo.
        attacks: by condition and photo.
        adaptive: by photo.
        resources: what that attacker might spend on a photo, in one attempt.
        steps: that these paid for; ``finalists``: how many late iterates were shown to the detector.
        sharings: how the maps shared a step of that attack, the strongest of them photo by photo.
        signals: which of its signals it has, in words; empty for all.
    """

    key: str
    interpreters: tuple[str, ...]
    is_set: bool
    passes: int
    clean: int
    benign: Mapping[str, Seen]
    harmless: Mapping[str, Mapping[str, Seen]]
    attacks: Mapping[str, Mapping[str, Shot]]
    adaptive: Mapping[str, AdaptiveShot]
    resources: Resources
    steps: int
    finalists: int
    sharings: tuple[str, ...]
    signals: str = ""


@dataclass(frozen=True)
class Measured:
    """All values that detectors are fitted and asked on.

    Attributes:
        meter: what their columns are.
        keys: of the clean photos.
        clean: (n, S).
        images: by photo and by what was done to it, (S,).
        attacks: by condition and photo.
        harmless: what else was done to the photos, by name.
    """

    meter: Meter
    keys: tuple[str, ...]
    clean: Tensor
    images: Mapping[str, Mapping[str, Tensor]]
    attacks: Mapping[str, Mapping[str, Attacked]]
    harmless: tuple[str, ...]


class Judge:
    """A detector of ``contender`` on some of its signals, fitted at each of ``rates``, the named one first."""

    def __init__(
        self,
        contender: Contender,
        measured: Measured,
        classifier: Classifier,
        *,
        rates: Sequence[float],
        seed: int,
        signals: Sequence[type[Signal]] = SIGNALS,
    ) -> None:
        self.contender, self._measured = contender, measured
        made = [contender.detector(classifier, fpr=rate, seed=seed, signals=signals) for rate in rates]
        self._columns = measured.meter.columns(contender, made[0])
        self.fitted = [detector.fit_measured(measured.clean[:, self._columns], measured.keys) for detector in made]

    def seen(self, values: Tensor, meter: Meter | None = None) -> Seen:
        """What it says of an image by the signals ``values`` (S,) of ``meter``, by default that of the study."""
        columns = self._columns if meter is None else meter.columns(self.contender, self.fitted[0])
        score = float(self.fitted[0].density_.score(values[None, columns]))
        flags = [score < detector.threshold_ for detector in self.fitted]
        return Seen(score, flags[0], flags[1] if len(flags) > 1 else None)

    @property
    def detector(self) -> EnsembleDetector | FeatureSqueezing:
        """The detector at the named rate."""
        return self.fitted[0]

    def _strongest(self, trial: Trial) -> dict[str, AdaptiveShot]:
        """By photo the strongest of several adaptive attempts.

        One that reached the label comes before one that did not, and then that with the higher score. Its passes are
        those of all attempts together.
        """
        several = list(trial.attempts.values())
        found = {}
        for photo in several[0]:
            tries = [attempts[photo] for attempts in several]
            passes = sum(a.struck.passes for a in tries)
            shots = [
                AdaptiveShot(a.struck.reached, self.seen(a.values, trial.meter), a.struck.confidence, passes)
                for a in tries
            ]
            found[photo] = max(shots, key=lambda shot: (shot.reached, shot.seen.score))
        return found

    def findings(self, trial: Trial, *, signals: str = "") -> Findings:
        """What it makes of all images, and of the ``trial`` of one who knew it, or all of its signals."""
        measured = self._measured
        images = measured.images
        return Findings(
            key=self.contender.key,
            interpreters=tuple(g.name for g in self.contender.interpreters),
            is_set=self.contender.is_set,
            passes=self.fitted[0].signals.passes_per_image,
            clean=len(measured.keys),
            benign={photo: self.seen(found[BENIGN]) for photo, found in images.items()},
            harmless={
                change: {photo: self.seen(found[change]) for photo, found in images.items()}
                for change in measured.harmless
            },
            attacks={
                condition: {p: Shot(a.reached, self.seen(images[p][condition])) for p, a in attacked.items()}
                for condition, attacked in measured.attacks.items()
            },
            adaptive=self._strongest(trial),
            resources=trial.resources,
            steps=trial.steps,
            finalists=trial.finalists,
            sharings=tuple(trial.attempts),
            signals=signals,
        )
