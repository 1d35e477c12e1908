"""Second derivatives of ReLU networks, by smoothing their kinks or how these are differentiated.

A ReLU network has none almost everywhere. The authors of ADV² leave its values as they are and replace the factor by
which a ReLU multiplies what comes back; the derivative of that factor is the second derivative. Ghorbani et al. 2019
and Dombrowski et al. 2019 put softplus in the place of ReLU.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from underfire.interpreters import CAM, IG, GradCAM
from underfire.interpreters.activations import ActivationObjective
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.clipping import Clip, Cut, double_backward
from underfire.interpreters.directional import Linearised
from underfire.interpreters.ig import PathObjective
from underfire.interpreters.maps import RawLoss, min_max, pooled
from underfire.models.classifier import Classifier

TAU = 1e-4
"""How wide the kinks are smoothed: half of a factor's change happens within √τ of its kink."""


def smoothed_clip(z: Tensor, low: float, high: float) -> Tensor:
    """``z`` cut to [low, high], differentiated as the authors of ADV² do it; ReLU is their case.

    A clipped value is a difference of two rectified ones, and so is its derivative.
    """
    cut: Tensor = _SmoothedClip.apply(z, low, high)  # type: ignore[no-untyped-call]
    return cut


def rectifier_slope(z: Tensor) -> Tensor:
    """The derivative of h(z) = z + √(z² + τ) below 0 and √(z² + τ) from 0 on: 0 to 1, and at 0 back to 0."""
    rising: Tensor = Rise.apply(z)  # type: ignore[no-untyped-call]
    return rising + (z < 0)


class Rise(torch.autograd.Function):
    """u/√(u² + τ), from −1 to 1, with its derivative in closed form; autograd's would remember every part of it."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """Its values at ``u``."""
        inverse = (u.square() + TAU).rsqrt()
        ctx.save_for_backward(inverse)
        return u * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """τ/(u² + τ)^1.5 times what comes back."""
        inverse: Tensor = ctx.saved_tensors[0]
        return grads[0] * TAU * inverse.pow(3)


class _SmoothedClip(Cut):
    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,), (low, high) = ctx.saved_tensors, ctx.bounds
        factor = rectifier_slope(z - low)
        if math.isfinite(high):
            factor = factor - rectifier_slope(z - high)
        return grads[0] * factor, None, None


@dataclass
class Softplus:
    """Values cut smoothly: for every kink of the cut a softplus, log(1 + exp(βz))/β, the sharper the larger ``beta``.

    At most log(2)/β from the cut itself, at a kink.
    """

    beta: float

    def __call__(self, z: Tensor, low: float, high: float) -> Tensor:
        """``z`` cut to [low, high], either of which may be infinite."""
        cut = low + F.softplus(z - low, beta=self.beta) if math.isfinite(low) else z
        return cut - F.softplus(z - high, beta=self.beta) if math.isfinite(high) else cut


def smoothed_objective(interpreter: Interpreter, target: MapTarget, clip: Clip, loss: RawLoss) -> MapObjective:
    """An objective at the map of CAM, Grad-CAM, GRAD or IG, by autograd's second derivatives.

    GRAD's and IG's gradients are those of the network with ``clip`` in the place of ReLU and its kin. CAM's and
    Grad-CAM's maps have a gradient on the network as it is. IG's path is estimated from random points as
    :class:`underfire.ADV2` does, but drawn evenly. ``loss`` is of maps led to a target; other goals have their own.
    """
    if isinstance(interpreter, CAM | GradCAM):
        return ActivationObjective(interpreter.features, interpreter.raw_maps, target, loss=loss)
    if isinstance(interpreter, IG):
        ig = interpreter

        def along_path(classifier: Classifier, points: Tensor, classes: Tensor) -> Linearised:
            return double_backward(lambda z: ig.outputs(classifier.scores(z), classes), points, clip)

        return PathObjective(ig, target, along_path, loss, even=1.0)
    return GradientObjective(target, clip, loss)


class GradientObjective:
    """A loss of GRAD's map on the smoothed network; the distance is that of the network as it is."""

    taps = ()
    needs_backward = False

    def __init__(self, target: MapTarget, clip: Clip, loss: RawLoss) -> None:
        self._target, self._clip, self._loss = target, clip, loss

    def __call__(self, view: ForwardPass) -> MapGradient:
        """The loss and the direction that lowers it."""
        classifier, target = view.classifier, self._target

        def nll(z: Tensor) -> Tensor:
            return classifier.decision.nll(classifier.scores(z), target.classes)

        gradient, product = double_backward(nll, view.x, self._clip)
        _, loss, v = target.saliency_slope(gradient, self._loss)
        map_distance = target.distance(min_max(pooled(view.nll_gradient(target.classes))))
        return MapGradient(map_distance, loss, product(v), passes=1)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._target = self._target.select(places)
