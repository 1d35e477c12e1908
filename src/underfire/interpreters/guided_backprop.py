"""GuidedBackprop: guided back-propagation (Springenberg et al. 2015)."""

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.clipping import Clipping, double_backward
from underfire.interpreters.gates import guiding
from underfire.interpreters.maps import saliency, saliency_grid
from underfire.models.classifier import Classifier


class GuidedBackprop(Interpreter):
    """What comes back from the class's logit when every ReLU lets only positive values back, as a saliency map.

    The map is the channel maximum of its magnitude, 4×4 mean pooled and min–max scaled. ReLU6 and hardtanh, which
    stop what comes back above their upper bound too, get the same rule, however they are called: as a layer, a
    function, a clamp at 0, the larger of a tensor and 0, a product with where it is above 0, an operator of an exported
    graph. Any other activation is differentiated as it is: on a network of none but these the map is that of the
    logit's gradient.

    Raises:
        InputError: the module, or a part of it, was scripted or compiled, so that nobody sees its ReLUs being called.
    """

    name = "guidedbackprop"
    title = "Guided back-propagation"
    family = "back-propagation"
    summary = "what comes back from the class logit if ReLUs let only positive values back"
    needs = "ReLU, ReLU6 or hardtanh; without any, the gradient of the logit"
    passes_per_step = 3

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        reason = self.available(classifier)
        if reason is not None:
            raise InputError(reason)
        self.grid = saliency_grid(classifier.input_size)

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """That the module, or a part of it, was scripted or compiled, if so."""
        for module in classifier.module.modules():
            scripted, compiled = isinstance(module, torch.jit.ScriptModule), hasattr(module, "_orig_mod")
            if scripted or compiled:
                kind = "scripted" if scripted else "compiled"
                unseen = f"guidedbackprop cannot see the ReLUs of {classifier.name!r}, which has a {kind} module"
                return f"{unseen}; give the module that it was made from."
        return None

    def signed(self, x: Tensor, y: Tensor) -> Tensor:
        """What comes back (N, C, H, W) to images ``x`` (N, C, H, W) in [0, 1] from the logits of classes ``y`` (N,).

        Raises:
            InputError: ``x`` or ``y`` is not what the classifier takes.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(y, x.shape[0])
        with self.classifier.frozen():
            return self._field(x.detach(), y)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        return saliency(self._field(x, y))

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance of the map's shape to the target's; its gradient back through the way back."""
        return _GuidedObjective(target)

    def _field(self, x: Tensor, y: Tensor) -> Tensor:
        with guiding() as clip:
            with Clipping(clip):
                view = ForwardPass(self.classifier, x)
            with torch.enable_grad():
                chosen = _chosen(view.logits, y)
            return view.gradient(chosen, last=True)


class _GuidedObjective:
    """Goes back through the way back itself, ReLU gates given a derivative (see :mod:`underfire.interpreters.gates`).

    What comes back is no gradient of anything, and its Jacobian J not symmetric: a directional difference would give
    J·v where Jᵀ·v is wanted. A pass of its own whose graph is kept, and one through both its directions.
    """

    taps = ()
    needs_backward = False

    def __init__(self, target: MapTarget) -> None:
        self._target = target

    def __call__(self, view: ForwardPass) -> MapGradient:
        target = self._target

        def logits(x: Tensor) -> Tensor:
            return _chosen(view.classifier.scores(x), target.classes)

        with guiding() as clip:
            field, product = double_backward(logits, view.x, clip)
        map_distance, loss, slope = target.saliency_slope(field)
        return MapGradient(map_distance, loss, product(slope), passes=2)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)


def _chosen(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit (N,) of each image's class."""
    return logits.gather(1, classes[:, None]).squeeze(1)
