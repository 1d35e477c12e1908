"""What a study works on: a finished audit, or photos of which is decided what an audit would do with them."""

from collections.abc import Callable, Sequence

from underfire.auditing.inspection import Inspection, inspect_photos
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.errors import InputError
from underfire.images import PhotoSet
from underfire.models.classifier import Classifier

Note = Callable[[str], None]
"""Is told how a study comes along, a line at a time."""


def quiet(_line: str) -> None:
    """A `Note` that nobody reads."""


def decide(plan: AuditPlan, photos: PhotoSet, classifier: Classifier) -> Inspection:
    """``photos`` with the label, target class and exclusion that an audit with ``plan`` gives each of them.

    Beside them are those that cannot be used, with the reasons.
    """
    return inspect_photos(plan, classifier, photos, strict=False)


def attacked(photos: Sequence[PlannedPhoto]) -> tuple[PlannedPhoto, ...]:
    """Those of ``photos`` that an audit attacks; raises `InputError` if there is none."""
    kept = tuple(photo for photo in photos if photo.excluded is None)
    if not kept:
        reasons = sorted({str(photo.excluded) for photo in photos})
        raise InputError(f"none of the {len(photos)} photos can be attacked ({', '.join(reasons)}); give others")
    return kept
