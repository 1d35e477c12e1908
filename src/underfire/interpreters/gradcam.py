"""Grad-CAM (Selvaraju et al. 2017), the generalisation of CAM to any head."""

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.activations import ActivationObjective
from underfire.interpreters.base import ForwardPass, Interpreter, MapObjective, MapTarget
from underfire.interpreters.maps import min_max
from underfire.models.classifier import Classifier
from underfire.models.features import check_kept, find_features


class GradCAM(Interpreter):
    """The last activation, each channel weighted by the spatial mean of the class logit's gradient, min–max scaled.

    Signed before scaling by default, so that it equals CAM wherever CAM is defined;
    ``relu=True`` cuts the negative part off, as the original does for display.

    Args:
        classifier: the classifier to explain.
        layer: the layer whose output is read, by name or as a module; by default the last one in which the picture is
            found (see :func:`underfire.models.features.find_features`).
        relu: whether to cut the negative part off.

    Raises:
        InputError: no activation of the classifier serves, or that of ``layer`` does not.
    """

    name = "gradcam"
    title = "Grad-CAM"
    family = "representation"
    summary = "last activation weighted by the mean gradient of the class logit; any head"
    needs = "an activation that is laid out like the image, as (N, C, h, w), (N, h, w, C) or tokens"

    def __init__(self, classifier: Classifier, *, layer: str | nn.Module | None = None, relu: bool = False) -> None:
        super().__init__(classifier)
        self.features = find_features(classifier, layer)
        self.relu = relu
        self.grid = self.features.grid

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """Why no activation of the classifier serves, if so."""
        try:
            find_features(classifier)
        except InputError as error:
            return str(error)
        return None

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, h, w) of ``x`` for ``y``."""
        with torch.enable_grad():
            return min_max(self.raw_maps(ForwardPass(self.classifier, x, taps=(self.features,)), y, attackable=False))

    def objective(self, target: MapTarget) -> MapObjective:
        """The mean absolute distance to the target map and its exact gradient, through the channel weights too.

        Raises:
            InputError: the layer is another one where attacks work.
        """
        check_kept(self.name, self.features)
        return ActivationObjective(self.features, self.raw_maps, target)

    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it if ``attackable``."""
        chosen = view.logits.gather(1, classes[:, None]).squeeze(1)
        gradient = view.activation_gradient(self.features, chosen, attackable=attackable)
        raw = (gradient.mean(dim=(2, 3), keepdim=True) * view.activation(self.features)).sum(dim=1)
        raw = raw.relu() if self.relu else raw
        return raw if attackable else raw.detach()
