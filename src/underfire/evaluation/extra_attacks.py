"""Attacked images that every detector is tested on: those of the run, of other audits, and of a study's own attacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from underfire.auditing.condition import PGD, Condition
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.rows import Row, read_rows
from underfire.auditing.store import RunDirectory, picture_name
from underfire.errors import InputError
from underfire.files import check_tree, quoted


@dataclass(frozen=True)
class ObliviousAttack:
    """An attack that does not know the detectors.

    Attributes:
        condition: what was done to the photos.
        extra: the name of the extra attacks that it is among; None for those of the run and of the benchmark itself.
    """

    condition: Condition
    extra: str | None = None

    def __str__(self) -> str:
        """As in tables: ``adv2-cam``, or ``patch: adv2-cam`` among the extra attacks ``patch``."""
        return str(self.condition) if self.extra is None else f"{self.extra}: {self.condition}"

    @property
    def title(self) -> str:
        """As in words: ``ADV² on CAM``, or ``ADV² on CAM (patch)``."""
        return self.condition.title if self.extra is None else f"{self.condition.title} ({self.extra})"

    @property
    def is_pgd(self) -> bool:
        """Whether it is the run's PGD."""
        return self.extra is None and self.condition == PGD

    @property
    def is_adv2(self) -> bool:
        """Whether it is the run's ADV² on a single interpreter."""
        return self.extra is None and self.condition.attack == "adv2" and len(self.condition.sources) == 1

    @property
    def is_plain(self) -> bool:
        """Whether it is one of these."""
        return self.is_pgd or self.is_adv2


@dataclass(frozen=True)
class AttackedImage:
    """A photo under one attack.

    Attributes:
        path: its 8-bit PNG.
        reached: whether the classifier's prediction for the image as saved is the target class.
        confidence: the target's probability for the image as saved, in [0, 1].
        passes: forward and backward, that the attack took.
    """

    path: Path
    reached: bool
    confidence: float
    passes: int


AttackedImages = Mapping[ObliviousAttack, Mapping[str, AttackedImage]]
"""By attack and photo."""


def attacks_in(folder: Path, photos: Sequence[PlannedPhoto], *, name: str | None = None) -> AttackedImages:
    """The attacked images of ``photos`` in ``folder``, as extra attacks ``name``, with their success by its rows.

    ``folder`` has ``rows/`` and ``artifacts/KEY/CONDITION.png``, as the directory of an audit and those in which the
    study of the gap keeps its attacks. A photo that an attack left out is not among its images.

    Raises:
        InputError: ``folder`` is none such, holds links, has none of ``photos``, others under their names or for other
            targets; or an image of an attack that has some is missing.
    """
    check_tree(folder)
    planned = {photo.image_id: photo for photo in photos}
    found: dict[ObliviousAttack, dict[str, AttackedImage]] = {}
    for row in read_rows(folder):
        photo = planned.get(row.image_id)
        if photo is None or row.condition.is_control:
            continue
        _check_same(folder, row, photo)
        path = RunDirectory(folder).artifact(photo, picture_name(row.condition))
        image = AttackedImage(path, row.success_8bit, row.confidence_8bit, row.spent.passes)
        found.setdefault(ObliviousAttack(row.condition, name), {})[row.image_id] = image
    # The study of the gap has rows of PGD to compare with, whose images are elsewhere.
    found = {attack: some for attack, some in found.items() if any(one.path.is_file() for one in some.values())}
    if not found:
        raise InputError(
            f"{quoted(folder)} has no attacked image of the run's photos; give a folder that was made of them in the "
            "same order"
        )
    lost = next((one.path for some in found.values() for one in some.values() if not one.path.is_file()), None)
    if lost is not None:
        raise InputError(f"{quoted(lost)} is missing; put it back, or leave {quoted(folder)} out")
    return found


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
