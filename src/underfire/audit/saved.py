"""Numbers of the image as it is saved: 8 bits a channel."""

import torch
from torch import Tensor


def from_8bit(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels (…, uint8) as numbers in [0, 1]."""
    return pixels.to(dtype) / 255
