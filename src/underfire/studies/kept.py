"""What a study has measured of photos, kept on disk photo by photo, so that it can go on from there."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.store import write_json
from underfire.errors import InputError
from underfire.studies.source import Note, Run

P = TypeVar("P")
T = TypeVar("T")


def identity(run: Run, *facts: object) -> str:
    """A name for what is measured on the images of ``run``; ``facts``, by their repr, are all else that decides it."""
    images = sorted((row.image_sha256, str(row.condition), row.target, row.confidence_8bit) for row in run.records)
    return hashlib.sha256(repr((images, run.facts["created"], *facts)).encode()).hexdigest()[:16]


def kept(
    photos: Sequence[PlannedPhoto],
    folder: Path,
    *,
    measure: Callable[[PlannedPhoto], Mapping[str, Any]],
    read: Callable[[Any], T],
    what: str,
    note: Note,
) -> Iterator[tuple[PlannedPhoto, T]]:
    """Each of ``photos`` with what was measured of it, now or before.

    Args:
        photos: of an audit.
        folder: for one file per photo; its name is an `identity`, so that nothing else is found there.
        measure: a photo, what JSON can hold of it. Called only for photos that have no file yet.
        read: makes of that what a study works with.
        what: is told with every photo that is measured.
        note: is told it.

    Raises:
        InputError: a file is damaged; and whatever ``measure`` raises.
    """
    yield from kept_together(
        photos,
        folder,
        key=lambda photo: photo.key,
        size=1,
        measure=lambda some: [measure(photo) for photo in some],
        read=read,
        what=what,
        note=note,
    )


def kept_together(
    photos: Sequence[P],
    folder: Path,
    *,
    key: Callable[[P], str],
    size: int,
    measure: Callable[[Sequence[P]], Sequence[Mapping[str, Any]]],
    read: Callable[[Any], T],
    what: str,
    note: Note,
    beside: Callable[[P], Path] | None = None,
) -> Iterator[tuple[P, T]]:
    """As `kept`, of photos of any kind that ``key`` names, measured ``size`` at a time.

    ``measure`` is given those of such a group that have no file yet, or not the one that ``beside`` names.
    """
    for start in range(0, len(photos), size):
        group = photos[start : start + size]
        paths = [folder / f"{key(photo)}.json" for photo in group]
        others = [] if beside is None else [beside(photo) for photo in group]
        lost = {place for place, path in enumerate(others) if not path.is_file()}
        new = [place for place, path in enumerate(paths) if place in lost or not path.is_file()]
        if new:
            found = measure([group[place] for place in new])
            for place, content in zip(new, found, strict=True):
                write_json(paths[place], content)
            note(f"{what}: photo {start + len(group)} of {len(photos)}")
        for photo, path in zip(group, paths, strict=True):
            yield photo, read_kept(path, read)


def read_kept(path: Path, read: Callable[[Any], T]) -> T:
    """What ``read`` makes of the file; raises `InputError` if it is damaged."""
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); delete it to have it made again") from error
