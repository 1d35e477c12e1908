"""What is measured: a classifier and one batch of photos."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor, nn

from underfire import Classifier, load_classifier
from underfire.images import builtin_photos, find_photos, load_photo

MOST_PHOTOS = 64  # read from a folder, however many it holds


@dataclass(frozen=True)
class Recipe:
    """How to make a subject, in words that another process can be told.

    Attributes:
        model: as ``load_classifier`` takes it.
        device: ``cpu``, ``cuda``, …
        batch_size: photos in the batch; where there are fewer they come again.
        photos: a photo, folder or manifest; None for the built-in photos.
        draws: of each photo, for certificates.
    """

    model: str
    device: str
    batch_size: int
    photos: str | None = None
    draws: int = 64


class Plain(nn.Module):
    """The classifier as any other library would be given it: normalisation and network, one ordinary module."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.net = classifier.module
        for name, numbers in (("mean", classifier.preprocessing.mean), ("std", classifier.preprocessing.std)):
            self.register_buffer(name, torch.tensor(numbers, dtype=classifier.dtype).reshape(1, -1, 1, 1))
        self.to(classifier.device).eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Subject:
    """A classifier, the same as a plain module, and a batch.

    Both hold the same network, in evaluation mode with frozen parameters, so that no contender pays for gradients of
    parameters.

    Attributes:
        recipe: what it was made from.
        classifier, plain: the classifier for underfire and for the others.
        photos: (M, C, H, W) in [0, 1], no photo twice.
        x: the batch (N, C, H, W), photos again and again.
        label: (N,) what the classifier says.
        target: (N,) the classes that attacks aim at, half of all classes further on.
    """

    recipe: Recipe
    classifier: Classifier
    plain: Plain
    photos: Tensor
    x: Tensor
    label: Tensor
    target: Tensor

    @classmethod
    def make(cls, recipe: Recipe) -> "Subject":
        """Load the model and the photos.

        Raises:
            InputError: one of them cannot be had.
        """
        classifier = load_classifier(recipe.model, device=recipe.device)
        photos = torch.stack(list(islice(_read(recipe, classifier), MOST_PHOTOS))).to(classifier.device)
        return cls.of(recipe, classifier, photos.to(classifier.dtype) / 255)

    @classmethod
    def of(cls, recipe: Recipe, classifier: Classifier, photos: Tensor) -> "Subject":
        """A classifier and photos (M, C, H, W) in [0, 1] that are there already."""
        plain = Plain(classifier)
        x = torch.stack(list(islice(cycle(photos), recipe.batch_size)))
        with torch.no_grad():
            label = plain(x).argmax(dim=1)
        target = (label + classifier.num_classes // 2) % classifier.num_classes
        return cls(recipe, classifier, plain, photos, x, label, target)

    def in_float64(self, batch_size: int) -> "Subject":
        """The same with double precision and a batch of its own, for values that rounding must not decide."""
        classifier = copy.copy(self.classifier)
        classifier.module = copy.deepcopy(self.classifier.module).double()
        recipe = replace(self.recipe, batch_size=min(batch_size, self.recipe.batch_size))
        return self.of(recipe, classifier, self.photos.double())

    def __str__(self) -> str:
        device = self.classifier.device
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return f"{self.classifier.name}, {where}, batch {len(self.x)}, {str(self.x.dtype).removeprefix('torch.')}"


def _read(recipe: Recipe, classifier: Classifier) -> Iterator[Tensor]:
    """The photos, uint8 (C, H, W) each."""
    if recipe.photos is None:
        found = builtin_photos()
    else:
        found = find_photos([Path(recipe.photos)], class_names=classifier.class_names)
    for photo in found.photos:
        yield load_photo(photo.path, classifier.preprocessing).pixels
