"""CAM: class activation mapping (Zhou et al. 2016)."""

from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.activations import ActivationInterpreter
from underfire.interpreters.base import ForwardPass
from underfire.models.classifier import Classifier
from underfire.models.draws import refuse_random
from underfire.models.features import FeatureMap, find_features, head_weight


class CAM(ActivationInterpreter):
    """The last activation, weighted by the class's row of the linear head: Σ_k w[c,k]·A_k, min–max scaled.

    Signed before scaling. It needs a classifier whose logits are W·mean + b of the mean over an activation's cells,
    whatever layers compute them.

    Args:
        classifier: the classifier to explain.
        layer: the layer whose output is that activation, by name or as a module; by default it is found.

    Raises:
        InputError: the classifier has another head, for which Grad-CAM is the generalisation, or the layer does not
            serve.
    """

    name = "cam"
    summary = "last activation weighted by the class's row of the linear head"
    needs = "global average pooling and one linear layer at the end"

    @classmethod
    def find(cls, classifier: Classifier, layer: str | nn.Module | None = None) -> FeatureMap:
        """The features whose mean a linear head reads; raises `InputError` if there are none."""
        features = find_features(classifier, layer)
        if features.head is None:
            refuse_random(classifier)  # no head answers twice alike
            needed = "CAM needs global average pooling and one linear layer"
            raise InputError(f"{needed}, and {classifier.name!r} ends in another head; use gradcam instead.")
        return features

    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:  # noqa: ARG002
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it."""
        weights = head_weight(view.classifier, self.features)[classes]
        return (weights[:, :, None, None] * view.activation(self.features)).sum(dim=1)
