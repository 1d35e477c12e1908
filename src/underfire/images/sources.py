"""All the sources a user names, as one set of photos."""

import os
import stat
from collections.abc import Container, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

from underfire.errors import InputError
from underfire.files import kind_problem, os_problem, printable, quoted, shortened
from underfire.images.folder import Found, check_inside, scan
from underfire.images.labels import ClassFinder
from underfire.images.manifest import MANIFEST_NAMES, MANIFEST_SUFFIXES, read_manifest
from underfire.images.records import Photo, PhotoSet, Skipped


def find_photos(sources: Sequence[str | Path], *, class_names: Sequence[str]) -> PhotoSet:
    """The photos of ``sources`` with the classes that the sources give, as far as can be told undecoded.

    A source is

    * a photo, whatever its suffix, without a label;
    * a manifest (``.csv``, ``.jsonl``: see :mod:`underfire.images.manifest`);
    * a folder that holds one of :data:`~underfire.images.manifest.MANIFEST_NAMES`: what that lists, and
      nothing else;
    * any other folder: all photos in it and below, its sub-folders being classes where their names say so
      (see :func:`underfire.images.folder.classes_of_folders`). Names that begin with a dot are ignored, and
      directories that underfire wrote are left out with an `InputWarning`.

    A photo that is reached twice counts where it was reached first. The order is that of the sources, of the
    lines of a manifest and of the sorted names in a folder. ``image_id`` is the path within the source; where
    an earlier source has the same, as many parent folders are put before it as tell the two apart.

    Raises:
        InputError: a source does not exist, a manifest cannot be read as one, a folder holds several, or
        class
            folders are numbered from 1. Anything wrong with a single photo or line is a :class:`Skipped`
            instead.
    """
    classes = ClassFinder(class_names)
    photos: dict[str, Photo] = {}
    reached: dict[str, str] = {}
    skipped: list[Skipped] = []
    for source in sources:
        found, left_out = _open_source(source, classes)
        skipped += left_out
        for item in found:
            if item.real in reached:
                reason = f"it is the same file as {quoted(reached[item.real])}, which is already in"
                skipped.append(Skipped(shortened(item.relative), reason))
                continue
            image_id = _unique_id(item, photos)
            reached[item.real] = image_id
            photos[image_id] = Photo(image_id, item.path, item.label, item.target)
    return PhotoSet(tuple(photos.values()), tuple(skipped))


def _open_source(source: str | Path, classes: ClassFinder) -> tuple[list[Found], list[Skipped]]:
    if not os.fspath(source):  # pathlib would take it for the current folder
        raise InputError("An empty name is not a photo, a folder or a manifest; leave it out.")
    path = Path(source)
    try:
        # The user named this path, so its links may lead anywhere; those met inside may not.
        real = Path(os.path.realpath(path, strict=True))
        mode = real.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"There is no photo, folder or manifest {quoted(source)}; check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"The source {quoted(source)} cannot be used: {os_problem(error)}; check the path.") from error
    if stat.S_ISDIR(mode):
        return _open_folder(real, classes)
    if not stat.S_ISREG(mode):
        return [], [Skipped(shortened(path.name), kind_problem(mode))]
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _list_manifest(path.parent.resolve() / path.name, classes)
    return [Found(path.parent.resolve() / path.name, str(real), path.name, None, None)], []


def _open_folder(root: Path, classes: ClassFinder) -> tuple[list[Found], list[Skipped]]:
    paths = [root / name for name in MANIFEST_NAMES]
    manifests = [path for path in paths if os.path.lexists(path) and not path.is_dir()]
    if not manifests:
        return scan(root, classes)
    if len(manifests) > 1:
        names = " and ".join(path.name for path in manifests)
        raise InputError(f"The folder {quoted(root)} holds {names}; name the one to use instead of the folder.")
    try:
        check_inside(root, manifests[0])
    except InputError as error:
        raise InputError(
            f"The manifest {quoted(manifests[0])} cannot be used: {error}; replace or remove it."
        ) from error
    return _list_manifest(manifests[0], classes)


def _list_manifest(path: Path, classes: ClassFinder) -> tuple[list[Found], list[Skipped]]:
    entries, skipped = read_manifest(path)
    found: list[Found] = []
    for entry in entries:
        try:
            relative = _relative(entry.file_name)
            real = check_inside(path.parent, path.parent / relative)
            label, target = (None if given is None else classes.find(given) for given in (entry.label, entry.target))
        except InputError as problem:
            reason = f"{problem} (line {entry.line} of the manifest)"
            skipped.append(Skipped(shortened(entry.file_name), reason))
            continue
        found.append(Found(path.parent / relative, real, relative, label, target))
    return found, skipped


def _relative(file_name: str) -> str:
    """``file_name`` of a manifest as a plain relative path, or why it is none."""
    path = PurePosixPath(file_name)
    # Even "a/../b.jpg", which stays inside: what ".." means depends on links, and no list needs it.
    if path.is_absolute() or Path(file_name).is_absolute() or ".." in path.parts:
        raise InputError("it leaves the manifest's folder (an absolute path, or one with '..')")
    return str(path)


def _unique_id(item: Found, taken: Container[str]) -> str:
    """The path within the source, preceded by as many parent folders as no earlier photo has."""
    relative = printable(item.relative)
    parts = item.path.parts[1:]
    own = len(PurePosixPath(item.relative).parts)
    tails = (printable("/".join(parts[-depth:])) for depth in range(own + 1, len(parts) + 1))
    # Two absolute paths may still read alike, a byte that is no UTF-8 against its escape.
    numbered = (f"{relative}~{number}" for number in count(2))
    return next(candidate for group in ((relative,), tails, numbered) for candidate in group if candidate not in taken)
