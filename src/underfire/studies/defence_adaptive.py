"""The attack on an audit's photos that knows the detector, kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from underfire.attacks.control import EVEN, FIXED, WORST, Sharing
from underfire.attacks.perturbations import Perturbation
from underfire.audit.look import calling
from underfire.audit.plan import PlannedPhoto
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.ensemble import EnsembleDetector
from underfire.studies.defence_measure import Meter
from underfire.studies.defence_strike import strike
from underfire.studies.kept import identity, kept_together
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


def attempts(
    run: Run,
    photos: Sequence[PlannedPhoto],
    detector: EnsembleDetector,
    meter: Meter,
    *,
    perturbation: Perturbation,
    sharing: Sharing,
    passes: int,
    work: Path,
    note: Note,
    what: str,
) -> dict[str, Attempt]:
    """By photo the attempt of the attacker who knows the fitted ``detector``, within the budget of ``perturbation``.

    Label, target, names and seed are the audit's. ``work`` keeps every image with what was measured on it, under a name
    that hangs on all that decides it, so that studies of other sets find it too.

    Raises:
        InputError: ``passes`` don't pay for a single step, a file is damaged, or a number is not finite.
    """
    classifier = detector.signals.classifier
    attack = AdaptiveADV2(detector, perturbation=perturbation, passes=passes, sharing=sharing, seed=run.plan.seed)
    fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
    decides = (_ATTACK, classifier.fingerprint(), fit, meter.names, passes, sharing.name, perturbation, run.plan.seed)
    folder = work / f"{'+'.join(g.name for g in detector.signals.interpreters)}-{identity(run, *decides)}"

    def measure(some: Sequence[PlannedPhoto]) -> list[dict[str, Any]]:
        struck = strike(run, some, attack, folder)
        with calling([photo.image_id for photo in some]):
            values = meter.measure(struck.saved)
        return [
            {"reached": reached, "confidence": confidence, "passes": count, "values": found}
            for reached, confidence, count, found in zip(
                struck.reached, struck.confidence, struck.passes, values.tolist(), strict=True
            )
        ]

    pieces = kept_together(
        photos,
        folder,
        key=lambda photo: photo.key,
        size=run.plan.batch_size,
        measure=measure,
        read=lambda content: _attempt(content, len(meter.names)),
        what=what,
        note=note,
    )
    return {photo.image_id: attempt for photo, attempt in pieces}


def _attempt(content: Mapping[str, Any], signals: int) -> Attempt:
    values = torch.tensor(content["values"], dtype=torch.float64)
    if values.shape != (signals,):
        raise ValueError(f"it has {len(values)} signals, not {signals}")
    return Attempt(bool(content["reached"]), float(content["confidence"]), int(content["passes"]), values)
