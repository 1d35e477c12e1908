"""The attack on an audit's photos that knows the detector, kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from underfire.attacks.control import EVEN, FIXED, WORST, Sharing
from underfire.attacks.perturbations import Perturbation
from underfire.audit.plan import PlannedPhoto
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.interpreters import Interpreter
from underfire.studies.defence_strike import strike
from underfire.studies.kept import identity, kept_together
from underfire.studies.ledger import Ledger
from underfire.studies.pictures import opened
from underfire.studies.source import Note, Run

SHARINGS: Mapping[str, Sharing] = MappingProxyType({sharing.name: sharing for sharing in (EVEN, FIXED, WORST)})
"""How the maps of several interpreters may share a step of the attack."""


_ATTACK = 2
"""Raised when :class:`AdaptiveADV2` makes other images, so that old ones are not taken for its."""


@dataclass(frozen=True)
class Attempt:
    """What the attack made of one photo; all of the image as saved in 8 bit.

    Attributes:
        reached: whether the classifier sees the target class.
        confidence: its probability, in [0, 1].
        passes: forward and backward, that the attack took.
        values: (S,) the signals of a meter.
    """

    reached: bool
    confidence: float
    passes: int
    values: Tensor


@dataclass(frozen=True)
class _Struck:
    """What is kept of an attempt beside its image."""

    reached: bool
    confidence: float
    passes: int


def attempts(
    run: Run,
    photos: Sequence[PlannedPhoto],
    detector: EnsembleDetector | FeatureSqueezing,
    beside: Sequence[Interpreter],
    ledger: Ledger,
    *,
    perturbation: Perturbation,
    sharing: Sharing,
    passes: int,
    work: Path,
    note: Note,
    what: str,
) -> dict[str, Attempt]:
    """By photo the attempt of the attacker who knows the fitted ``detector``, within the budget of ``perturbation``.

    The maps of ``beside`` are attacked as well where the detector watches none. Label, target, names and seed are the
    audit's. ``work`` keeps every image, under a name that hangs on all that decides it, so that studies of other sets
    find it too; what the meter of ``ledger`` finds in it is kept there.

    Raises:
        InputError: ``passes`` don't pay for a single step, a file is damaged, or a number is not finite.
    """
    classifier, size = detector.signals.classifier, run.plan.batch_size
    attack = AdaptiveADV2(
        detector, interpreters=beside, perturbation=perturbation, passes=passes, sharing=sharing, seed=run.plan.seed
    )
    fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
    decides = [_ATTACK, classifier.fingerprint(), fit, passes, sharing.name, perturbation, run.plan.seed]
    decides += [EnsembleDetector(beside).settings()["interpreters"]] if beside else []
    name = detector.kind if beside else "+".join(g.name for g in attack.interpreters)
    folder = work / f"{name}-{identity(run, *decides)}"

    def measure(some: Sequence[PlannedPhoto]) -> list[dict[str, Any]]:
        struck = strike(run, some, attack, folder)
        return [
            {"reached": reached, "confidence": confidence, "passes": count}
            for reached, confidence, count in zip(struck.reached, struck.confidence, struck.passes, strict=True)
        ]

    pieces = kept_together(
        photos, folder, key=lambda photo: photo.key, size=size, measure=measure, read=_struck, what=what, note=note
    )
    found = dict(pieces)
    made: dict[str, Attempt] = {}
    for start in range(0, len(photos), size):
        group = photos[start : start + size]
        values = ledger.values(
            opened([folder / f"{photo.key}.png" for photo in group], classifier.dtype),
            names=[photo.image_id for photo in group],
            what=f"{what}: photo {start + len(group)} of {len(photos)} seen",
        )
        for photo, line in zip(group, values, strict=True):
            one = found[photo]
            made[photo.image_id] = Attempt(one.reached, one.confidence, one.passes, line)
    return made


def _struck(content: Mapping[str, Any]) -> _Struck:
    return _Struck(bool(content["reached"]), float(content["confidence"]), int(content["passes"]))
