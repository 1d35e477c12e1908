"""What the detectors of a study see in clean photos and in the images of an audit, kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.auditing.condition import NOISE, NONE
from underfire.auditing.plan import PlannedPhoto
from underfire.evaluation.corruptions import changes
from underfire.evaluation.extra import Attacked
from underfire.evaluation.signal_cache import Ledger
from underfire.evaluation.signals import TOGETHER
from underfire.images.dataset import Photos
from underfire.images.files import quoted
from underfire.present.text import plural
from underfire.seeding import content_key
from underfire.studies.pictures import opened
from underfire.studies.source import Note, Run

BENIGN = "benign"


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

    @property
    def keys(self) -> tuple[str, ...]:
        """The contents, in the photos' order."""
        return tuple(self.rows)


def clean_photos(run: Run, photos: Photos, dtype: torch.dtype, *, note: Note) -> CleanPhotos:
    """``photos`` less those that show the same as one of ``run`` or as an earlier one; ``note`` is told their names."""
    audited = {content_key(opened([run.picture(photo, NONE)], dtype)[0]): photo.image_id for photo in run.photos}
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


def clean_values(clean: CleanPhotos, ledger: Ledger) -> Tensor:
    """The signals (n, S) of ``clean`` photos in the order of their keys.

    Raises:
        InputError: a kept file is damaged, or a number is not finite.
    """
    rows = list(clean.rows.values())
    parts = []
    for start in range(0, len(rows), TOGETHER):
        group = rows[start : start + TOGETHER]
        parts.append(
            ledger.values(
                torch.stack([clean.photos[row] for row in group]),
                names=[clean.photos.sources[row].image_id for row in group],
                what=f"clean photos: photo {start + len(group)} of {len(rows)}",
            )
        )
    return torch.cat(parts)


def run_values(
    run: Run,
    photos: Sequence[PlannedPhoto],
    attacks: Mapping[str, Mapping[str, Attacked]],
    ledger: Ledger,
    dtype: torch.dtype,
) -> dict[str, dict[str, Tensor]]:
    """By photo and by what was done to it, the signals (S,): untouched, changed harmlessly, and under ``attacks``.

    Harmless are the noise of the audit and :func:`underfire.evaluation.corruptions.changes`; images are of ``dtype``.

    Raises:
        InputError: an image is missing or damaged, a kept file is, or a number is not finite.
    """
    found = {}
    for place, photo in enumerate(photos, start=1):
        under = {name: some[photo.image_id].path for name, some in attacks.items() if photo.image_id in some}
        paths = {BENIGN: run.picture(photo, NONE), str(NOISE): run.picture(photo, NOISE)} | under
        x = opened(list(paths.values()), dtype)
        changed = {change.name: change(x[0], photo.image_id) for change in changes(run.plan.seed)}
        x = torch.cat([x, torch.stack(list(changed.values()))])
        what = f"images of the run: photo {place} of {len(photos)}"
        values = ledger.values(x, names=[photo.image_id] * len(x), what=what)
        found[photo.image_id] = dict(zip([*paths, *changed], values, strict=True))
    return found


def harmless_names(seed: int = 0) -> tuple[str, ...]:
    """What was done harmlessly, by the names of :func:`run_values`."""
    return (str(NOISE), *(change.name for change in changes(seed)))
