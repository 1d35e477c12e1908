"""What is known of photos before any of them is decoded."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Photo:
    """One photo to be looked at.

    ``image_id`` is its name within its source, a relative POSIX path in valid UTF-8: unique within a
    :class:`PhotoSet`, and the same on every run over the same sources. It is data: it may hold newlines,
    quotes or HTML. ``path`` is absolute. ``label`` is the true class and ``target`` the class an attacker
    wants, as indices; ``None`` where the source names none.
    """

    image_id: str
    path: Path
    label: int | None
    target: int | None


@dataclass(frozen=True)
class Skipped:
    """Something a source holds that is not used: its name (data, valid UTF-8) and, in a clause, why not."""

    name: str
    reason: str


@dataclass(frozen=True)
class PhotoSet:
    """The photos of one or more sources, in a fixed order, and what was left out of them."""

    photos: tuple[Photo, ...]
    skipped: tuple[Skipped, ...]
