"""RISE: randomised input sampling (Petsiuk, Das & Saenko 2018)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.interpreters.maps import POOL, saliency_grid
from underfire.interpreters.mask_sets import MaskSet, cell_of, in_pixels, segments_of
from underfire.interpreters.masked import Masked
from underfire.interpreters.outputs import Output
from underfire.models.classifier import Classifier
from underfire.seeding import generator


class RISE(Masked):
    """Σ_k f(x ⊙ M_k)·M_k / (K·share) over soft random masks, 4×4 mean pooled and min–max scaled.

    A mask is a small grid of zeros and ones, enlarged bilinearly and cut out at random. Every image has its own, by
    ``seed`` and its key.

    Args:
        classifier: the classifier to explain.
        masks: how many there are; the authors take 4000 and more, whose maps are smoother.
        segments: cells of a mask on each side.
        share: chance of a cell to be shown.
        baseline: value of a hidden pixel in [0, 1]; 0 is black.
        output: f, the class's ``"probability"`` or its ``"logit"``.
        per_step: how many masks each attack step goes backward through, drawn at random; None: all of them,
            which gives the exact gradient.
        renewed: how many others it evaluates again by a forward pass, in turn.
        seed: of the masks.

    Raises:
        InputError: an argument is out of range.
    """

    name = "rise"
    summary = "mean of random soft masks, weighed by what the class keeps under them"
    passes_per_map = 128
    passes_per_step = 5

    def __init__(
        self,
        classifier: Classifier,
        *,
        masks: int = 128,
        segments: int = 7,
        share: float = 0.5,
        baseline: float = 0.0,
        output: Output = "probability",
        per_step: int | None = 2,
        renewed: int = 2,
        seed: int = 0,
    ) -> None:
        if masks < 1:
            raise InputError(f"masks is {masks}; a mean takes at least 1 mask.")
        if not 0 < share < 1:
            raise InputError(f"share {share:g} is no chance of a cell to be shown, between 0 and 1.")
        super().__init__(
            classifier,
            masks=masks,
            grid=saliency_grid(classifier.input_size),
            baseline=baseline,
            output=output,
            per_step=per_step,
            renewed=renewed,
            seed=seed,
        )
        self.share = share
        self._cells = segments_of(segments, classifier.input_size)

    def masks_of(self, key: str, like: Tensor) -> MaskSet:
        """Random grids and where each is cut out."""
        size, count = self.classifier.input_size, self.passes_per_map
        draw = generator(self.seed, key, self.name)
        shown = (torch.rand((count, *self._cells), generator=draw) < self.share).to(like.device, like.dtype)
        corners = torch.stack(
            [torch.randint(0, side, (count,), generator=draw) for side in cell_of(self._cells, size)], dim=1
        ).to(like.device)
        weights = F.avg_pool2d(in_pixels(shown, corners, size)[:, None], POOL)[:, 0] / (count * self.share)
        return MaskSet(shown[None], weights[None], corners[None])
