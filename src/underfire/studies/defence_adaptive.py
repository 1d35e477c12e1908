"""The attack on an audit's photos that knows the detector, kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from underfire.attacks.control import EVEN, FIXED, WORST, Sharing
from underfire.attacks.perturbations import Perturbation
from underfire.audit.plan import PlannedPhoto
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.studies.defence_strike import Struck, picture_in, strike
from underfire.studies.kept import identity
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
        struck: label, confidence and passes.
        values: (S,) the signals of a meter.
    """

    struck: Struck
    values: Tensor


def attempts(
    run: Run,
    photos: Sequence[PlannedPhoto],
    detector: EnsembleDetector | FeatureSqueezing,
    ledger: Ledger,
    *,
    contender: str,
    perturbation: Perturbation,
    sharing: Sharing,
    passes: int,
    work: Path,
    note: Note,
    what: str,
) -> dict[str, Attempt]:
    """By photo the attempt of the attacker who knows the fitted ``detector``, within the budget of ``perturbation``.

    Label, target, names and seed are the audit's. ``work`` keeps every image, under a name that hangs on all that
    decides it and begins with ``contender``, so that studies of other sets find it too; what the meter of ``ledger``
    finds in it is kept there.

    Raises:
        InputError: ``passes`` don't pay for a single step, a file is damaged, or a number is not finite.
    """
    classifier, size = detector.signals.classifier, run.plan.batch_size
    attack = AdaptiveADV2(detector, perturbation=perturbation, passes=passes, sharing=sharing, seed=run.plan.seed)
    shared = sharing.name if len(attack.interpreters) > 1 else None  # one map shares a step with none
    fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
    decides = (_ATTACK, classifier.fingerprint(), fit, passes, shared, perturbation, run.plan.seed)
    folder = work / f"{contender}-{identity(run, *decides)}"
    struck = strike(run, photos, attack, folder, what=what, note=note)
    made: dict[str, Attempt] = {}
    for start in range(0, len(photos), size):
        group = photos[start : start + size]
        values = ledger.values(
            opened([picture_in(folder, photo) for photo in group], classifier.dtype),
            names=[photo.image_id for photo in group],
            what=f"{what}: photo {start + len(group)} of {len(photos)} seen",
        )
        made |= {p.image_id: Attempt(struck[p], line) for p, line in zip(group, values, strict=True)}
    return made
