"""The objective of interpreters whose map is made of one activation."""

from collections.abc import Callable

import torch
from torch import Tensor

from underfire.interpreters.base import ForwardPass, MapGradient, MapTarget
from underfire.interpreters.maps import RawLoss, scaled_distance
from underfire.models.features import FeatureMap

RawMaps = Callable[[ForwardPass, Tensor], Tensor]
"""Unscaled maps (N, h, w) of a view for classes (N,), attached to it."""


class ActivationObjective:
    """A loss of the map, by default the mean absolute distance to the target, and its exact gradient.

    It takes no forward pass of its own.

    Where all that the logits read passes through the activation, the answer's direction stays there, so that
    one backward pass from it to the pixels serves the prediction too.
    """

    def __init__(
        self, features: FeatureMap, raw_maps: RawMaps, target: MapTarget, *, loss: RawLoss = scaled_distance
    ) -> None:
        self.taps, self.needs_backward = (features,), True
        self._features, self._raw_maps, self._target, self._loss = features, raw_maps, target, loss

    def __call__(self, view: ForwardPass) -> MapGradient:
        """The loss, and its gradient in the activation, or in x where the map depends on more than that."""
        with torch.enable_grad():
            raw = self._raw_maps(view, self._target.classes)
            loss = self._loss(raw, self._target.maps)
        at = None if self._features.head is None else self._features
        direction = view.gradient(loss) if at is None else view.gradient_at(at, loss)
        return MapGradient(scaled_distance(raw.detach(), self._target.maps), loss.detach(), direction, passes=0, at=at)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._target = self._target.select(places)
