"""MASK: the smallest deletion that takes the class away (Fong & Vedaldi 2017)."""

from torch import Tensor

from underfire.interpreters.base import Interpreter, MapObjective, MapTarget
from underfire.interpreters.masks.fit import Fitted, fit_masks
from underfire.interpreters.masks.objective import MaskObjective
from underfire.interpreters.masks.settings import MaskFit
from underfire.models.classifier import Classifier
from underfire.seeding import owners


class MASK(Interpreter):
    """1 − m, with m the fitted deletion mask: high where blurring the image takes the class away.

    Args:
        classifier: the classifier to explain.
        fit: what is fitted, and for how long.
        seed: of the jitter, which every image draws for itself.
    """

    name = "mask"
    family = "perturbation"
    summary = "the smallest part of the image whose blurring takes the class away"
    passes_per_map = MaskFit.steps
    passes_per_step = 3
    estimates = True
    slow = True

    def __init__(self, classifier: Classifier, *, fit: MaskFit | None = None, seed: int = 0) -> None:
        super().__init__(classifier)
        self.fit = MaskFit() if fit is None else fit
        self.seed = seed
        self.passes_per_map = self.fit.steps
        self.grid = self.fit.grid(classifier.input_size)

    def fitted(self, x: Tensor, y: Tensor, *, keys: tuple[str, ...] | None = None) -> Fitted:
        """The masks of images ``x`` (N, C, H, W) in [0, 1] for classes ``y`` (N,), and the course of their objective.

        Raises:
            InputError: ``x`` or ``y`` is not what the classifier takes.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(y, x.shape[0])
        with self.classifier.frozen():
            return fit_masks(self.classifier, self.fit, x.detach(), y, owners(x, keys), self.seed)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps (N, h, w) of ``x`` for ``y``."""
        return 1 - fit_masks(self.classifier, self.fit, x, y, keys, self.seed).masks

    def objective(self, target: MapTarget) -> MapObjective:
        """The value function's map distance, by a fit that is replayed along the attack."""
        return MaskObjective(self.fit, self.classifier.input_size, target, seed=self.seed)
