"""GRAD: the plain gradient (Simonyan et al. 2014), and an attack on it without second derivatives."""

from collections.abc import Callable

from torch import Tensor

from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapReading, MapTarget
from underfire.interpreters.directional import along
from underfire.interpreters.maps import saliency, saliency_grid
from underfire.models.classifier import Classifier


class GRAD(Interpreter):
    """Channel maximum of |∂(−log p_c)/∂x|, 4×4 mean pool, min–max scaled.

    Args:
        classifier: the classifier to explain.
        probe: length of the directional difference in pixel values, as the mean change per pixel. Short of the
            distance to the next kink a ReLU network has no second derivative to find; this one spans kinks.
    """

    name = "grad"
    family = "back-propagation"
    summary = "magnitude of the gradient of −log p in the pixels"
    passes_per_step = 2

    def __init__(self, classifier: Classifier, *, probe: float = 5e-4) -> None:
        super().__init__(classifier)
        self.probe = probe
        self.grid = saliency_grid(classifier.input_size)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        return saliency(ForwardPass(self.classifier, x).nll_gradient(y, last=True))

    def reading(self) -> MapReading:
        """From the gradient of a pass."""
        return MapReading((), True, lambda view, classes: saliency(view.nll_gradient(classes)))

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance of the map's shape to the target's; its gradient H·v by a directional difference."""
        return _GradientObjective(self, target)


class _GradientObjective:
    """Finds which way the image moves its own gradient, without second derivatives.

    With g = ∂(−log p_c)/∂x, which the prediction loss needs anyway, and v the gradient of the loss in g, the
    direction wanted is H·v ≈ (g(x + h·v̂) − g(x))·‖v‖/h: one more pass, any model.
    """

    taps = ()
    needs_backward = False

    def __init__(self, grad: GRAD, target: MapTarget) -> None:
        self._probe, self._target = grad.probe, target

    def __call__(self, view: ForwardPass) -> MapGradient:
        target, g = self._target, view.nll_gradient(self._target.classes)
        map_distance, loss, v = target.saliency_slope(g)
        gradient_at = nll_field(view.classifier, target.classes)
        return MapGradient(map_distance, loss, along(gradient_at, view.x.detach(), g, v, self._probe), passes=1)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)


def nll_field(classifier: Classifier, classes: Tensor) -> Callable[[Tensor], Tensor]:
    """∂(−log p_c)/∂x (N, C, H, W) for ``classes`` (N,) as a function of images ``x``, detached; each takes one pass."""

    def gradient_at(x: Tensor) -> Tensor:
        return ForwardPass(classifier, x).nll_gradient(classes, last=True)

    return gradient_at
