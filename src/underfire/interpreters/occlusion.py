"""Occlusion: what the class loses where a window hides the image (Zeiler & Fergus 2014)."""

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.mask_sets import MaskSet, segments_of
from underfire.interpreters.masked import Masked
from underfire.interpreters.outputs import Output
from underfire.models.classifier import Classifier


class Occlusion(Masked):
    """f(x) − f(x with a window hidden), in each segment the mean over the windows that hide it, min–max scaled.

    Args:
        classifier: the classifier to explain.
        segments: on each side of the grid that the image is cut into; the map's own grid.
        window: side of the window in segments; it moves by one segment.
        baseline: value of a hidden pixel in [0, 1]; 0 is black.
        output: f, the class's ``"probability"`` or its ``"logit"``.
        per_step: how many windows each attack step goes backward through, drawn at random; None: all of them,
            which gives the exact gradient.
        renewed: how many others it evaluates again by a forward pass, in turn.

    Raises:
        InputError: an argument is out of range.
    """

    name = "occlusion"
    title = "Occlusion"
    summary = "what the class loses where a window hides the image"
    passes_per_map = 50
    passes_per_step = 3

    def __init__(
        self,
        classifier: Classifier,
        *,
        segments: int = 7,
        window: int = 1,
        baseline: float = 0.0,
        output: Output = "probability",
        per_step: int | None = 1,
        renewed: int = 1,
    ) -> None:
        cells = segments_of(segments, classifier.input_size)
        if not 1 <= window <= min(cells):
            raise InputError(f"window is {window}; give a side of 1 to {min(cells)} segments.")
        self._shown = _windows(cells, window)
        super().__init__(
            classifier,
            masks=len(self._shown),
            grid=cells,
            baseline=baseline,
            output=output,
            per_step=per_step,
            renewed=renewed,
        )

    def masks_of(self, key: str, like: Tensor) -> MaskSet:  # noqa: ARG002 - draws nothing
        """The whole image, and then the windows row by row; the same for every image."""
        shown = self._shown.to(like.device, like.dtype)
        hidden = 1 - shown
        weights = -hidden / hidden.sum(dim=0)
        weights[0] = 1
        return MaskSet(shown[None], weights[None])


def _windows(cells: tuple[int, int], side: int) -> Tensor:
    """Masks (K, a, b): all of the image, and each window of ``side`` × ``side`` hidden."""
    a, b = cells
    masks = [torch.ones(a, b)]
    for row in range(a - side + 1):
        for column in range(b - side + 1):
            masks.append(torch.ones(a, b))
            masks[-1][row : row + side, column : column + side] = 0
    return torch.stack(masks)
