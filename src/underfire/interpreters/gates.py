"""Rectifiers whose values and gates stay as they are, and whose gates have a derivative.

What comes back through a ReLU is multiplied by its gate, 1 above its kink and 0 below. A gate has no derivative, so
that an attribution made by going back has none either almost everywhere. Here a gate is differentiated as if it opened
smoothly. No value changes: attributions are those of the network to the bit.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from underfire.interpreters.clipping import Clip, Cut

WIDTH = 0.1
"""How smoothly a gate opens, in units of the activation: half of it within WIDTH·0.6 of its kink."""


def gated_clip(z: Tensor, low: float, high: float) -> Tensor:
    """``z`` cut to [low, high]; going back multiplies by the gate, which has a derivative."""
    cut: Tensor = _GatedClip.apply(z, low, high)  # type: ignore[no-untyped-call]
    return cut


@contextmanager
def guiding() -> Iterator[Clip]:
    """As :func:`gated_clip`, and inside the block what comes back is cut at 0 too: guided back-propagation.

    After the block its gates are plain: the way back is differentiated by the chain rule, which knows no such cut.
    """
    rule = _Rule()

    def clip(z: Tensor, low: float, high: float) -> Tensor:
        cut: Tensor = _GuidedClip.apply(z, low, high, rule)  # type: ignore[no-untyped-call]
        return cut

    try:
        yield clip
    finally:
        rule.holds = False


@dataclass
class _Rule:
    holds: bool = True


class _GatedClip(Cut):
    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _through_gate(ctx, grads[0]), None, None


class _GuidedClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, low: float, high: float, rule: _Rule) -> Tensor:
        ctx.save_for_backward(z)
        ctx.bounds, ctx.rule = (low, high), rule
        return z.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        coming = F.relu(grads[0]) if ctx.rule.holds else grads[0]
        return _through_gate(ctx, coming), None, None, None


class _Gate(torch.autograd.Function):
    """1 inside (low, high) and 0 outside, with the derivative of ½(1 + u/√(u² + WIDTH²)) at each kink."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.bounds = (low, high)
        inside = z > low
        return (inside if high == math.inf else inside & (z < high)).to(z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,), (low, high) = ctx.saved_tensors, ctx.bounds
        steep = _bump(z - low)
        if high != math.inf:
            steep -= _bump(z - high)
        return steep.mul_(grads[0]), None, None


def _through_gate(ctx: Any, coming: Tensor) -> Tensor:
    """``coming`` times the gate; where nobody differentiates it, by torch's own way back in one step."""
    (z,), (low, high) = ctx.saved_tensors, ctx.bounds
    if torch.is_grad_enabled():
        gate: Tensor = _Gate.apply(z, low, high)  # type: ignore[no-untyped-call]
        return coming * gate
    found: Tensor = (
        torch.ops.aten.threshold_backward(coming, z, low)
        if high == math.inf
        else torch.ops.aten.hardtanh_backward(coming, z, low, high)
    )
    return found


def _bump(u: Tensor) -> Tensor:
    """The derivative of ½(1 + u/√(u² + WIDTH²)), in the place of ``u``; 0 at infinity."""
    return u.square_().add_(WIDTH**2).rsqrt_().pow_(3).mul_(0.5 * WIDTH**2)
