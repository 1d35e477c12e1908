"""CAM: class activation mapping (Zhou et al. 2016)."""

from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.activations import ActivationObjective
from underfire.interpreters.base import ForwardPass, Interpreter, MapObjective, MapTarget
from underfire.interpreters.maps import min_max
from underfire.models.classifier import Classifier
from underfire.models.features import find_features, head_weight


class CAM(Interpreter):
    """The last activation, weighted by the class's row of the linear head: Σ_k w[c,k]·A_k, min–max scaled.

    Signed before scaling. It needs a classifier that ends in global average pooling and one linear layer.

    Raises:
        InputError: the classifier has another head; Grad-CAM is the generalisation.
    """

    name = "cam"
    family = "representation"
    summary = "last activation weighted by the class's row of the linear head"
    needs = "global average pooling and one linear layer at the end"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        features = find_features(classifier)
        if features is None or features.head is None:
            raise InputError(_another_head(classifier))
        self.features = features
        self.grid = features.grid

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """That the classifier has another head, if so."""
        features = find_features(classifier)
        return _another_head(classifier) if features is None or features.head is None else None

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, h, w) of ``x`` for ``y``."""
        return min_max(self.raw_maps(ForwardPass(self.classifier, x, taps=(self.features,), attached=False), y))

    def objective(self, target: MapTarget) -> MapObjective:
        """The mean absolute distance to the target map and its exact gradient."""
        return ActivationObjective(self.features, self.raw_maps, target)

    def raw_maps(self, view: ForwardPass, classes: Tensor) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it."""
        weights = head_weight(view.classifier, self.features)[classes]
        return (weights[:, :, None, None] * view.activation(self.features)).sum(dim=1)


def _another_head(classifier: Classifier) -> str:
    needed = "CAM needs global average pooling and one linear layer"
    return f"{needed}, and {classifier.name!r} ends in another head; use gradcam instead."
