"""LIME: a linear model of the class around the image (Ribeiro, Singh & Guestrin 2016)."""

import math

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.mask_sets import MaskSet, segments_of
from underfire.interpreters.masked import Masked
from underfire.interpreters.outputs import Output
from underfire.interpreters.surrogates import ridge
from underfire.models.classifier import Classifier
from underfire.seeding import generator


class LIME(Masked):
    """Coefficients of a ridge regression of f on which segments are shown, min–max scaled.

    As the authors' image explainer has it: a segment is shown with a chance of one half, and a look weighs
    √exp(−D²/width²) with D the cosine distance of the mask to that of the whole image. But segments are cells of a
    grid, a hidden one is of one colour, which does not depend on the image, and no segment is dropped from the
    regression. So the map is linear in f. Every image has its own masks, by ``seed`` and its key.

    Args:
        classifier: the classifier to explain.
        samples: masks that are looked at, that of the whole image included.
        segments: on each side of the grid that the image is cut into; the map's own grid.
        width: of the weights.
        penalty: of the regression, on the sum of squares.
        baseline: value of a hidden pixel in [0, 1]; 0 is black.
        output: f, the class's ``"probability"`` or its ``"logit"``.
        per_step: how many masks each attack step goes backward through, drawn at random; None: all of them,
            which gives the exact gradient.
        renewed: how many others it evaluates again by a forward pass, in turn.
        seed: of the masks.

    Raises:
        InputError: an argument is out of range.
    """

    name = "lime"
    summary = "coefficients of segments in a linear model of the class around the image"
    passes_per_map = 128
    passes_per_step = 5

    def __init__(
        self,
        classifier: Classifier,
        *,
        samples: int = 128,
        segments: int = 7,
        width: float = 0.25,
        penalty: float = 1.0,
        baseline: float = 0.0,
        output: Output = "probability",
        per_step: int | None = 2,
        renewed: int = 2,
        seed: int = 0,
    ) -> None:
        if samples < 2:
            raise InputError(f"samples is {samples}; a regression takes at least 2 masks.")
        for what, value in (("width", width), ("penalty", penalty)):
            if not 0 < value < math.inf:
                raise InputError(f"{what} {value:g} must be a finite number above 0.")
        super().__init__(
            classifier,
            masks=samples,
            grid=segments_of(segments, classifier.input_size),
            baseline=baseline,
            output=output,
            per_step=per_step,
            renewed=renewed,
            seed=seed,
        )
        self.width, self.penalty = width, penalty

    def masks_of(self, key: str, like: Tensor) -> MaskSet:
        """The whole image, and the random masks."""
        segments, draw = math.prod(self.grid), generator(self.seed, key, self.name)
        random = torch.rand((self.passes_per_map - 1, segments), generator=draw) < 0.5
        shown = torch.cat([torch.ones(1, segments), random]).double()
        return MaskSet.of_segments(shown, ridge(shown, self.weights(shown), self.penalty), self.grid, like)

    def weights(self, shown: Tensor) -> Tensor:
        """What the looks at masks ``shown`` (K, d) weigh in the regression, (K,)."""
        cosine = (shown.sum(dim=1) / shown.shape[1]).sqrt()
        return (-((1 - cosine) ** 2) / (2 * self.width**2)).exp()
