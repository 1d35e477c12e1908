"""An attack of a study of defences on photos of an audit: their images, saved in 8 bit and kept photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from underfire.attacks.joint import JointAttack
from underfire.audit.look import calling, predict
from underfire.audit.plan import PlannedPhoto
from underfire.audit.unit import save_and_read
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


def strike(
    run: Run, photos: Sequence[PlannedPhoto], attack: JointAttack, folder: Path, *, what: str, note: Note
) -> dict[PlannedPhoto, Struck]:
    """Attacks ``photos`` of ``run`` towards their targets and their benign maps; ``folder`` keeps images and facts.

    Args:
        run: an audit.
        photos: of it.
        attack: on the audited classifier.
        folder: its name is an `identity` of all that decides the images.
        what: is told with every photo that is attacked.
        note: is told it.

    Raises:
        InputError: an image of the run or a kept file is damaged, or a number is not finite.
    """
    classifier = attack.classifier

    def measure(some: Sequence[PlannedPhoto]) -> list[Mapping[str, Any]]:
        names = [photo.image_id for photo in some]
        x = opened([run.picture(photo, "benign") for photo in some], classifier.dtype)
        labels, targets = (torch.tensor([getattr(photo, kind) for photo in some]) for kind in ("label", "target"))
        label = {"label": labels.to(classifier.device)} if attack.interpreters else {}
        with calling(names):
            result = attack(x.to(classifier.device), targets.to(classifier.device), keys=names, **label)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [picture_in(folder, photo) for photo in some]
        saved = save_and_read(result.x_adv.detach().cpu(), x, result.perturbation, paths)
        probabilities = predict(classifier, saved, names=names)
        reached = probabilities.argmax(dim=1) == targets
        confidence = probabilities.gather(1, targets[:, None])[:, 0]
        columns = (reached.tolist(), confidence.tolist(), result.passes.tolist())
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
