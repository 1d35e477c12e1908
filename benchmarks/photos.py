"""Which photos a measurement takes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.quality.measure import Batch, batches
from underfire import Classifier, InputError
from underfire.images import Photo, find_photos

HELD_OUT = (Path(__file__).parent / "quality" / "held_out.txt", Path(__file__).with_name("rts_held_out.txt"))
"""Photos in both files chose no constant and trained nothing."""


def names_option(default: Sequence[Path] = ()) -> Callable[[Any], Any]:
    """``--names``, for `named_photos`, of a command whose parameter is ``lists``."""
    more = " Held out by default." if default else ""
    return click.option(
        "--names",
        "lists",
        multiple=True,
        default=default,
        type=click.Path(exists=True, path_type=Path),
        help=f"A file with the photos to use, one a line; those in all files where it is given again.{more}",
    )


def named_photos(classifier: Classifier, source: Path, lists: Sequence[Path]) -> Sequence[Photo]:
    """The photos in ``source`` and in all of the ``lists``."""
    found: Sequence[Photo] = find_photos([source], class_names=classifier.class_names).photos
    for names in lists:
        listed = set(names.read_text(encoding="utf-8").splitlines())
        found = [photo for photo in found if photo.image_id in listed]
    return found


def chosen_photos(classifier: Classifier, source: Path, lists: Sequence[Path], limit: int, size: int) -> list[Batch]:
    """At most ``limit`` photos in ``source`` and in all of the ``lists`` that the classifier gets right, by batches.

    Raises:
        InputError: there is none.
    """
    found = named_photos(classifier, source, lists)
    parts = list(batches(classifier, found, limit=limit, size=size))
    if not parts:
        raise InputError(f"{classifier.name} gets none of the {len(found)} photos in '{source}' right; give others.")
    return parts
