"""The pictures and maps of a run's photos: what is there is used, what is missing stays missing."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from underfire.auditing.condition import Condition
from underfire.auditing.store import MAPS_FILE, picture_name
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images.png import read_pixels
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


def read_artifacts(folder: Path, conditions: Iterable[Condition], size: tuple[int, int]) -> Artifacts:
    """Reads the PNGs of ``conditions`` and the maps in ``folder``, a photo's artifacts; none of it need exist.

    Raises:
        InputError: a file is a link, damaged, or not what an audit writes: a PNG of another (height, width) than
            ``size``, a map that is larger.
    """
    paths = {condition: folder / picture_name(condition) for condition in sorted(conditions, key=str)}
    maps = folder / MAPS_FILE
    try:
        return Artifacts(
            {condition: read_pixels(path, size) for condition, path in paths.items() if os.path.lexists(path)},
            _read_maps(maps, size) if os.path.lexists(maps) else {},
        )
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; delete it, and the report goes without") from error


def _read_maps(path: Path, size: tuple[int, int]) -> dict[str, Map]:
    """The maps (h, w) in a file; raises `InputError` before one that is not within ``size`` is read."""
    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError("it is a link, or no file")
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 - the file cannot be iterated
                shape = file.get_slice(name).get_shape()
                if len(shape) != 2 or not all(1 <= n <= most for n, most in zip(shape, size, strict=True)):
                    raise ValueError(f"the map {name!r} is of shape {shape}")
            return {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:  # the last: a type that numpy has not
        raise InputError(f"{quoted(path)} does not hold maps that can be read: {error}.") from error
