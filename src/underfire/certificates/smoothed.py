"""A system that can be deployed: label and map by vote over draws of noise, or nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole
from underfire.certificates.certification import SIGMA, image_named
from underfire.certificates.drawing import drawing_classifier
from underfire.certificates.noise import NoiseSource, SeededNoise, SystemNoise
from underfire.certificates.system import BATCH, Denoiser, NoisySystem
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.frozen import detached, ordinary
from underfire.seeding import owners

ABSTAINED = -1
"""The label where none has more than half of the draws."""


@dataclass(frozen=True)
class SmoothedResult:
    """What the system shows for N images.

    Attributes:
        labels: (N,) int64, `ABSTAINED` where it shows nothing.
        maps: (N, h, w) in [0, 1] of these labels; 0 where it shows nothing.
        votes: (N,) int64, how many draws have the most frequent label.
    """

    labels: Tensor
    maps: Tensor
    votes: Tensor

    @property
    def abstained(self) -> Tensor:
        """(N,) bool: no label has more than half of the draws."""
        return self.labels == ABSTAINED


class Smoothed:
    """Predicts by the majority of so many noisy draws, shows the map of one draw that agrees, or abstains.

    The map is that of the first draw that has the shown label: draws are exchangeable, so that it has the law of one
    chosen at random, which `Certificate.system_rate` bounds. It is never put together from several.

    Args:
        classifier: whose predictions are voted on.
        interpreter: of that classifier.
        sigma: standard deviation of the noise, in pixel values.
        samples: draws of each image.
        denoise: of noisy images, as for `certify`.
        seed: for audits and tests alone, whose figures must repeat. By default the noise of each call comes from the
            operating system; an attacker who can compute it is bound by no certificate.
        batch_size: draws that go through the model together.

    Raises:
        InputError: the interpreter explains another classifier, or a number is out of range.
    """

    def __init__(
        self,
        classifier: Classifier,
        interpreter: Interpreter,
        *,
        sigma: float = SIGMA,
        samples: int = 100,
        denoise: Denoiser | None = None,
        seed: int | None = None,
        batch_size: int = BATCH,
    ) -> None:
        self.system = NoisySystem(interpreter, sigma, denoise, batch_size)
        if interpreter.classifier is not classifier:
            raise InputError(f"{interpreter.name} explains another classifier than {classifier.name!r}; give its own.")
        check_whole("samples", samples)
        if samples < 1:
            raise InputError(f"samples is {samples}; a vote takes at least 1 draw.")
        self.classifier, self.interpreter = classifier, interpreter
        self.samples, self.seed = samples, seed
        self._checked = False

    def __call__(self, x: Tensor, *, keys: Sequence[str] | None = None) -> SmoothedResult:
        """What the system shows for images ``x`` (N, C, H, W) in [0, 1].

        ``keys`` name the owners of the images' draws where there is a seed, by default the images' content.

        Raises:
            InputError: ``x`` is not what the classifier takes, or draws depend on each other, as the first image tells.
            NonFiniteError: a draw's logits or map contain NaN or infinity.
        """
        self.classifier.check_images(x)
        names = owners(x, keys)
        labels = torch.full((len(x),), ABSTAINED, device=x.device)
        votes, maps = torch.zeros_like(labels), x.new_zeros((len(x), *self.interpreter.grid))
        with ordinary(), self.classifier.frozen():
            for i, name in enumerate(names):
                source = SystemNoise() if self.seed is None else SeededNoise(self.seed, name, "smoothed")
                with image_named(i):
                    if not self._checked:
                        self.system.check_rows(detached(x)[i], source)
                        self._checked = True
                    label, votes[i], shown = self._voted(detached(x)[i], source)
                if 2 * votes[i] > self.samples:
                    labels[i], maps[i] = label, shown
        return SmoothedResult(labels, maps, votes)

    def as_classifier(self) -> Classifier:
        """One draw of it as a classifier that draws: what `attack_draws` attacks and `score_draws` scores.

        `fixed_draws` of it is a classifier that audits and studies take; they then speak of those draws. Its noise is
        of torch's global generator, and gradients pass it as if it were added to the image alone.
        """
        return drawing_classifier(self.system)

    def _voted(self, x: Tensor, source: NoiseSource) -> tuple[int, int, Tensor]:
        """The most frequent label of an image's draws, how many have it, and the map of the first of them."""
        found: Counter[int] = Counter()
        first: dict[int, Tensor] = {}
        for shown in self.system.shown(x, source, range(self.samples)):
            labels = shown.labels.tolist()
            found.update(labels)
            for label in set(labels) - first.keys():
                first[label] = shown.maps[labels.index(label)].clone()
        (label, votes), *_ = found.most_common(1)
        return label, votes, first[label]
