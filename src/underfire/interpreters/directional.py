"""Hessian–vector products by a finite difference of gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

Linearised = tuple[Tensor, Callable[[Tensor], Tensor]]
"""A field of gradients near images (N, C, H, W): the gradients g there, detached, and H·v as a function of v.

The function is asked once.
"""


def along(gradient_at: Callable[[Tensor], Tensor], x: Tensor, g: Tensor, v: Tensor, probe: float) -> Tensor:
    """H·v (N, C, H, W) per image ≈ (g(x + h·v) − g(x))/h, with h so that ``probe`` is the mean |h·v| per pixel.

    Args:
        gradient_at: the gradient field g, evaluated once.
        x, g: images (N, C, H, W) and the gradient there, both detached.
        v: the vectors; an image whose v is zero gets zero.
        probe: mean displacement per pixel, in units of the images.
    """
    length = v.abs().mean(dim=(1, 2, 3), keepdim=True)
    h = probe / length.clamp_min(torch.finfo(v.dtype).tiny * 1e6)
    moved = gradient_at(x + h * v)
    return (moved - g) / h


def unit(direction: Tensor) -> Tensor:
    """``direction`` (N, C, H, W) scaled per image to mean magnitude 1; zero stays zero."""
    size = direction.abs().mean(dim=(1, 2, 3), keepdim=True)
    return direction / size.clamp_min(torch.finfo(direction.dtype).tiny)
