"""An attack of a study of defences on photos of an audit: their images, saved in 8 bit and kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from underfire.attacks.joint import JointAttack
from underfire.attacks.perturbations import Perturbation
from underfire.auditing.condition import NONE
from underfire.auditing.look import calling, predict
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.unit import save_and_read
from underfire.models.classifier import Classifier
from underfire.studies.kept import kept_together
from underfire.studies.pictures import opened
from underfire.studies.source import Note, Run


@dataclass(frozen=True)
class Struck:
    """What the attack made of a photo.

    Attributes:
        reached: whether the classifier sees the image, as saved in 8 bit, as the target class.
        confidence: the target's probability, in [0, 1].
        passes: forward and backward, that the attack took.
    """

    reached: bool
    confidence: float
    passes: int


def picture_in(folder: Path, photo: PlannedPhoto) -> Path:
    """Where the image of ``photo`` under an attack that is kept in ``folder`` is."""
    return folder / f"{photo.key}.png"


@dataclass(frozen=True)
class Made:
    """What an attack made of N images: (N, C, H, W) in [0, 1], and (N,) the passes that each took."""

    x_adv: Tensor
    passes: Tensor


class Maker(Protocol):
    """An attack on photos of an audit."""

    def __call__(self, photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> Made:
        """The attacked images of ``photos``, whose pictures are ``x`` (N, C, H, W), towards ``target`` (N,)."""
        ...


def made_by(attack: JointAttack) -> Maker:
    """``attack``, towards the benign maps of the photos' labels where it is on maps."""

    def make(photos: Sequence[PlannedPhoto], x: Tensor, target: Tensor) -> Made:
        labels = {"label": torch.tensor([p.label for p in photos]).to(x.device)} if attack.interpreters else {}
        result = attack(x, target, keys=[p.image_id for p in photos], **labels)
        return Made(result.x_adv, result.passes)

    return make


def strike(
    run: Run,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    make: Maker,
    perturbation: Perturbation,
    folder: Path,
    *,
    what: str,
    note: Note,
) -> dict[PlannedPhoto, Struck]:
    """Attacks ``photos`` of ``run`` towards their targets; ``folder`` keeps images and facts.

    Args:
        run: an audit.
        photos: of it.
        classifier: that of the audit.
        make: attacks some of them.
        perturbation: within which the images are.
        folder: its name is an `identity` of all that decides the images.
        what: is told with every photo that is attacked.
        note: is told it.

    Raises:
        InputError: an image of the run or a kept file is damaged, or a number is not finite.
    """

    def measure(some: Sequence[PlannedPhoto]) -> list[Mapping[str, Any]]:
        names = [photo.image_id for photo in some]
        x = opened([run.picture(photo, NONE) for photo in some], classifier.dtype)
        targets = torch.tensor([photo.target for photo in some])
        with calling(names):
            made = make(some, x.to(classifier.device), targets.to(classifier.device))
        folder.mkdir(parents=True, exist_ok=True)
        paths = [picture_in(folder, photo) for photo in some]
        saved = save_and_read(made.x_adv.detach().cpu(), x, perturbation, paths)
        probabilities = predict(classifier, saved, names=names)
        reached = probabilities.argmax(dim=1) == targets
        confidence = probabilities.gather(1, targets[:, None])[:, 0]
        columns = (reached.tolist(), confidence.tolist(), made.passes.tolist())
        return [asdict(Struck(*facts)) for facts in zip(*columns, strict=True)]

    pieces = kept_together(
        photos,
        folder,
        key=lambda photo: photo.key,
        size=run.plan.batch_size,
        measure=measure,
        read=_struck,
        what=what,
        note=note,
        beside=lambda photo: picture_in(folder, photo),
    )
    return dict(pieces)


def _struck(content: Mapping[str, Any]) -> Struck:
    return Struck(bool(content["reached"]), float(content["confidence"]), int(content["passes"]))
