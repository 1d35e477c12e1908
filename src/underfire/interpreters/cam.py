"""CAM: class activation mapping (Zhou et al. 2016)."""

import torch
from torch import Tensor

from underfire.classifier import Classifier
from underfire.errors import InputError
from underfire.interpreters.base import Aim, ForwardPass, Interpreter, Pull, Task
from underfire.interpreters.maps import distance, min_max
from underfire.structure import find_features, head_weight


class CAM(Interpreter):
    """The last activation, weighted by the class's row of the linear head: Σ_k w[c,k]·A_k, min–max scaled.

    Signed before scaling. It needs a classifier that ends in global average pooling and one linear layer.

    Raises:
        InputError: the classifier has another head; Grad-CAM is the generalisation.
    """

    name = "cam"
    family = "representation"
    summary = "last activation weighted by the class's row of the linear head"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        features = find_features(classifier)
        if features is None or features.head is None:
            raise InputError(
                f"CAM needs global average pooling and one linear layer, and {classifier.name!r} ends in"
                " another head; use gradcam instead."
            )
        self.features = features
        self.taps = (features,)
        self.grid = features.grid

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, h, w) of ``x`` for ``y``."""
        return self._map(ForwardPass(self.classifier, x, taps=self.taps, attached=False), y)

    def aim(self, task: Task) -> Aim:
        """The mean absolute distance to the target map, and its exact gradient by one backward pass."""

        def pull(view: ForwardPass) -> Pull:
            with torch.enable_grad():
                loss = distance(self._map(view, task.classes), task.maps)
            return Pull(loss.detach(), view.gradient(loss), passes=0)

        return pull

    def _map(self, view: ForwardPass, classes: Tensor) -> Tensor:
        weights = head_weight(view.classifier, self.features)[classes]
        return min_max((weights[:, :, None, None] * view.activation(self.features)).sum(dim=1))
