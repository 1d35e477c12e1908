"""One training step of a masking network on a batch: its loss, and the numbers that are reported."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from underfire.interpreters.base import ForwardPass
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.models.classifier import Classifier
from underfire.models.folded import prepared
from underfire.training.batches import Batch
from underfire.training.losses import class_loss, compose, map_loss, presence
from underfire.training.plan import RtsPlan


@dataclass(frozen=True)
class StepOutput:
    """The losses and numbers of each image of a batch, (N,) each but for the maps.

    Attributes:
        loss: of the classifier's top class and of an absent one together; attached to the network.
        clean, kept, destroyed: probability of the top class in the image, in the salient part alone, and without it.
        area, absent_area: mean of the maps of the top and of the absent class.
        top: the top class, int64.
        maps: (N, h, w), those of the top class, attached to the network.
        view: the pass of the encoder that they were read from.
    """

    loss: Tensor
    clean: Tensor
    kept: Tensor
    destroyed: Tensor
    area: Tensor
    absent_area: Tensor
    top: Tensor
    maps: Tensor
    view: ForwardPass


@dataclass(frozen=True)
class TrainingStep:
    """Evaluates the training loss of a network on batches.

    Attributes:
        network: whose maps they are.
        classifier: the classifier to explain, prepared.
        encoder: the classifier whose features are read, prepared; often the same.
        plan: the weights of the loss.
    """

    network: MaskingNetwork
    classifier: Classifier
    encoder: Classifier
    plan: RtsPlan

    @classmethod
    def of(cls, network: MaskingNetwork, classifier: Classifier, plan: RtsPlan) -> Self:
        """One for ``classifier``, which is left as it is: what is worked on are copies."""
        twin = prepared(classifier)
        return cls(network, twin, twin if network.encoder is None else prepared(network.encoder), plan)

    def __call__(self, batch: Batch, *, share: float = 1.0) -> StepOutput:
        """The losses and numbers of ``batch``; ``share`` of the area's weight counts.

        ``batch.pick`` chooses the absent class among the half of the classes that the classifier finds least likely.
        The features are read without a gradient.

        Raises:
            InputError: a loss is not a number.
        """
        with self._frozen():
            seen = self._evaluate(batch, share)
        batch.check_losses(seen.loss)
        return seen

    def maps(self, x: Tensor, classes: Tensor) -> Tensor:
        """The maps (N, h, w) of images ``x`` (N, C, H, W) for ``classes`` (N,), attached to the network alone."""
        with self._frozen():
            return self.network.maps(ForwardPass(self.encoder, x, taps=self.network.taps, attached=False), classes)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        with ExitStack() as stack:
            for classifier in (self.classifier, self.encoder):
                stack.enter_context(classifier.frozen())
            yield

    def _evaluate(self, batch: Batch, share: float) -> StepOutput:
        network, classifier, plan, x = self.network, self.classifier, self.plan, batch.x
        with torch.no_grad():
            view = ForwardPass(self.encoder, x, taps=network.taps, attached=False)
            logits = view.logits if self.encoder is classifier else classifier.scores(x)
            order = logits.argsort(dim=1, stable=True)
            top = order[:, -1]
            absent = order.gather(1, (batch.pick * (logits.shape[1] // 2)).long()[:, None]).squeeze(1)
        maps, empty = network.maps(view, top), network.maps(view, absent)
        made = compose(x, maps, batch.fill)
        odds = presence(classifier.scores(torch.cat([made.shown, made.destroyed])), torch.cat([top, top]))
        shown, destroyed = odds.chunk(2)
        loss = class_loss(shown, destroyed, plan) + map_loss(maps, plan, share=share) + map_loss(empty, plan)
        probability = logits.softmax(dim=1).gather(1, top[:, None]).squeeze(1)
        areas = maps.detach().mean(dim=(1, 2)), empty.detach().mean(dim=(1, 2))
        return StepOutput(
            loss, probability, shown.detach().sigmoid(), destroyed.detach().sigmoid(), *areas, top, maps, view
        )
