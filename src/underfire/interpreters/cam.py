"""CAM: class activation mapping (Zhou et al. 2016)."""

from torch import Tensor, nn

from underfire.errors import InputError
from underfire.interpreters.activations import ActivationObjective
from underfire.interpreters.base import ForwardPass, Interpreter, MapObjective, MapTarget
from underfire.interpreters.maps import min_max
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap, check_kept, find_features, head_weight


class CAM(Interpreter):
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
    family = "representation"
    summary = "last activation weighted by the class's row of the linear head"
    needs = "global average pooling and one linear layer at the end"

    def __init__(self, classifier: Classifier, *, layer: str | nn.Module | None = None) -> None:
        super().__init__(classifier)
        self.features = _read_linearly(classifier, layer)
        self.grid = self.features.grid

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """That the classifier has another head, or no activation that serves, if so."""
        try:
            _read_linearly(classifier, None)
        except InputError as error:
            return str(error)
        return None

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, h, w) of ``x`` for ``y``."""
        return min_max(self.raw_maps(ForwardPass(self.classifier, x, taps=(self.features,), attached=False), y))

    def objective(self, target: MapTarget) -> MapObjective:
        """The mean absolute distance to the target map and its exact gradient.

        Raises:
            InputError: the layer is another one where attacks work.
        """
        check_kept(self.name, self.features)
        return ActivationObjective(self.features, self.raw_maps, target)

    def raw_maps(self, view: ForwardPass, classes: Tensor) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it."""
        weights = head_weight(view.classifier, self.features)[classes]
        return (weights[:, :, None, None] * view.activation(self.features)).sum(dim=1)


def _read_linearly(classifier: Classifier, layer: str | nn.Module | None) -> FeatureMap:
    """The features whose mean a linear head reads; raises `InputError` if there are none."""
    features = find_features(classifier, layer)
    if features.head is None:
        needed = "CAM needs global average pooling and one linear layer"
        raise InputError(f"{needed}, and {classifier.name!r} ends in another head; use gradcam instead.")
    return features
