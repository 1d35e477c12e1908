"""What interpreters share whose map is read from one pass at one tap, and their objective."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.base import (
    ForwardPass,
    Interpreter,
    MapGradient,
    MapObjective,
    MapReading,
    MapTarget,
    Tap,
    pulled_through,
    twice_differentiable,
)
from underfire.interpreters.maps import RawLoss, min_max, scaled_distance
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap, check_kept, find_features

RawMaps = Callable[[ForwardPass, Tensor], Tensor]
"""Unscaled maps (N, h, w) of a view for classes (N,), attached to it."""

TapT = TypeVar("TapT", bound=Tap)


class TappedInterpreter(Interpreter, Generic[TapT]):
    """A map made of what one pass shows at one tap, and of what lies behind that.

    Args:
        classifier: the classifier to explain.
        tap: what is read.
        loss: what an attack descends.

    Attributes:
        goes_back: the map takes a backward pass.
    """

    goes_back: ClassVar[bool] = False

    def __init__(self, classifier: Classifier, tap: TapT, *, loss: RawLoss = scaled_distance) -> None:
        super().__init__(classifier)
        self._tap, self._loss = tap, loss
        self.grid = tap.grid

    @classmethod
    @abstractmethod
    def find(cls, classifier: Classifier) -> TapT:
        """The tap of ``classifier``; raises `InputError` if none serves."""

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """Why no tap of the classifier serves, if so."""
        try:
            cls.find(classifier)
        except InputError as error:
            return str(error)
        return None

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, h, w) of ``x`` for ``y``."""
        return self._maps(self._view(x), y)

    def reading(self) -> MapReading:
        """From its tap."""
        return MapReading((self._tap,), self.goes_back, self._maps)

    def pulled_back(self, x: Tensor, y: Tensor, keys: tuple[str, ...], cotangent: Tensor) -> Tensor:  # noqa: ARG002
        """Jᵀ·``cotangent`` (N, C, H, W), by the graph that attacks go back through."""
        with torch.enable_grad(), twice_differentiable():
            view = ForwardPass(self.classifier, x, taps=(self._tap,))
            maps = min_max(self.raw_maps(view, y))
        return pulled_through(maps, view.x, cotangent, self.name)

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance to the target map and its exact gradient, through whatever weighs the tap too."""
        passes = self.passes_per_step - 1
        return ActivationObjective(self._tap, self.raw_maps, target, loss=self._loss, passes=passes)

    def _view(self, x: Tensor) -> ForwardPass:
        return ForwardPass(self.classifier, x, taps=(self._tap,), attached=self.goes_back)

    def _maps(self, view: ForwardPass, classes: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.goes_back):
            return min_max(self.raw_maps(view, classes, attackable=False))

    @abstractmethod
    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it if ``attackable``."""


class ActivationInterpreter(TappedInterpreter[FeatureMap]):
    """A map made of one activation and of what lies behind it.

    Args:
        classifier: the classifier to explain.
        layer: the layer whose output is read, by name or as a module; by default the last one in which the picture is
            found (see :func:`underfire.models.features.find_features`).

    Attributes:
        features: where that activation is.

    A joint step takes one pass where a linear head reads the activation's mean; else 2, since the prediction's gradient
    and the map's go back to the pixels each by itself, and further passes of the part behind the activation.

    Raises:
        InputError: no activation of the classifier serves, or that of ``layer`` does not.
    """

    family = "representation"
    implied = frozenset({"passes_per_step"})
    needs = "an activation that is laid out like the image, as (N, C, h, w), (N, h, w, C) or tokens"

    def __init__(self, classifier: Classifier, *, layer: str | nn.Module | None = None) -> None:
        super().__init__(classifier, self.find(classifier, layer))
        self.features = self._tap
        if self.features.head is None:
            self.passes_per_step = 2

    @classmethod
    def find(cls, classifier: Classifier, layer: str | nn.Module | None = None) -> FeatureMap:
        """The activation that is read; raises `InputError` if none serves."""
        return find_features(classifier, layer)

    def objective(self, target: MapTarget) -> MapObjective:
        """As above.

        Raises:
            InputError: the layer is another one where attacks work.
        """
        check_kept(self.name, self.features)
        return super().objective(target)


class GradientWeighted(ActivationInterpreter):
    """Grad-CAM and its kin: an activation, weighted by the gradient of the class's logit in it, min–max scaled.

    Signed before scaling by default.

    Args:
        classifier: the classifier to explain.
        layer: the layer whose output is read; by default it is found.
        relu: whether to cut the negative part off.

    Raises:
        InputError: no activation of the classifier serves, or that of ``layer`` does not.
    """

    goes_back = True

    def __init__(self, classifier: Classifier, *, layer: str | nn.Module | None = None, relu: bool = False) -> None:
        super().__init__(classifier, layer=layer)
        self.relu = relu

    def _view(self, x: Tensor) -> ForwardPass:
        """A pass that keeps nothing of what comes before the activation.

        With tokens an ordinary one: their layers take fused ways where nothing requires grad.
        """
        alone = self.features.layout.kind == "channels first" and self.features.spot.item is None
        return ForwardPass(self.classifier, x, taps=(self.features,), detach_at=self.features if alone else None)

    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it if ``attackable``."""
        chosen = view.logits.gather(1, classes[:, None]).squeeze(1)
        slope = view.activation_gradient(self.features, chosen, attackable=attackable)
        activation = view.activation(self.features)
        raw = (self.weights(activation, slope) * activation).sum(dim=1)
        raw = raw.relu() if self.relu else raw
        return raw if attackable else raw.detach()

    @abstractmethod
    def weights(self, activation: Tensor, slope: Tensor) -> Tensor:
        """The weights, (N, C, 1, 1) or (N, C, h, w), of an ``activation`` (N, C, h, w) with the gradient ``slope``."""


class ActivationObjective:
    """A loss of the map, by default the mean absolute distance to the target, and its exact gradient.

    It takes no forward pass of its own; ``passes`` is what it says that it takes beyond the shared one.

    Where all that the logits read passes through an activation that is tapped, the answer's direction stays there, so
    that one backward pass from it to the pixels serves the prediction too.
    """

    def __init__(
        self, tap: Tap, raw_maps: RawMaps, target: MapTarget, *, loss: RawLoss = scaled_distance, passes: int = 0
    ) -> None:
        self.taps, self.needs_backward = (tap,), True
        self._raw_maps, self._target, self._loss, self._passes = raw_maps, target, loss, passes
        self._at = tap if isinstance(tap, FeatureMap) and tap.head is not None else None

    def __call__(self, view: ForwardPass) -> MapGradient:
        """The loss, and its gradient in the activation, or in x where the map depends on more than that."""
        with torch.enable_grad():
            raw = self._raw_maps(view, self._target.classes)
            loss = self._target.loss(raw, self._loss)
        direction = view.gradient(loss) if self._at is None else view.gradient_at(self._at, loss)
        distance = self._target.distance(min_max(raw.detach()))
        return MapGradient(distance, loss.detach(), direction, passes=self._passes, at=self._at)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._target = self._target.select(places)
