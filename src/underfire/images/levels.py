"""Whole grey levels, 8 bits a channel, as numbers of an image."""

import torch
from torch import Tensor


def from_8bit(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels (…, uint8) as numbers in [0, 1]."""
    return pixels.to(dtype) / 255
