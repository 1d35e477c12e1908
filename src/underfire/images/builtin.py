"""The labelled photos that come with the package, so that a first audit needs nothing else."""

import csv
from pathlib import Path

from underfire.images.records import Photo, PhotoSet

_FOLDER = Path(__file__).parent / "photos"


def builtin_photos() -> PhotoSet:
    """Twelve photos in the public domain or under CC0, with their ImageNet-1k labels, by number.

    Authors, licences and sources are in the README beside them.
    """
    with (_FOLDER / "labels.csv").open(encoding="utf-8", newline="") as file:
        photos = tuple(
            Photo(row["file_name"], _FOLDER / row["file_name"], int(row["label"]), None) for row in csv.DictReader(file)
        )
    return PhotoSet(photos, ())
