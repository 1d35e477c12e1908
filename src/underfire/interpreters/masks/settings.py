"""What is fitted, and for how long."""

import math
from dataclasses import dataclass

from underfire.errors import InputError


@dataclass(frozen=True)
class MaskFit:
    """The fit of a deletion mask (Fong & Vedaldi 2017), as the authors of ADV² set it, but for its length.

    Attributes:
        steps: of Adam; each takes one pass. The authors take 300 (:data:`AUTHORS`).
        lr: Adam's step size, in mask values.
        sparsity: weight of Σ|1 − m|, the sum over the cells.
        smoothness: weight of TV₃(m) = Σ (dx² + dy² + 1e-8)^1.5 over neighbouring cells.
        jitter: each step sees the image moved by 0 to so many pixels, down and to the right.
        cell: pixels of the image on a side of one cell of the mask: 8 gives 28×28 cells for 224² pixels.
        mask_sigma, mask_kernel: the Gaussian, in pixels, that smooths the mask brought to the image's size.
        image_sigma, image_kernel: the Gaussian that makes the image's deleted parts.
        start: the mask's value everywhere before the first step.

    Raises:
        InputError: a number is out of its range.
    """

    steps: int = 150
    lr: float = 0.1
    sparsity: float = 1e-4
    smoothness: float = 1e-2
    jitter: int = 3
    cell: int = 8
    mask_sigma: float = 2.0
    mask_kernel: int = 11
    image_sigma: float = 3.5
    image_kernel: int = 21
    start: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("steps", 1), ("jitter", 0), ("cell", 1), ("mask_kernel", 1), ("image_kernel", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} is {value}; a mask's fit takes at least {least}.")
        for name in ("mask_kernel", "image_kernel"):
            value = getattr(self, name)
            if value % 2 == 0:
                raise InputError(f"{name} is {value}; give an odd number of pixels.")
        for name in ("lr", "mask_sigma", "image_sigma"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} {value:g} must be a finite number above 0.")
        for name in ("sparsity", "smoothness"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} {value:g} must be a finite number, 0 or more.")
        if not 0 <= self.start <= 1:
            raise InputError(f"start {self.start:g} is not a mask value in [0, 1].")

    def grid(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the mask for images of ``input_size``."""
        return (max(2, input_size[0] // self.cell), max(2, input_size[1] // self.cell))


AUTHORS = MaskFit(steps=300)
"""The fit at the length that the authors of ADV² give it."""
