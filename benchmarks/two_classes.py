"""``benchmarks.two_classes:animal_or_object``: a binary classifier, for what the paper proves of two classes."""

import torch
from torch import Tensor, nn

from underfire import Classifier, load_classifier

ANIMALS = 398  # the first so many of the classes of ImageNet


class AnimalOrObject(nn.Module):
    """Logits (N, 2) of which the softmax is p(object) and p(animal), each the sum over its classes of ImageNet.

    Args:
        imagenet: gives 1000 logits in the usual order.
    """

    def __init__(self, imagenet: nn.Module) -> None:
        super().__init__()
        self.imagenet = imagenet

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.imagenet(x)
        return torch.stack([part.logsumexp(dim=1) for part in (logits[:, ANIMALS:], logits[:, :ANIMALS])], dim=1)


def animal_or_object() -> Classifier:
    """The built-in model, asked only whether it sees an animal: class 0 is an object, class 1 an animal."""
    imagenet = load_classifier()
    return Classifier(
        AnimalOrObject(imagenet.module),
        mean=imagenet.preprocessing.mean,
        std=imagenet.preprocessing.std,
        input_size=imagenet.input_size,
        resize=imagenet.preprocessing.resize,
        class_names=("object", "animal"),
        name="EfficientNet-Lite0, animal or object",
    )
