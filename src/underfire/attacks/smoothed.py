"""Second derivatives of ReLU networks, by smoothing how their kinks are differentiated.

A ReLU network has none almost everywhere. The authors of ADV² leave its values as they are and replace the factor by
which a ReLU multiplies what comes back; the derivative of that factor is the second derivative.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from underfire.interpreters.clipping import Cut

TAU = 1e-4
"""How wide the kinks are smoothed: half of a factor's change happens within √τ of its kink."""


def smoothed_clip(z: Tensor, low: float, high: float) -> Tensor:
    """``z`` cut to [low, high], differentiated as the authors of ADV² do it; ReLU is their case.

    A clipped value is a difference of two rectified ones, and so is its derivative.
    """
    cut: Tensor = _SmoothedClip.apply(z, low, high)  # type: ignore[no-untyped-call]
    return cut


def rectifier_slope(z: Tensor) -> Tensor:
    """The derivative of h(z) = z + √(z² + τ) below 0 and √(z² + τ) from 0 on: 0 to 1, and at 0 back to 0."""
    rising: Tensor = Rise.apply(z)  # type: ignore[no-untyped-call]
    return rising + (z < 0)


class Rise(torch.autograd.Function):
    """u/√(u² + τ), from −1 to 1, with its derivative in closed form; autograd's would remember every part of it."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """Its values at ``u``."""
        inverse = (u.square() + TAU).rsqrt()
        ctx.save_for_backward(inverse)
        return u * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """τ/(u² + τ)^1.5 times what comes back."""
        inverse: Tensor = ctx.saved_tensors[0]
        return grads[0] * TAU * inverse.pow(3)


class _SmoothedClip(Cut):
    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,), (low, high) = ctx.saved_tensors, ctx.bounds
        factor = rectifier_slope(z - low)
        if math.isfinite(high):
            factor = factor - rectifier_slope(z - high)
        return grads[0] * factor, None, None
