"""The image as it would be saved: 8 bits a channel, and still inside the budget."""

import torch
from torch import Tensor


def to_8bit(x_adv: Tensor, benign: Tensor, eps: float) -> Tensor:
    """``x_adv`` rounded to multiples of 1/255 that lie at most ``eps`` from ``benign``, as uint8.

    Where rounding alone would leave the L∞ ball, the value next to it on the benign side is taken.

    Args:
        x_adv: (N, C, H, W) in [0, 1], in the ball up to floating-point error.
        benign: the same shape, multiples of 1/255.
        eps: radius, of images in [0, 1].
    """
    centre = torch.round(benign.double() * 255)
    radius = int(eps * 255 + 1e-6)  # 8/255 * 255 may come out as 7.999…
    nearest = torch.round(x_adv.double() * 255)
    inside = torch.minimum(torch.maximum(nearest, centre - radius), centre + radius)
    return inside.clamp(0, 255).to(torch.uint8)


def from_8bit(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels (…, uint8) as numbers in [0, 1]."""
    return pixels.to(dtype) / 255
