"""Attacked images of an audit's photos that lie elsewhere: of other audits, and of studies that attack anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.rows import Row, read_rows
from underfire.auditing.store import RunDirectory, picture_name
from underfire.errors import InputError
from underfire.images.files import quoted


@dataclass(frozen=True)
class Attacked:
    """A photo under one attack.

    Attributes:
        path: its 8-bit PNG.
        reached: whether the classifier sees the image as saved as the target class.
    """

    path: Path
    reached: bool


def attacks_in(
    folder: Path, photos: Sequence[PlannedPhoto], *, name: str | None = None
) -> dict[str, dict[str, Attacked]]:
    """By condition and photo the attacked images of ``photos`` in ``folder``, with their labels as its rows tell.

    ``folder`` has ``rows/`` and ``artifacts/KEY/CONDITION.png``, as the directory of an audit and those in which the
    study of the gap keeps its attacks. With a ``name`` the conditions are called ``name: pgd`` and so on. A photo
    that an attack left out is not among its images.

    Raises:
        InputError: ``folder`` is none such, has none of ``photos``, or others under their names or for other targets;
            or an image of an attack that has some is missing.
    """
    planned = {photo.image_id: photo for photo in photos}
    found: dict[str, dict[str, Attacked]] = {}
    for row in read_rows(folder):
        photo = planned.get(row.image_id)
        if photo is None or row.condition.is_control:
            continue
        _check_same(folder, row, photo)
        path = RunDirectory(folder).artifacts / photo.key / picture_name(row.condition)
        found.setdefault(str(row.condition), {})[row.image_id] = Attacked(path, row.success_8bit)
    # The study of the gap has rows of PGD to compare with, whose images are elsewhere.
    found = {under: some for under, some in found.items() if any(one.path.is_file() for one in some.values())}
    if not found:
        raise InputError(
            f"{quoted(folder)} has no attacked image of the run's photos; give a folder that was made of them in the "
            "same order"
        )
    lost = next((one.path for some in found.values() for one in some.values() if not one.path.is_file()), None)
    if lost is not None:
        raise InputError(f"{quoted(lost)} is missing; put it back, or leave {quoted(folder)} out")
    return found if name is None else {f"{name}: {under}": some for under, some in found.items()}


def _check_same(folder: Path, row: Row, photo: PlannedPhoto) -> None:
    if row.image_sha256 != photo.sha256:
        raise InputError(
            f"photo {quoted(row.image_id)} is another one in {quoted(folder)} than in the run; give a folder that was "
            "made of the same photos"
        )
    if row.target != photo.target:
        raise InputError(
            f"photo {quoted(row.image_id)} is attacked towards class {row.target} in {quoted(folder)}, and towards "
            f"{photo.target} in the run; give a folder with the same targets"
        )
