"""The labelled photos that come with a dependency, so that a first audit needs nothing else."""

import re
from importlib.util import find_spec
from pathlib import Path

from underfire.errors import InputError
from underfire.images.records import Photo, PhotoSet

_FILE_NAME = re.compile(r"imagenet_\d+_(\d+)\.jpg", re.ASCII)


def builtin_photos() -> PhotoSet:
    """The twenty ImageNet photos shipped with Foolbox, with their ImageNet-1k labels, by number.

    Foolbox is not imported: the photos are package data, found beside its code.

    Raises:
        InputError: Foolbox, or its photos, are not installed.
    """
    spec = find_spec("foolbox")
    folders = [] if spec is None else [Path(place) / "data" for place in spec.submodule_search_locations or ()]
    photos = tuple(
        Photo(path.name, path, int(match[1]), None)
        for folder in folders
        for path in sorted(folder.glob("imagenet_*.jpg"))
        if (match := _FILE_NAME.fullmatch(path.name))
    )
    if not photos:
        raise InputError("The built-in photos are missing; install foolbox 3.3 or name photos of your own.")
    return PhotoSet(photos, ())
