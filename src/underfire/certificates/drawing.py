"""The system with noise as a classifier that draws, for attacks and scores over draws."""

import torch
from torch import Tensor, nn

from underfire.certificates.noise import NoiseSource, noisy
from underfire.certificates.system import NoisySystem
from underfire.models.classifier import Classifier


class _GlobalNoise(NoiseSource):
    """What torch's global generator gives, which `fixed_draws` holds."""

    def uniform(self, draw: int, count: int) -> Tensor:  # noqa: ARG002 - every call is another draw
        return torch.rand(count, dtype=torch.float64)

    def key(self, draw: int) -> str:
        return str(draw)


class _Drawing(nn.Module):
    """One draw for each image; gradients pass the noise and the rounding, and stop where a value is cut to [0, 1]."""

    def __init__(self, system: NoisySystem) -> None:
        super().__init__()
        self.module = system.classifier.module  # so that it is frozen, and counts in the fingerprint
        self._system = system
        self.register_buffer("sigma", torch.tensor(system.sigma))

    def forward(self, x: Tensor) -> Tensor:
        source, still = _GlobalNoise(), x.detach()
        z = torch.stack([noisy(image, self._system.sigma, source, 0) for image in still]) + (x - still)
        with self._system.classifier.frozen():
            return self._system.classifier.scores(self._system.seen(z))


def drawing_classifier(system: NoisySystem) -> Classifier:
    """The classifier of ``system`` as one that draws, of images in [0, 1]."""
    own, told = system.classifier, system.classifier.preprocessing
    return Classifier(
        _Drawing(system),
        mean=(0.0,) * own.channels,
        std=(1.0,) * own.channels,
        input_size=told.input_size,
        resize=told.resize,
        interpolation=told.interpolation,
        crop=told.crop,
        class_names=own.class_names,
        name=f"{own.name}, σ = {system.sigma:g}",
    )
