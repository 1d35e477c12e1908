"""The pictures and maps of a run's photos: what is there is used, what is missing stays missing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from underfire.auditing.condition import Condition
from underfire.auditing.store import MAPS_FILE, picture_name
from underfire.present.pictures import Bytes, Map, read_photo


@dataclass(frozen=True)
class Artifacts:
    """The pictures and maps of one photo, as far as they can be read.

    Attributes:
        pictures: (H, W, 3) uint8.
        maps: by `map_name`, (h, w) float32.
        damaged: names of files that are there and cannot be read.
    """

    pictures: Mapping[Condition, Bytes]
    maps: Mapping[str, Map]
    damaged: tuple[str, ...]


def read_artifacts(folder: Path, conditions: Iterable[Condition]) -> Artifacts:
    """Reads the PNGs of ``conditions`` and the maps in ``folder``, a photo's artifacts; it need not exist."""
    pictures: dict[Condition, Bytes] = {}
    maps: dict[str, Map] = {}
    damaged: list[str] = []
    for condition in sorted(conditions, key=str):
        path = folder / picture_name(condition)
        if not path.is_file():
            continue
        try:
            pictures[condition] = read_photo(path)
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for a damaged PNG
            damaged.append(path.name)
    path = folder / MAPS_FILE
    if path.is_file():
        try:
            maps = {name: np.asarray(map_, np.float32) for name, map_ in load_file(path).items() if map_.ndim == 2}
        except (SafetensorError, OSError):
            damaged.append(path.name)
    return Artifacts(pictures, maps, tuple(damaged))
