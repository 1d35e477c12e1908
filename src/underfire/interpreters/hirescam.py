"""HiResCAM (Draelos & Carin 2020)."""

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.activations import GradientWeighted
from underfire.interpreters.base import ForwardPass
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap
from underfire.models.remembered import Remembered

_ROUNDING = 1e-3  # of the terms of a sum, all that is left where they cancel; 1e-5 and 0.05 are what networks have

_cancels: Remembered[bool] = Remembered()
"""By features: whether nothing but rounding is left of the maps."""


class HiResCAM(GradientWeighted):
    """The last activation times the class logit's gradient in it, cell by cell, summed over channels, min–max scaled.

    Where the head is one linear layer it shows what each cell adds to the logit. It is CAM where that reads a mean.
    Where a norm comes first of all that reads a cell, as before the last block of a vision transformer with a class
    token, the scale of a cell changes no logit, and the sum over its channels is 0 but for rounding: that is refused.
    """

    name = "hirescam"
    title = "HiResCAM"
    summary = "last activation times the gradient of the class logit, cell by cell"
    needs = f"{GradientWeighted.needs}, and is not read through a norm alone"

    @classmethod
    def find(cls, classifier: Classifier, layer: str | nn.Module | None = None) -> FeatureMap:
        """The activation that is read; raises `InputError` if none serves, or its terms cancel in every cell."""
        features = super().find(classifier, layer)
        if features.head is None and _cancels.get(classifier, features, lambda: _cancel(classifier, features)):
            raise InputError(
                f"in {classifier.name!r} gradient times activation adds up to 0 in every cell of {features.module!r},"
                " since a norm takes out the scale of each; use gradcam instead, or name the layer of that norm."
            )
        return features

    def weights(self, activation: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG002 - reads the gradient alone
        """The gradient (N, C, h, w) itself."""
        return slope


def _cancel(classifier: Classifier, features: FeatureMap) -> bool:
    """Whether the maps of all patterns, for the classes predicted, are what rounding leaves of sums that are 0."""
    with classifier.frozen(), torch.enable_grad():
        view = ForwardPass(classifier, classifier.patterns(), taps=(features,))
        slope = view.activation_gradient(features, view.logits.amax(dim=1), attackable=False)
        terms = (slope * view.activation(features)).detach()
    most, left = terms.abs().sum(dim=1).amax(dim=(1, 2)), terms.sum(dim=1).abs().amax(dim=(1, 2))
    return bool((most > 0).any() and (left <= _ROUNDING * most).all())
