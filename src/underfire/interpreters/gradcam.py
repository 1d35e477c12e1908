"""Grad-CAM (Selvaraju et al. 2017), the generalisation of CAM to any head."""

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.activations import ActivationObjective
from underfire.interpreters.base import ForwardPass, Interpreter, MapObjective, MapTarget
from underfire.interpreters.maps import min_max
from underfire.models.classifier import Classifier
from underfire.models.features import find_features


class GradCAM(Interpreter):
    """The last activation, each channel weighted by the spatial mean of the class logit's gradient, min–max scaled.

    Signed before scaling by default, so that it equals CAM wherever CAM is defined;
    ``relu=True`` cuts the negative part off, as the original does for display.

    Raises:
        InputError: the classifier has no convolutional activation.
    """

    name = "gradcam"
    title = "Grad-CAM"
    family = "representation"
    summary = "last activation weighted by the mean gradient of the class logit; any head"
    needs = "a convolutional activation"

    def __init__(self, classifier: Classifier, *, relu: bool = False) -> None:
        super().__init__(classifier)
        features = find_features(classifier)
        if features is None:
            raise InputError(_no_activation(classifier))
        self.features = features
        self.relu = relu
        self.grid = features.grid

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """That the classifier has no convolutional activation, if so."""
        return _no_activation(classifier) if find_features(classifier) is None else None

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, h, w) of ``x`` for ``y``."""
        with torch.enable_grad():
            return min_max(self.raw_maps(ForwardPass(self.classifier, x, taps=(self.features,)), y, attackable=False))

    def objective(self, target: MapTarget) -> MapObjective:
        """The mean absolute distance to the target map and its exact gradient, through the channel weights too."""
        return ActivationObjective(self.features, self.raw_maps, target)

    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it if ``attackable``."""
        chosen = view.logits.gather(1, classes[:, None]).squeeze(1)
        gradient = view.activation_gradient(self.features, chosen, attackable=attackable)
        raw = (gradient.mean(dim=(2, 3), keepdim=True) * view.activation(self.features)).sum(dim=1)
        raw = raw.relu() if self.relu else raw
        return raw if attackable else raw.detach()


def _no_activation(classifier: Classifier) -> str:
    return f"Grad-CAM needs a convolutional activation, and {classifier.name!r} has none; use grad instead."
