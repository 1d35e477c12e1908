"""The signals that detectors are fitted and tested on: of clean photos, and of an audit's images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.auditing.condition import NOISE, NONE
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.run import Run
from underfire.evaluation.corruptions import corruptions
from underfire.evaluation.extra_attacks import AttackedImages, ObliviousAttack
from underfire.evaluation.signals import TOGETHER, SignalCache, SignalExtractor
from underfire.files import quoted
from underfire.images.dataset import Photos
from underfire.images.png import read_pngs
from underfire.present.text import plural
from underfire.seeding import content_key
from underfire.studies.source import Note


@dataclass(frozen=True)
class CleanPhotos:
    """Photos to fit detectors on, none of which is in the audit.

    Attributes:
        photos: where they come from.
        rows: the place of each in ``photos``, by its content.
        left_out: how many show the same as a photo of the audit, or as another clean one.
    """

    photos: Photos
    rows: Mapping[str, int]
    left_out: int


def clean_photos(run: Run, photos: Photos, dtype: torch.dtype, *, note: Note) -> CleanPhotos:
    """``photos`` less those that show the same as one of ``run`` or as an earlier one, which are noted by name."""
    audited = {
        content_key(read_pngs([run.picture(photo, NONE)], run.input_size, dtype)[0]): photo.image_id
        for photo in run.photos
    }
    rows: dict[str, int] = {}
    left_out = 0
    for row, source in enumerate(photos.sources):
        key = content_key(photos[row])
        same = audited.get(key) or (photos.sources[rows[key]].image_id if key in rows else None)
        if same is None:
            rows[key] = row
            continue
        left_out += 1
        whose = "the run's photo" if key in audited else "the clean photo"
        note(f"Left out clean photo {quoted(source.image_id)}: it shows the same as {whose} {quoted(same)}")
    if left_out:
        note(f"{plural(left_out, 'clean photo')} left out, {len(rows)} are fitted on")
    return CleanPhotos(photos, rows, left_out)


@dataclass(frozen=True)
class ImageSignals:
    """The signals (S,) of one photo's images.

    Attributes:
        benign: of the photo itself.
        corrupted: by benign corruption.
        attacked: by attack; only those that the photo was attacked with.
    """

    benign: Tensor
    corrupted: Mapping[str, Tensor]
    attacked: Mapping[ObliviousAttack, Tensor]


@dataclass(frozen=True)
class Measurements:
    """All signals that detectors are fitted and tested on.

    Attributes:
        extractor: of the signals.
        clean: by key of the clean photo, (S,).
        images: by photo of the audit.
        attacks: by attack and photo.
    """

    extractor: SignalExtractor
    clean: Mapping[str, Tensor]
    images: Mapping[str, ImageSignals]
    attacks: AttackedImages


def measured(
    run: Run,
    photos: Sequence[PlannedPhoto],
    clean: CleanPhotos,
    attacks: AttackedImages,
    cache: SignalCache,
    dtype: torch.dtype,
) -> Measurements:
    """The signals of ``cache`` in ``clean`` photos, and in ``photos`` of ``run``: benign, corrupted and attacked.

    Corruptions are the noise of the audit and :func:`underfire.evaluation.corruptions.corruptions`; images are of
    ``dtype``.

    Raises:
        InputError: an image is missing or damaged, a cached file is, or a number is not finite.
    """
    names = {photo.image_id for photo in photos}
    return Measurements(
        extractor=cache.extractor,
        clean=_clean_signals(clean, cache),
        images={
            photo.image_id: _signals_of(run, photo, attacks, cache, dtype, f"photo {place} of {len(photos)}")
            for place, photo in enumerate(photos, start=1)
        },
        attacks={
            attack: {name: image for name, image in found.items() if name in names} for attack, found in attacks.items()
        },
    )


def _clean_signals(clean: CleanPhotos, cache: SignalCache) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    items = list(clean.rows.items())
    for start in range(0, len(items), TOGETHER):
        group = items[start : start + TOGETHER]
        values = cache.values(
            torch.stack([clean.photos[row] for _, row in group]),
            names=[clean.photos.sources[row].image_id for _, row in group],
            what=f"clean photos: photo {start + len(group)} of {len(items)}",
        )
        found |= zip([key for key, _ in group], values, strict=True)
    return found


def _signals_of(
    run: Run, photo: PlannedPhoto, attacks: AttackedImages, cache: SignalCache, dtype: torch.dtype, what: str
) -> ImageSignals:
    under = {attack: found[photo.image_id].path for attack, found in attacks.items() if photo.image_id in found}
    x = read_pngs([run.picture(photo, NONE), run.picture(photo, NOISE), *under.values()], run.input_size, dtype)
    corrupted = {corruption.name: corruption(x[0], photo.image_id) for corruption in corruptions(run.plan.seed)}
    x = torch.cat([x, torch.stack(list(corrupted.values()))])
    values = cache.values(x, names=[photo.image_id] * len(x), what=f"images of the run: {what}")
    benign, noise, *others = values
    return ImageSignals(
        benign=benign,
        attacked=dict(zip(under, others[: len(under)], strict=True)),
        corrupted={str(NOISE): noise} | dict(zip(corrupted, others[len(under) :], strict=True)),
    )
