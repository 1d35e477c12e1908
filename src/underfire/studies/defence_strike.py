"""An attack of a study of defences on some photos of an audit: their images, saved in 8 bit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from underfire.attacks.joint import JointAttack
from underfire.audit.look import calling, predict
from underfire.audit.plan import PlannedPhoto
from underfire.audit.unit import save_and_read
from underfire.studies.pictures import opened
from underfire.studies.source import Run


@dataclass(frozen=True)
class Strike:
    """What the attack made of N photos.

    Attributes:
        reached: whether the classifier sees each image, as saved in 8 bit, as the target class.
        confidence: the target's probability for each, in [0, 1].
        passes: forward and backward, that each took.
    """

    reached: list[bool]
    confidence: list[float]
    passes: list[int]


def strike(run: Run, photos: Sequence[PlannedPhoto], attack: JointAttack, folder: Path) -> Strike:
    """Attacks ``photos`` of ``run`` towards their targets and their benign maps; leaves ``KEY.png`` in ``folder``.

    Raises:
        InputError: an image of the run is damaged, or a number is not finite.
    """
    classifier, names = attack.classifier, [photo.image_id for photo in photos]
    x = opened([run.picture(photo, "benign") for photo in photos], classifier.dtype)
    labels, targets = (torch.tensor([getattr(photo, kind) for photo in photos]) for kind in ("label", "target"))
    device = classifier.device
    with calling(names):
        result = attack(x.to(device), targets.to(device), label=labels.to(device), keys=names)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{photo.key}.png" for photo in photos]
    saved = save_and_read(result.x_adv.detach().cpu(), x, result.perturbation, paths)
    probabilities = predict(classifier, saved, names=names)
    rows = torch.arange(len(photos))
    return Strike(
        reached=(probabilities.argmax(dim=1) == targets).tolist(),
        confidence=probabilities[rows, targets].tolist(),
        passes=result.passes.tolist(),
    )
