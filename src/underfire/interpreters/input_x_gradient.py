"""InputXGradient: the gradient times the image (Shrikumar et al. 2016)."""

from torch import Tensor

from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.directional import along
from underfire.interpreters.grad import nll_field
from underfire.interpreters.maps import saliency, saliency_grid
from underfire.models.classifier import Classifier


class InputXGradient(Interpreter):
    """Channel maximum of |x ⊙ ∂(−log p_c)/∂x|, 4×4 mean pool, min–max scaled; x in [0, 1], so that black gets nothing.

    Args:
        classifier: the classifier to explain.
        probe: length of the directional difference in pixel values, as in GRAD.
    """

    name = "inputxgradient"
    title = "Input × gradient"
    family = "back-propagation"
    summary = "gradient of −log p in the pixels, times the pixels"
    passes_per_step = 2

    def __init__(self, classifier: Classifier, *, probe: float = 5e-4) -> None:
        super().__init__(classifier)
        self.probe = probe
        self.grid = saliency_grid(classifier.input_size)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:  # noqa: ARG002 - draws nothing
        """The maps (N, H/4, W/4) of ``x`` for ``y``."""
        return saliency(x * ForwardPass(self.classifier, x).nll_gradient(y, last=True))

    def objective(self, target: MapTarget) -> MapObjective:
        """The distance of the map's shape to the target's; its gradient by one directional difference."""
        return _ProductObjective(self, target)


class _ProductObjective:
    """Moves both factors of the attribution a = x ⊙ g.

    With s the gradient of the loss in a, the direction wanted is g ⊙ s + H·(x ⊙ s): g is at hand, H that of GRAD.
    """

    taps = ()
    needs_backward = False

    def __init__(self, interpreter: InputXGradient, target: MapTarget) -> None:
        self._probe, self._target = interpreter.probe, target

    def __call__(self, view: ForwardPass) -> MapGradient:
        target, x = self._target, view.x.detach()
        g = view.nll_gradient(target.classes)
        map_distance, loss, slope = target.saliency_slope(x * g)
        curved = along(nll_field(view.classifier, target.classes), x, g, x * slope, self._probe)
        return MapGradient(map_distance, loss, g * slope + curved, passes=1)

    def select(self, places: Tensor) -> None:
        self._target = self._target.select(places)
