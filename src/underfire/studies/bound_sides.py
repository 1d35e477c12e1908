"""Both sides of Proposition 1, and of the bound over two classes, for every attacked image of an audit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from underfire.analysis.bound import Proposition1, TwoClass, logit_attributions, proposition_1, two_class
from underfire.audit.look import calling
from underfire.audit.plan import NONE, PlannedPhoto
from underfire.audit.store import write_json
from underfire.classifier import Classifier
from underfire.errors import InputError
from underfire.images import read_png
from underfire.images.levels import from_8bit
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


def sides_of(
    run: Run, classifier: Classifier, tolerances: Tolerances, *, limit: int | None, work: Path, note: Note
) -> dict[str, dict[str, Sides]]:
    """By photo and condition (all but the benign input), on the images as saved in 8 bit.

    Each photo is kept in ``work`` when it is done, under a name that nothing else has, and not measured again.

    Args:
        run: the audit.
        classifier: that of the audit.
        tolerances: of the integrals.
        limit: at most so many of the attacked photos, the first ones.
        work: a folder.
        note: is told of every photo.

    Raises:
        InputError: an image of the run is missing or damaged, a number is not finite, or an integral does not come
            within its tolerance.
        BoundViolationError: an inequality that cannot fail has failed.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give a whole number of at least 1")
    photos = attacked(run.photos)[:limit]
    folder = work / _identity(run, classifier, tolerances)
    found = {}
    for position, photo in enumerate(photos, start=1):
        path = folder / f"{photo.key}.json"
        if not path.is_file():
            sides = _measure(run, classifier, photo, tolerances)
            write_json(path, {name: asdict(both) for name, both in sides.items()})
            note(f"both sides of the bounds: photo {position} of {len(photos)}")
        found[photo.image_id] = _read(path)
    return found


def _measure(run: Run, classifier: Classifier, photo: PlannedPhoto, tolerances: Tolerances) -> Mapping[str, Sides]:
    label, target = photo.label, photo.target

    def picture(name: str) -> Tensor:
        pixels = (read_png(run.picture(photo, name)) * 255).round().to(torch.uint8)
        return from_8bit(pixels, classifier.dtype).to(classifier.device)

    benign, found = picture("benign"), {}
    with calling([photo.image_id] * 4):  # of whichever point of a pass
        before = logit_attributions(classifier, benign, label=label, target=target, tolerance=tolerances.logit)
        for name in (c.key for c in run.plan.conditions if c != NONE):
            x = picture(name)
            after = logit_attributions(classifier, x, label=label, target=target, tolerance=tolerances.logit)
            found[name] = Sides(
                proposition_1(classifier, benign, x, label=label, target=target, tolerance=tolerances.probability),
                two_class(before, after),
            )
    return found


def _identity(run: Run, classifier: Classifier, tolerances: Tolerances) -> str:
    """A name for all that decides the sides: the images, the classifier and the tolerances."""
    images = sorted((row.image_sha256, row.condition, row.target, row.confidence_8bit) for row in run.rows)
    facts = (images, run.facts["created"], classifier.fingerprint(), tolerances)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Sides]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Sides(Proposition1(**both["proposition"]), TwoClass(**both["classes"]))
            for name, both in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); delete it to have it made again") from error
