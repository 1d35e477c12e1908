"""What lies in a folder, however deep, told without decoding anything."""

import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

from underfire.errors import InputError, InputWarning
from underfire.files import is_output, kind_problem, os_problem, quoted, shortened
from underfire.images.labels import ClassFinder
from underfire.images.records import Skipped

PHOTO_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)
_NAMED = 3  # folders of ours in a warning
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class Found:
    """A photo of a source: where it is, where that really is, its path within the source, its classes."""

    path: Path
    real: str
    relative: str
    label: int | None
    target: int | None


def check_inside(root: Path, path: Path) -> str:
    """The real path of the regular file at ``path``, whose links all stay inside ``root`` (a real path).

    Raises:
        InputError: it is nothing of the kind. The message is the reason alone, a clause.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))  # Path.resolve names a circle of links by another error
        if not real.is_relative_to(root):
            raise InputError("it is a link that leaves the folder")
        status = real.stat()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(os_problem(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(kind_problem(status.st_mode))
    if not status.st_size:
        raise InputError("the file is empty")
    return str(real)


def scan(root: Path, classes: ClassFinder) -> tuple[list[Found], list[Skipped]]:
    """The photos in ``root`` (a real path) and below, sorted by name, and all else that lies there.

    Names that begin with a dot are ignored. Folders below ``root`` that underfire wrote are left out, with an
    `InputWarning`. Links to folders are not followed. What has no photo's suffix is skipped with its reason, as is
    whatever is empty, not a regular file, or a link that leaves ``root``. The sub-folders of ``root`` may be classes,
    see :func:`classes_of_folders`; photos elsewhere have no label.

    Raises:
        InputError: the class folders are numbered from 1.
    """
    relatives: list[tuple[str, str]] = []
    skipped: list[Skipped] = []
    folders = [""]
    tops: list[str] = []
    outputs: list[str] = []
    while folders:
        folder = folders.pop()
        try:
            if folder and is_output(root / folder):
                outputs.append(folder.removesuffix("/"))
                continue
            with os.scandir(root / folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            skipped.append(Skipped(shortened(folder or "."), os_problem(error)))
            continue
        for entry in entries:
            relative = folder + entry.name
            try:
                if entry.is_dir(follow_symlinks=False) and _suffix(entry.name) not in PHOTO_SUFFIXES:
                    folders.append(relative + "/")
                    tops += [] if folder else [entry.name]
                else:
                    relatives.append((relative, _photo(root, entry)))
            except InputError as problem:
                skipped.append(Skipped(shortened(relative), str(problem)))
            except OSError as error:
                skipped.append(Skipped(shortened(relative), os_problem(error)))
    if outputs:
        named = ", ".join(quoted(name) for name in sorted(outputs)[:_NAMED]) + (", …" if len(outputs) > _NAMED else "")
        warnings.warn(f"Left out of the photos: {len(outputs)} of underfire's own folders ({named})", InputWarning, 2)
    labels = classes_of_folders([top for top in tops if top not in outputs], classes)
    found: list[Found] = []
    for relative, real in sorted(relatives):
        top, slash, _ = relative.partition("/")
        found.append(Found(root / relative, real, relative, labels.get(top) if slash else None, None))
    return found, sorted(skipped, key=lambda item: item.name)


def classes_of_folders(names: list[str], classes: ClassFinder) -> dict[str, int]:
    """The class of each sub-folder that is one.

    A folder is the class that :class:`ClassFinder` finds for its name. Where there are exactly as many
    folders as classes, one whose name says nothing takes the class of its place in the sorted order (as
    torchvision's ``ImageFolder`` has it), provided that this order agrees with every name that does say
    something and that no folder is a split of a data set ("train", "val", …). A folder that matches nothing,
    or more than one class, is no class: its photos have no label.

    Raises:
        InputError: the folders are numbered from 1 to the number of classes, where underfire counts from 0:
            every label would be off by one.
    """
    names = sorted(names)
    count = classes.num_classes
    matches = {name: classes.matches(name) for name in names}
    if set(names) == {str(number) for number in range(1, count + 1)} and not matches[str(count)]:
        raise InputError(
            f"The class folders are numbered 1 to {count} and underfire counts classes from 0; "
            "rename them or list the photos in a manifest."
        )
    in_order = {name: index for index, name in enumerate(names)}
    agree = all(in_order[name] in found for name, found in matches.items() if found)
    if len(names) == count and agree and not any(name.casefold() in _SPLITS for name in names):
        return in_order
    return {name: next(iter(found)) for name, found in matches.items() if len(found) == 1}


def _photo(root: Path, entry: os.DirEntry[str]) -> str:
    """The real path of ``entry``, or why it is no photo."""
    if entry.is_symlink() and entry.is_dir():
        raise InputError("it is a link to a folder, and such links are not followed")
    if _suffix(entry.name) not in PHOTO_SUFFIXES:
        raise InputError("its name does not end as a photo's does (.jpg, .png, .webp, …)")
    return check_inside(root, Path(entry.path))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - one per file of what may be a million
