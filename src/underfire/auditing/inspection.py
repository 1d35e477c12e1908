"""Before the first attack: which photos can be used, what the model sees, which class to aim at."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from underfire.auditing.facts import RunFacts
from underfire.auditing.look import predict
from underfire.auditing.plan import AuditPlan, PlannedPhoto, photo_key
from underfire.auditing.targets import NO_TARGET, POLICIES, choose_target, class_index
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import Photo, PhotoLoader, PhotoSet, Pixels, Skipped
from underfire.images.png import from_8bit
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Inspection:
    """The photos of a run, in order, and those it goes without."""

    photos: tuple[PlannedPhoto, ...]
    skipped: tuple[Skipped, ...]
    """What the sources left out already."""
    unusable: tuple[Skipped, ...]
    """Photos that could not be loaded, by image_id."""


def inspect_photos(
    plan: AuditPlan, classifier: Classifier, found: PhotoSet, *, strict: bool, loader: PhotoLoader | None = None
) -> Inspection:
    """Loads every photo once, up to the plan's limit, and decides label, target and exclusion of each.

    ``loader`` keeps what was decoded, for later. Raises `InputError` if no photo can be used or none has a target; with
    ``strict`` also if that holds of one. `ShortageError` if a photo cannot be decoded for now.
    """
    if plan.targets not in POLICIES:
        class_index(plan.targets, classifier.class_names)  # refused before any photo is looked at
    if strict and found.skipped:
        raise _refusal(found.skipped[0])
    loader = loader or PhotoLoader(classifier.preprocessing)
    unusable: list[Skipped] = []
    planned: list[PlannedPhoto] = []
    batch: list[tuple[Photo, Pixels]] = []
    for photo, pixels in _usable(found.photos, loader, unusable, strict=strict):
        batch.append((photo, pixels))
        full = len(batch) == plan.batch_size
        enough = len(planned) + len(batch) == plan.limit
        if full or enough:
            planned += _decide(plan, classifier, batch, first=len(planned), strict=strict)
            batch = []
        if enough:
            break
    if batch:
        planned += _decide(plan, classifier, batch, first=len(planned), strict=strict)
    if not planned:
        skipped = (*found.skipped, *unusable)
        why = f" ({quoted(skipped[0].name)}: {skipped[0].reason})" if skipped else ""
        raise InputError(f"there is no photo to audit: {len(skipped)} files were looked at and none can be used{why}")
    if all(photo.excluded == NO_TARGET for photo in planned):
        raise InputError("no photo has a target; targets 'given' needs a manifest's column 'target'")
    return Inspection(tuple(planned), found.skipped, tuple(unusable))


def check_unchanged(run: RunFacts, found: PhotoSet, limit: int | None) -> tuple[PlannedPhoto, ...]:
    """The photos of a run that exists; raises `InputError` unless ``found`` are the same, byte for byte."""
    planned = run.photos
    # By image_id: what a source skipped may bear the name of a photo that is in, as a second line for it does.
    unusable = {file.image_id for file in run.skipped}
    here = [photo for photo in found.photos if photo.image_id not in unusable]
    for old, new in zip(planned, here, strict=False):
        if old.image_id != new.image_id:
            raise InputError(
                f"this run's photo {quoted(old.image_id)} is {quoted(new.image_id)} now; "
                "give the same photos, or a new directory"
            )
        with new.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != old.sha256:
                raise InputError(
                    f"photo {quoted(new.path)} has changed since this run began; put it back, or give a new directory"
                )
    if len(here) < len(planned) or (len(here) > len(planned) and len(planned) != limit):
        raise InputError(
            f"this run has {len(planned)} photos, but {len(here)} are given now; give the same, or a new directory"
        )
    # The folder may have moved.
    return tuple(replace(old, file=str(new.path)) for old, new in zip(planned, here, strict=False))


def _usable(
    photos: Sequence[Photo], loader: PhotoLoader, unusable: list[Skipped], *, strict: bool
) -> Iterator[tuple[Photo, Pixels]]:
    """The photos that can be loaded; the others are added to ``unusable``."""
    for photo in photos:
        try:
            yield photo, loader.load(photo.path)
        except InputError as error:
            skip = Skipped(photo.image_id, str(error.__cause__ or error))  # the cause is the reason alone
            if strict:
                raise _refusal(skip) from error
            unusable.append(skip)


def _refusal(skip: Skipped) -> InputError:
    return InputError(f"{quoted(skip.name)} cannot be used: {skip.reason} (without strict it would be skipped)")


def _decide(
    plan: AuditPlan, classifier: Classifier, batch: Sequence[tuple[Photo, Pixels]], *, first: int, strict: bool
) -> list[PlannedPhoto]:
    x = from_8bit(torch.stack([pixels.pixels for _, pixels in batch]), classifier.dtype)
    seen = predict(classifier, x, names=[photo.image_id for photo, _ in batch])
    planned, chased = [], plan.chases_targets
    for position, ((photo, pixels), probabilities) in enumerate(zip(batch, seen, strict=True), start=first):
        label = int(probabilities.argmax()) if photo.label is None else photo.label
        shown = classifier.decision.assigned(probabilities)
        untargeted = plan.targets == "given" and photo.target is None and not strict and chased
        if untargeted or not chased:
            target = label  # rows have a target; it is aimed at by nothing
        else:
            target = choose_target(
                plan.targets,
                image_id=photo.image_id,
                label=label,
                shown=shown,
                given=photo.target,
                class_names=classifier.class_names,
                seed=plan.seed,
            )
        planned.append(
            PlannedPhoto(
                image_id=photo.image_id,
                key=photo_key(position, pixels.sha256),
                sha256=pixels.sha256,
                file=str(photo.path),
                label=label,
                label_given=photo.label is not None,
                target=target,
                excluded=NO_TARGET if untargeted else _exclusion(label, target if chased else None, shown),
            )
        )
    return planned


def _exclusion(label: int, target: int | None, shown: Sequence[int]) -> str | None:
    if label not in shown:
        return "misclassified"
    return "already the target" if target in shown else None
