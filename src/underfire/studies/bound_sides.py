"""Both sides of Proposition 1, and of the bound over two classes, for every attacked image of an audit."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.auditing.condition import NONE, Condition
from underfire.auditing.look import calling
from underfire.auditing.plan import PlannedPhoto
from underfire.errors import InputError
from underfire.images import read_png
from underfire.images.levels import from_8bit
from underfire.interpreters.path import IncompleteError, PathAttribution
from underfire.models.classifier import Classifier
from underfire.studies.bound_statistics import Proposition1, TwoClass, logit_attributions, proposition_1, two_class
from underfire.studies.kept import identity, kept
from underfire.studies.source import Note, Run, attacked


@dataclass(frozen=True)
class Sides:
    """What was measured of one photo under one condition."""

    proposition: Proposition1
    classes: TwoClass


@dataclass(frozen=True)
class Tolerances:
    """Of completeness residuals: in units of probability, and of the logits."""

    probability: float
    logit: float


Measured = Mapping[str, Sides | None]
"""By condition; None where an integral does not come within its tolerance."""


def sides_of(
    run: Run, classifier: Classifier, tolerances: Tolerances, *, limit: int | None, work: Path, note: Note
) -> dict[str, Measured]:
    """By photo and condition (all but the benign input), on the images as saved in 8 bit.

    Each photo is kept in ``work`` when it is done, under a name that nothing else has, and not measured again. An image
    whose integral does not come within its tolerance is unresolved, and so is the photo whose benign image does not.

    Args:
        run: the audit.
        classifier: that of the audit.
        tolerances: of the integrals.
        limit: at most so many of the attacked photos, the first ones.
        work: a folder.
        note: is told of every photo.

    Raises:
        InputError: an image of the run is missing or damaged, or a number is not finite.
        BoundViolationError: an inequality that cannot fail has failed.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give a whole number of at least 1")
    pieces = kept(
        attacked(run.photos)[:limit],
        work / identity(run, classifier.fingerprint(), tolerances),
        measure=lambda photo: {
            name: None if both is None else asdict(both)
            for name, both in _measure(run, classifier, photo, tolerances).items()
        },
        read=lambda content: {name: _sides(both) for name, both in content.items()},
        what="both sides of the bounds",
        note=note,
    )
    return {photo.image_id: found for photo, found in pieces}


def _measure(run: Run, classifier: Classifier, photo: PlannedPhoto, tolerances: Tolerances) -> Measured:
    label, target = photo.label, photo.target

    def picture(condition: Condition) -> Tensor:
        pixels = (read_png(run.picture(photo, condition)) * 255).round().to(torch.uint8)
        return from_8bit(pixels, classifier.dtype).to(classifier.device)

    def against(benign: Tensor, before: PathAttribution, x: Tensor) -> Sides:
        after = logit_attributions(classifier, x, label=label, target=target, tolerance=tolerances.logit)
        return Sides(
            proposition_1(classifier, benign, x, label=label, target=target, tolerance=tolerances.probability),
            two_class(before, after),
        )

    conditions = [c for c in run.plan.conditions if c != NONE]
    benign = picture(NONE)
    found: dict[str, Sides | None] = dict.fromkeys(map(str, conditions))
    with calling([photo.image_id] * 4), suppress(IncompleteError):  # of whichever point of a pass
        before = logit_attributions(classifier, benign, label=label, target=target, tolerance=tolerances.logit)
        for condition in conditions:
            with suppress(IncompleteError):
                found[str(condition)] = against(benign, before, picture(condition))
    return found


def _sides(both: Mapping[str, Any] | None) -> Sides | None:
    return None if both is None else Sides(Proposition1(**both["proposition"]), TwoClass(**both["classes"]))
