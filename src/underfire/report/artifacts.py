"""The pictures and maps of a run's photos: what is there is used, what is missing stays missing."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from underfire.auditing.condition import Condition
from underfire.auditing.maps import read_maps
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.store import MAPS_FILE, RunDirectory, picture_name
from underfire.errors import InputError
from underfire.images.png import Shape, read_shown
from underfire.present.pictures import Bytes, Map


@dataclass(frozen=True)
class Artifacts:
    """The pictures and maps of one photo that are there.

    Attributes:
        pictures: (H, W, 3) uint8.
        maps: by `map_name`, (h, w) float32.
    """

    pictures: Mapping[Condition, Bytes]
    maps: Mapping[str, Map]


def read_artifacts(
    directory: RunDirectory, photo: PlannedPhoto, conditions: Iterable[Condition], shape: Shape
) -> Artifacts:
    """Reads the PNGs of ``conditions`` and the maps among the artifacts of ``photo``; none of it need exist.

    Raises:
        InputError: a file is a link, damaged, or not what an audit writes: a PNG of another ``shape``, a map
            that is larger.
    """
    paths = {c: directory.artifact(photo, picture_name(c)) for c in sorted(conditions, key=str)}
    maps = directory.artifact(photo, MAPS_FILE)
    try:
        return Artifacts(
            {condition: read_shown(path, shape) for condition, path in paths.items() if os.path.lexists(path)},
            read_maps(maps, shape[1:]) if os.path.lexists(maps) else {},
        )
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; delete it, and the report goes without") from error
