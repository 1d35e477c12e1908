"""Second derivatives of ReLU networks, by smoothing how their kinks are differentiated.

A ReLU network has none almost everywhere. The authors of ADV² leave its values as they are and replace the factor by
which a ReLU multiplies what comes back; the derivative of that factor is the second derivative.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from underfire.interpreters.directional import Linearised

TAU = 1e-4
"""How wide the kinks are smoothed: half of a factor's change happens within √τ of its kink."""

Clip = Callable[[Tensor, float, float], Tensor]
"""Values cut to [low, high], either of which may be infinite, with derivatives of its own."""


class Clipping(TorchFunctionMode):
    """Inside the block every ReLU, ReLU6 and hardtanh that a module calls is ``clip``; modules stay as they are.

    Networks that were scripted or compiled call them where no block can see it.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self._clip = clip

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or ``clip`` in its place."""
        named = dict(kwargs or {})
        if func not in _BOUNDS:
            return func(*args, **named)
        z, *others = [named.pop("input"), *args] if "input" in named else args
        low, high, inplace = _BOUNDS[func](*others, **named)
        # A copy is what the derivative remembers, since z itself is overwritten.
        return z.copy_(self._clip(z.clone(), low, high)) if inplace else self._clip(z, low, high)


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


def double_backward(losses: Callable[[Tensor], Tensor], x: Tensor, clip: Clip) -> Linearised:
    """The gradient of the per-sample ``losses`` (N,) in ``x`` (N, C, H, W), differentiated once more by autograd.

    The gradient takes a pass whose graph is kept, and H·v a backward pass through that whole graph.
    """
    with torch.enable_grad(), Clipping(clip):
        leaf = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(losses(leaf).sum(), leaf, create_graph=True)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # the losses are linear
            return torch.zeros_like(v)
        (found,) = torch.autograd.grad(gradient, leaf, v)
        return found

    return gradient.detach(), product


class _SmoothedClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.bounds = (low, high)
        return z.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,), (low, high) = ctx.saved_tensors, ctx.bounds
        factor = rectifier_slope(z - low)
        if math.isfinite(high):
            factor = factor - rectifier_slope(z - high)
        return grads[0] * factor, None, None


_Bounds = tuple[float, float, bool]


def _relu(inplace: bool = False) -> _Bounds:
    return 0.0, math.inf, inplace


def _relu6(inplace: bool = False) -> _Bounds:
    return 0.0, 6.0, inplace


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> _Bounds:
    return min_val, max_val, inplace


def _relu_inplace() -> _Bounds:
    return _relu(inplace=True)


def _hardtanh_inplace(min_val: float = -1.0, max_val: float = 1.0) -> _Bounds:
    return min_val, max_val, True


_BOUNDS: Mapping[Any, Callable[..., _Bounds]] = MappingProxyType(
    {
        F.relu: _relu,
        F.relu6: _relu6,
        F.hardtanh: _hardtanh,
        torch.relu: _relu,
        Tensor.relu: _relu,
        torch.relu_: _relu_inplace,
        Tensor.relu_: _relu_inplace,
        F.hardtanh_: _hardtanh_inplace,
    }
)
"""Low bound, high bound and whether in place, of a call's arguments after the first."""
