"""Whether a classifier can be attacked by its gradients at all: properties of the model that make attacks look weak.

After Athalye et al. 2018 (shattered and stochastic gradients) and Carlini et al. 2019 (numerical saturation, the model
in the wrong mode). What `Classifier` refuses when it is made is not asked again; these are asked of photos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import torch
from torch import Tensor

from underfire.diagnostics.attack_signs import Reading, Weight
from underfire.errors import ModelError
from underfire.interpreters.base import ForwardPass
from underfire.models.classifier import Classifier, differing
from underfire.models.outputs import is_probabilities

COMPANY = 1e-2
"""A row may differ by this share of the logits' spread in another batch: there a GPU may pick another kernel, and its
short floats keep three digits a layer. Statistics of the batch move logits by tenths of their spread."""

STRETCH = 100.0
"""So many times further from grey are images on which outputs between 0 and 1 show whether they are bounded."""

USED = 0.9
"""Of the interval from 0 to 1, what probabilities use at least: on stretched images a sigmoid is near 0 or 1."""

SATURATED = 0.5
"""Share of photos with probability 1 from which on the model counts as saturated: one photo may be as easy as that."""


class ModelCheck(StrEnum):
    """What can be wrong with a model, seen on some images."""

    RANDOMISED = "randomised"
    COUPLED = "coupled"
    PROBABILITIES = "probabilities"
    NOT_PROBABILITIES = "not_probabilities"
    NO_GRADIENT = "no_gradient"
    SATURATED = "saturated"

    @property
    def reading(self) -> Reading:
        """It in plain words."""
        return _READINGS[self]


_READINGS: Mapping[ModelCheck, Reading] = MappingProxyType(
    {
        ModelCheck.RANDOMISED: Reading(
            Weight.SERIOUS,
            "two identical calls gave different outputs",
            "The model draws random numbers, so that each step of an attack is taken for a model that is gone at the "
            "next, and the same audit gives other figures each time.",
            "Give uf.fixed_draws(classifier, draws=16), and score over fresh draws with uf.attack_draws.",
        ),
        ModelCheck.COUPLED: Reading(
            Weight.SERIOUS,
            "the output changed with the other photos of the batch",
            "The model is not in evaluation mode, though it was asked to be: it uses statistics of the batch, and so "
            "figures depend on which photos are attacked together.",
            "Make its normalisation use running statistics (in PyTorch, pass training=self.training).",
        ),
        ModelCheck.PROBABILITIES: Reading(
            Weight.SERIOUS,
            "all outputs lay between 0 and 1, as probabilities do, though they were declared to be logits",
            "A softmax over them is nearly flat: confidences are far too low and gradients of the loss are weak.",
            "Remove the model’s last softmax or sigmoid, or say outputs='probabilities' where it is a softmax.",
        ),
        ModelCheck.NOT_PROBABILITIES: Reading(
            Weight.SERIOUS,
            "the outputs were no probabilities, though they were declared to be: they don’t sum to 1 or fall below 0",
            "Their logarithm is not what the model means, and what lies below 0 has no gradient.",
            "Drop outputs='probabilities' if the model returns logits.",
        ),
        ModelCheck.NO_GRADIENT: Reading(
            Weight.SERIOUS,
            "the loss had no gradient in any pixel of the benign photo",
            "An attack that follows gradients cannot take its first step there, and that it fails shows nothing about "
            "the model.",
            "Look for rounding, thresholds, argmax or detach inside the model, and judge it by an attack that needs no "
            "gradient.",
        ),
        ModelCheck.SATURATED: Reading(
            Weight.CAUTION,
            "the prediction had a probability of exactly 1",
            "The logits are so far apart that rounding swallows the rest: the gradient of a prediction’s own loss is "
            "zero, so that maps made from it (GRAD, IG) show rounding errors.",
            "Divide the logits by a constant: predictions stay what they are.",
        ),
    }
)


@dataclass(frozen=True)
class Checked:
    """The outcome of one check.

    Attributes:
        check: what was looked for.
        shown: on how many images it was seen.
        of: how many were looked at; 0 if the check could not be made.
        fired: whether that is enough to say it of the model.
    """

    check: ModelCheck
    shown: int
    of: int
    fired: bool


def check_model(classifier: Classifier, photos: Tensor) -> tuple[Checked, ...]:
    """All checks of ``classifier`` on a few benign ``photos`` (N, C, H, W) in [0, 1] and on its own test patterns.

    Takes about four forward passes of N + 4 images and one backward pass of N; two more where outputs look like
    probabilities.

    Raises:
        InputError: ``photos`` are not what the classifier takes.
    """
    classifier.check_images(photos)
    images = torch.cat([photos, classifier.patterns()])
    with torch.no_grad(), classifier.frozen():
        scores = classifier.scores(images)
        again = classifier.scores(images)
        half = len(images) // 2
        apart = torch.cat([classifier.scores(images[:half]), classifier.scores(images[half:])])
    scale = float(scores.std())
    moved = int(differing(scores, again).sum())
    randomised = Checked(ModelCheck.RANDOMISED, moved, len(images), fired=moved > 0)
    return (
        randomised,
        _coupled(scores, apart, COMPANY * scale, randomised=randomised.fired),
        *_outputs(classifier, images, scores),
        _no_gradient(classifier, photos),
        _saturated(classifier.decision.probabilities(scores[: len(photos)])),
    )


def _coupled(scores: Tensor, apart: Tensor, tolerance: float, *, randomised: bool) -> Checked:
    """Compares rows with those of other batches; a randomised model differs anyway."""
    if randomised:
        return Checked(ModelCheck.COUPLED, 0, 0, fired=False)
    moved = int(((scores - apart).abs() > tolerance).any(dim=1).sum())
    return Checked(ModelCheck.COUPLED, moved, len(scores), fired=moved > 0)


def _outputs(classifier: Classifier, images: Tensor, scores: Tensor) -> tuple[Checked, Checked]:
    """Whether what the module returned (its logarithm, where it declares probabilities) is what it declares."""
    n = len(scores)
    logits = classifier.outputs != "probabilities" and not classifier.reading.squashed
    within = int(_within(scores).sum()) if logits else 0
    rows = scores if classifier.outputs == "probabilities" and not classifier.reading.squashed else scores[:0]
    other = sum(not is_probabilities(row.exp()[None]) for row in rows)
    bounded = logits and within == n and _bounded(classifier, images, scores)
    return (
        Checked(ModelCheck.PROBABILITIES, within, n if logits else 0, fired=bounded),
        Checked(ModelCheck.NOT_PROBABILITIES, other, len(rows), fired=other > 0),
    )


def _within(scores: Tensor) -> Tensor:
    """(N,): whether all outputs of an image lie between 0 and 1."""
    return ((scores >= 0) & (scores <= 1)).all(dim=1)


def _bounded(classifier: Classifier, images: Tensor, scores: Tensor) -> bool:
    """Whether outputs between 0 and 1 stay there for images stretched far beyond their range, and use that interval.

    Those of a sigmoid or softmax do, whatever goes in. The logits of an untrained network may lie there for all
    photos, but they leave when its input grows, and where a normalisation keeps it from growing they hardly differ.
    """
    try:
        with torch.no_grad(), classifier.frozen():
            far = torch.cat([classifier.scores(0.5 + stretch * (images - 0.5)) for stretch in (STRETCH, -STRETCH)])
    except ModelError:  # it minds the range itself
        far = scores
    used = torch.cat([scores, far])
    return bool(_within(far).all()) and float(used.max() - used.min()) >= USED


def _no_gradient(classifier: Classifier, photos: Tensor) -> Checked:
    """Looks at the loss of the second most probable class: an attack's, which doesn't vanish with certainty."""
    if not len(photos):
        return Checked(ModelCheck.NO_GRADIENT, 0, 0, fired=False)
    with classifier.frozen():
        view = ForwardPass(classifier, photos)
        try:
            gradient = view.nll_gradient(view.logits.topk(2, dim=1).indices[:, 1])
            still = int((gradient.flatten(1).abs().amax(dim=1) == 0).sum())
        except ModelError:  # what needs a gradient will say why there is none
            still = len(photos)
    return Checked(ModelCheck.NO_GRADIENT, still, len(photos), fired=still > 0)


def _saturated(probabilities: Tensor) -> Checked:
    sure, n = int((probabilities.amax(dim=1) == 1).sum()), len(probabilities)
    return Checked(ModelCheck.SATURATED, sure, n, fired=sure > 0 and sure >= SATURATED * n)
