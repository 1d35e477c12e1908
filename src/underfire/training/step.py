"""One look of a masking network at a batch: its loss, and the numbers that are reported."""

from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.classifier import Classifier
from underfire.interpreters.base import ForwardPass
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.training.losses import class_loss, compose, map_loss, presence
from underfire.training.plan import TrainingPlan


@dataclass(frozen=True)
class Look:
    """What came out for each image of a batch, (N,) each.

    Attributes:
        loss: of the classifier's top class and of an absent one together; attached to the network.
        clean, kept, destroyed: probability of the top class in the image, in the salient part alone, and without it.
        area, absent_area: mean of the maps of the top and of the absent class.
    """

    loss: Tensor
    clean: Tensor
    kept: Tensor
    destroyed: Tensor
    area: Tensor
    absent_area: Tensor


@dataclass(frozen=True)
class Subject:
    """The classifier to explain, and the one whose features are read; often the same."""

    classifier: Classifier
    encoder: Classifier


def look(
    network: MaskingNetwork,
    subject: Subject,
    x: Tensor,
    fill: Tensor,
    pick: Tensor,
    plan: TrainingPlan,
    *,
    share: float = 1.0,
) -> Look:
    """The losses and numbers of images ``x`` (N, C, H, W), inside ``frozen()`` of both classifiers.

    ``fill`` (N, C, H, W) replaces what is taken away. ``pick`` (N,) in [0, 1) chooses the absent class among the half
    of the classes that the classifier finds least likely. ``share`` of the area's weight counts. The features are read
    without a gradient.
    """
    classifier = subject.classifier
    with torch.no_grad():
        view = ForwardPass(subject.encoder, x, taps=network.taps, attached=False)
        logits = view.logits if subject.encoder is classifier else classifier.scores(x)
        order = logits.argsort(dim=1, stable=True)
        top = order[:, -1]
        absent = order.gather(1, (pick * (logits.shape[1] // 2)).long()[:, None]).squeeze(1)
    maps, empty = network.maps(view, top), network.maps(view, absent)
    made = compose(x, maps, fill)
    odds = presence(classifier.scores(torch.cat([made.shown, made.destroyed])), torch.cat([top, top]))
    shown, destroyed = odds.chunk(2)
    loss = class_loss(shown, destroyed, plan) + map_loss(maps, plan, share=share) + map_loss(empty, plan)
    probability = logits.softmax(dim=1).gather(1, top[:, None]).squeeze(1)
    areas = maps.detach().mean(dim=(1, 2)), empty.detach().mean(dim=(1, 2))
    return Look(loss, probability, shown.detach().sigmoid(), destroyed.detach().sigmoid(), *areas)
