"""What the detectors of a study see in clean photos and in the images of an audit, kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.audit.look import calling
from underfire.audit.plan import NOISE, PlannedPhoto
from underfire.classifier import Classifier
from underfire.images.files import quoted
from underfire.report.wording import plural
from underfire.seeding import content_key
from underfire.studies.defence_also import Attacked
from underfire.studies.defence_measure import Meter
from underfire.studies.harmless import changes
from underfire.studies.kept import kept, kept_together
from underfire.studies.pictures import opened
from underfire.studies.source import Note, Run
from underfire.training.photos import Photos, stacked

BENIGN = "benign"
_TOGETHER = 8  # clean photos measured at a time: about as fast as any more


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
    audited = {content_key(opened([run.picture(photo, BENIGN)], dtype)[0]): photo.image_id for photo in run.photos}
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


def clean_values(clean: CleanPhotos, meter: Meter, classifier: Classifier, folder: Path, *, note: Note) -> Tensor:
    """The signals (n, S) of ``clean`` photos in the order of their keys; ``folder`` keeps them, photo by photo."""

    def measure(keys: Sequence[str]) -> list[dict[str, Any]]:
        rows = [clean.rows[key] for key in keys]
        with calling([clean.photos.sources[row].image_id for row in rows]):
            values = meter.measure(stacked([clean.photos[row] for row in rows], classifier))
        return [{"values": line} for line in values.tolist()]

    pieces = kept_together(
        clean.keys,
        folder,
        key=str,
        size=_TOGETHER,
        measure=measure,
        read=lambda content: _numbers(content["values"], meter),
        what="clean photos",
        note=note,
    )
    return torch.stack([values for _, values in pieces])


def run_values(
    run: Run,
    photos: Sequence[PlannedPhoto],
    attacks: Mapping[str, Mapping[str, Attacked]],
    meter: Meter,
    classifier: Classifier,
    folder: Path,
    *,
    note: Note,
) -> dict[str, dict[str, Tensor]]:
    """By photo and by what was done to it, the signals (S,): untouched, changed harmlessly, and under ``attacks``.

    Harmless are the noise of the audit and :func:`underfire.studies.harmless.changes`.

    Raises:
        InputError: an image is missing or damaged, or a number is not finite.
    """

    def measure(photo: PlannedPhoto) -> dict[str, Any]:
        under = {name: found[photo.image_id].path for name, found in attacks.items() if photo.image_id in found}
        paths = {name: run.picture(photo, name) for name in (BENIGN, NOISE.key)} | under
        x = opened(list(paths.values()), classifier.dtype)
        changed = {change.name: change(x[0], photo.image_id) for change in changes(run.plan.seed)}
        x = torch.cat([x, torch.stack(list(changed.values()))])
        with calling([photo.image_id] * len(x)):
            values = meter.measure(x.to(classifier.device))
        return {"values": dict(zip([*paths, *changed], values.tolist(), strict=True))}

    pieces = kept(
        photos,
        folder,
        measure=measure,
        read=lambda content: {name: _numbers(line, meter) for name, line in content["values"].items()},
        what="images of the run",
        note=note,
    )
    return {photo.image_id: values for photo, values in pieces}


def harmless_names(seed: int = 0) -> tuple[str, ...]:
    """What was done harmlessly, by the names of :func:`run_values`."""
    return (NOISE.key, *(change.name for change in changes(seed)))


def _numbers(line: Sequence[float], meter: Meter) -> Tensor:
    values = torch.tensor(line, dtype=torch.float64)
    if values.shape != (len(meter.names),):
        raise ValueError(f"it has {len(line)} signals, not {len(meter.names)}")
    return values
