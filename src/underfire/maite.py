"""A classifier, photos, an attack and a joint success rate for MAITE, protocols of test and evaluation.

The protocols are structural, so that nothing here needs MAITE's package; its ``evaluate`` takes all four.
Source: ``maite.protocols.image_classification`` of the package maite.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from underfire import metrics
from underfire.attacks.joint import JointAttack
from underfire.errors import InputError
from underfire.images import Photo, load_photo
from underfire.models.classifier import Classifier
from underfire.stats import wilson

Metadata: TypeAlias = Any
"""A dictionary with an ``id``; MAITE's own types of it differ from protocol to protocol."""

Aim = Literal["next", "other"]
"""Where an attack leads labels: to the class after the label, or to any other."""

TARGET, MAP_IOU = "underfire_target", "underfire_map_iou"
"""What an attack adds to a datum's metadata."""


class MaiteModel:
    """A classifier as MAITE's model: images (C, H, W) in [0, 1] to probabilities (K,).

    Args:
        classifier: with its preprocessing inside.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.metadata: Metadata = {"id": classifier.name, "index2label": dict(enumerate(classifier.class_names))}

    def __call__(self, batch: Sequence[ArrayLike], /) -> Sequence[NDArray[Any]]:
        """One array (K,) for each image of ``batch``; raises `InputError` for images that the classifier refuses."""
        with torch.no_grad():
            return list(self.classifier.probabilities(_stacked(batch, self.classifier)).cpu().numpy())


class MaiteDataset:
    """Labelled photos as MAITE's dataset: image (C, H, W) in [0, 1], label one-hot (K,), metadata with the name.

    Args:
        photos: each with a label.
        classifier: whose input they are brought to.

    Raises:
        InputError: a photo has no label.
    """

    def __init__(self, photos: Sequence[Photo], classifier: Classifier, *, name: str = "photos") -> None:
        unlabelled = next((photo.image_id for photo in photos if photo.label is None), None)
        if unlabelled is not None:
            raise InputError(f"the photo {unlabelled!r} has no label, and MAITE's datasets have one each; leave it out")
        self.photos = tuple(photos)
        self.classifier = classifier
        self.metadata: Metadata = {"id": name, "index2label": dict(enumerate(classifier.class_names))}

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int, /) -> tuple[NDArray[Any], NDArray[Any], Metadata]:
        """Photo ``index``; raises `InputError` if it cannot be decoded."""
        photo = self.photos[index]
        pixels = load_photo(photo.path, self.classifier.preprocessing).pixels
        label = np.eye(len(self.classifier.class_names), dtype=np.float32)[photo.label]
        return pixels.numpy().astype(np.float32) / 255, label, {"id": photo.image_id}


class MaiteAttack:
    """An attack as MAITE's augmentation: images become adversarial ones as saved in 8 bit, labels stay.

    It adds to each metadata the target class, or -1 for any but the label, and the least IoU (cut at 0.5) of the maps
    of the attacked interpreters with the benign ones, for the label that the classifier then predicts; NaN where the
    attack is on no map.

    Args:
        attack: on the classifier, or on interpreters of it.
        aim: where it leads labels.
    """

    def __init__(self, attack: JointAttack, *, aim: Aim = "next") -> None:
        if aim not in get_args(Aim):
            raise InputError(f"aim is {aim!r}; give one of {', '.join(get_args(Aim))}")
        self.attack, self.aim = attack, aim
        self.metadata: Metadata = {"id": f"underfire {attack.name}"}

    def __call__(
        self, batch: tuple[Sequence[ArrayLike], Sequence[ArrayLike], Sequence[Metadata]], /
    ) -> tuple[Sequence[NDArray[Any]], Sequence[ArrayLike], Sequence[Metadata]]:
        """The batch, attacked; raises `InputError` for images that the classifier refuses."""
        images, labels, told = batch
        classifier = self.attack.classifier
        x = _stacked(images, classifier)
        label = torch.as_tensor(np.stack([np.asarray(one) for one in labels]).argmax(axis=1)).to(classifier.device)
        target = (label + 1) % len(classifier.class_names) if self.aim == "next" else None
        keys = [str(one["id"]) for one in told]
        given = {"label": label} if self.attack.interpreters or target is None else {}
        found = self.attack(x, target, keys=keys, **given)
        saved = torch.round(found.x_adv * 255) / 255
        ious = self._ious(x, saved, label, keys)
        targets = [-1] * len(x) if target is None else target.tolist()
        added = [{**one, TARGET: to, MAP_IOU: iou} for one, to, iou in zip(told, targets, ious.tolist(), strict=True)]
        return list(saved.cpu().numpy()), labels, added

    def _ious(self, x: Tensor, saved: Tensor, label: Tensor, keys: Sequence[str]) -> Tensor:
        least = torch.full((len(x),), torch.nan, dtype=torch.float64)
        shown = self.attack.classifier.probabilities(saved).argmax(dim=1)
        for interpreter in self.attack.interpreters:
            benign, now = interpreter(x, label, keys=keys), interpreter(saved, shown, keys=keys)
            least = torch.fmin(least, metrics.iou(now, benign).double().cpu())
        return least


class MaiteJointSuccess:
    """The joint success rate as MAITE's metric, of what `MaiteAttack` made: label and map are as the attacker wants.

    Args:
        tau: the IoU that every attacked map must keep; where none was attacked the label decides.
    """

    def __init__(self, tau: float = 0.5) -> None:
        self.tau = tau
        self.metadata: Metadata = {"id": f"underfire JSR@{tau:g}"}
        self.reset()

    def reset(self) -> None:
        """Forgets all photos."""
        self._met: list[bool] = []

    def update(self, predicted: Sequence[ArrayLike], labels: Sequence[ArrayLike], told: Sequence[Metadata], /) -> None:
        """Counts a batch; raises `InputError` if it was not attacked by `MaiteAttack`."""
        for scores, label, one in zip(predicted, labels, told, strict=True):
            if TARGET not in one:
                raise InputError(f"the datum {one['id']!r} has no {TARGET!r}; give MaiteAttack as the augmentation")
            shown, target = int(np.argmax(scores)), one[TARGET]
            reached = shown != int(np.argmax(label)) if target < 0 else shown == target
            self._met.append(reached and not one[MAP_IOU] < self.tau)

    def compute(self) -> dict[str, float | int | None]:
        """The rate, the ends of Wilson's 95 % interval, and the number of photos."""
        found = wilson(sum(self._met), len(self._met))
        return {"jsr": found.value, "low": found.low, "high": found.high, "n": found.n}


def _stacked(images: Sequence[ArrayLike], classifier: Classifier) -> Tensor:
    """``images`` as one batch (N, C, H, W) for ``classifier``."""
    found = [torch.as_tensor(np.asarray(image)) for image in images]
    return torch.stack(found).to(classifier.device, classifier.dtype)
