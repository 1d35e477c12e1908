"""The signals that detectors are fitted and tested on: of clean photos, and of an audit's images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.auditing.condition import NOISE, NONE
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.run import Run
from underfire.evaluation.corruptions import corruptions
from underfire.evaluation.detectors import SignalValues
from underfire.evaluation.extra_attacks import AttackedImage, AttackedImages, ObliviousAttack
from underfire.evaluation.signals import SignalCache
from underfire.files import quoted
from underfire.images.dataset import Photos
from underfire.images.png import read_pngs
from underfire.present.text import plural
from underfire.seeding import content_key
from underfire.studies.source import Note


@dataclass(frozen=True)
class MeasuredImage:
    """An attacked image with its signals."""

    image: AttackedImage
    signals: SignalValues


@dataclass(frozen=True)
class Measurements:
    """All signals that detectors are fitted and tested on.

    Attributes:
        clean: by key of the clean photo.
        benign: by photo of the audit.
        corrupted: by benign corruption and photo.
        attacked: by oblivious attack and photo; only photos that were attacked with it.
    """

    clean: Mapping[str, SignalValues]
    benign: Mapping[str, SignalValues]
    corrupted: Mapping[str, Mapping[str, SignalValues]]
    attacked: Mapping[ObliviousAttack, Mapping[str, MeasuredImage]]


def clean_rows(run: Run, photos: Photos, dtype: torch.dtype, *, note: Note) -> dict[str, int]:
    """The places of ``photos`` by their content, less those that show the same as one of ``run`` or an earlier one.

    These are noted by name.
    """
    pictures = {photo.image_id: [run.picture(photo, NONE)] for photo in run.photos}
    audited = {content_key(read_pngs(one, run.picture_shape, dtype)[0]): name for name, one in pictures.items()}
    rows: dict[str, int] = {}
    for row, source in enumerate(photos.sources):
        key = content_key(photos[row])
        same = audited.get(key) or (photos.sources[rows[key]].image_id if key in rows else None)
        if same is None:
            rows[key] = row
            continue
        whose = "the run's photo" if key in audited else "the clean photo"
        note(f"Left out clean photo {quoted(source.image_id)}: it shows the same as {whose} {quoted(same)}")
    if len(rows) < len(photos):
        note(f"{plural(len(photos) - len(rows), 'clean photo')} left out, {len(rows)} are fitted on")
    return rows


def clean_signals(photos: Photos, rows: Mapping[str, int], cache: SignalCache) -> dict[str, SignalValues]:
    """By key, the signals of those of ``photos`` whose places are ``rows``; raises as `SignalCache.values`."""
    places = list(rows.values())
    names = [photos.sources[place].image_id for place in places]

    def load(some: range) -> Tensor:
        return torch.stack([photos[places[index]] for index in some])

    return dict(zip(rows, cache.in_groups(names, load, what="clean photos: photo"), strict=True))


def measured(
    run: Run,
    photos: Sequence[PlannedPhoto],
    attacks: AttackedImages,
    clean: Mapping[str, SignalValues],
    cache: SignalCache,
    dtype: torch.dtype,
) -> Measurements:
    """``clean``, and the signals of ``photos`` of ``run``: benign, corrupted and attacked.

    Corruptions are the noise of the audit and :func:`underfire.evaluation.corruptions.corruptions`; images are of
    ``dtype``.

    Raises:
        InputError: an image is missing or damaged, a cached file is, or a number is not finite.
    """
    changes = corruptions(run.plan.seed)
    benign: dict[str, SignalValues] = {}
    corrupted: dict[str, dict[str, SignalValues]] = {name: {} for name in (str(NOISE), *changes)}
    attacked: dict[ObliviousAttack, dict[str, MeasuredImage]] = {attack: {} for attack in attacks}
    for place, photo in enumerate(photos, start=1):
        name = photo.image_id
        under = {attack: found[name] for attack, found in attacks.items() if name in found}
        paths = [run.picture(photo, NONE), *(image.path for image in under.values()), run.picture(photo, NOISE)]
        x = read_pngs(paths, run.picture_shape, dtype)
        x = torch.cat([x, torch.stack([corrupt(x[0], name) for corrupt in changes.values()])])
        what = f"images of the run: photo {place} of {len(photos)}"
        benign[name], *others = cache.values(x, names=[name] * len(x), what=what)
        for (attack, image), values in zip(under.items(), others[: len(under)], strict=True):
            attacked[attack][name] = MeasuredImage(image, values)
        for by_photo, values in zip(corrupted.values(), others[len(under) :], strict=True):
            by_photo[name] = values
    return Measurements(clean, benign, corrupted, attacked)
