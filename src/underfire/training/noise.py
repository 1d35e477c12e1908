"""Training of a classifier on noise, so that what it says of noisy images is what it says of the images themselves.

The classifier is fine-tuned towards its own probabilities without noise, which takes no labels. It is the stability
objective of Zheng et al. ("Improving the robustness of deep neural networks via stability training", CVPR 2016), with
the noise of certificates and without their term on clean images.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underfire.certificates.noise import SeededNoise, noisy
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images.dataset import Split
from underfire.models.classifier import Classifier
from underfire.models.decisions import check_exclusive
from underfire.models.draws import refuse_random
from underfire.models.features import find_features
from underfire.models.folded import copied, prepared
from underfire.training.batches import Batch
from underfire.training.loop import Listener, train
from underfire.training.plan import NoisePlan
from underfire.training.scores import Score, means
from underfire.weights import write_weights

METHOD = "training on noise"
"""What the file of the weights says of how they were made."""


@dataclass(frozen=True)
class NoiseScore(Score):
    """How often the label is the one that the classifier gave without noise before it was trained.

    Attributes:
        clean: share of the held-out photos, without noise.
        noisy: share of their noisy copies.
        noisy_before: the same of the weights it began with, on the same copies.
    """

    clean: float
    noisy: float
    noisy_before: float


def train_noise(classifier: Classifier, photos: Split, out: Path, *, plan: NoisePlan, listener: Listener) -> None:
    """Fine-tune layers of ``classifier`` on noisy photos and write all its weights to ``out``; see ``loop.train``.

    The file is a checkpoint of the same model, as `load_classifier` takes it. The classifier is left as it was, and
    norms keep their running statistics.

    Raises:
        InputError: a layer cannot be trained, classes don't exclude each other, the classifier draws random numbers or
            cannot be copied, there is a file or a checkpoint of other settings, or the loss of a photo is not a number.
    """
    check_exclusive(METHOD, exclusive=classifier.decision.exclusive)
    refuse_random(classifier)
    layers = _layers(classifier, plan.layers)

    def lesson() -> NoiseLesson:
        return NoiseLesson(classifier, layers, plan)

    train(lesson, classifier, photos, out, plan=plan, listener=listener, method=METHOD)


class NoiseLesson:
    """Say of a noisy image what was said of the image itself."""

    def __init__(self, classifier: Classifier, layers: tuple[str, ...], plan: NoisePlan) -> None:
        self._before, self._plan, self._layers = prepared(classifier), plan, layers
        self._student = copied(classifier)
        if self._student is classifier:
            raise InputError(f"the model {classifier.name!r} cannot be copied, and so not be trained; give its module.")
        self.network = nn.ModuleList(self._student.module.get_submodule(name) for name in layers)

    def losses(self, batch: Batch, done: float) -> Tensor:  # noqa: ARG002 - part of a lesson
        """Cross-entropy (N,) of one noisy copy of each photo to the probabilities before, without noise."""
        logits = self._logits(self._noisy(batch, f"training {batch.moment}", 0))
        if not logits.requires_grad:
            raise InputError(
                f"{self._student.name!r} does not use the weights of {quoted(', '.join(self._layers))}; name layers"
                " that its classes depend on."
            )
        losses = _cross_entropy(logits, self._logits_before(batch.x))
        batch.check_losses(losses)
        return losses

    def score(self, held_out: Iterable[Batch]) -> NoiseScore:
        """That of the held-out photos."""
        parts = []
        for batch in held_out:
            before = self._logits_before(batch.x)
            label = before.argmax(dim=1)
            copies = [self._noisy(batch, "held out", draw) for draw in range(self._plan.draws)]
            shown = torch.stack([self._logits(z) for z in copies])
            told = torch.stack([self._logits_before(z).argmax(dim=1) for z in copies])
            parts.append(
                {
                    "loss": torch.stack([_cross_entropy(logits, before) for logits in shown]).mean(dim=0),
                    "clean": self._logits(batch.x).argmax(dim=1) == label,
                    "noisy": (shown.argmax(dim=2) == label).double().mean(dim=0),
                    "noisy_before": (told == label).double().mean(dim=0),
                }
            )
        return NoiseScore(**means(parts))

    def save(self, out: Path, about: Mapping[str, Any]) -> None:
        """Write all weights of the classifier."""
        state = {name: value.clone() for name, value in self._student.module.state_dict().items()}  # some are tied
        write_weights(out, state, about)

    def _noisy(self, batch: Batch, purpose: str, draw: int) -> Tensor:
        """A noisy copy of each photo (N, C, H, W), as a certified system draws it."""
        sources = [SeededNoise(self._plan.seed, name, purpose) for name in batch.names]
        copies = [noisy(x, self._plan.sigma, source, draw) for x, source in zip(batch.x, sources, strict=True)]
        return torch.stack(copies).clamp(0, 1)

    def _logits_before(self, x: Tensor) -> Tensor:
        with torch.no_grad(), self._before.frozen():
            return self._before.scores(x)

    def _logits(self, x: Tensor) -> Tensor:
        """Those of the network under training, attached to what is trained."""
        with self._student.frozen():
            self.network.requires_grad_(torch.is_grad_enabled())
            return self._student.scores(x)


def _cross_entropy(logits: Tensor, before: Tensor) -> Tensor:
    """Of logits (N, K) to the probabilities of others."""
    return -(before.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


def _layers(classifier: Classifier, named: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the layers to train, none inside another: those ``named``, or the linear head's.

    Raises:
        InputError: there is no such layer or head, or it has no weights.
    """
    if not named:
        head = find_features(classifier).head
        if head is None or head.weight is None:
            raise InputError(
                f"the model {classifier.name!r} has no linear layer that reads its pooled features; name the layers to"
                " train with --layers."
            )
        return (head.weight.rpartition(".")[0],)
    modules = dict(classifier.module.named_modules())
    for name in named:
        if name not in modules:
            raise InputError(
                f"layer {quoted(name)} is none of {classifier.name!r}; give a name of its named_modules()."
            )
        weights = list(modules[name].parameters())
        if not weights or not all(weight.is_floating_point() for weight in weights):
            raise InputError(f"layer {quoted(name)} of {classifier.name!r} has no weights to train; name another.")
    return tuple(name for name in dict.fromkeys(named) if not any(name.startswith(f"{other}.") for other in named))
