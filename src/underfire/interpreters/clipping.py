"""ReLU, ReLU6 and hardtanh with derivatives of another's choice, for the time of a block."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from underfire.interpreters.base import twice_differentiable
from underfire.interpreters.directional import Linearised
from underfire.models.gradients import gradient

Clip = Callable[[Tensor, float, float], Tensor]
"""Values cut to [low, high], either of which may be infinite, with derivatives of its own."""


class Cut(torch.autograd.Function):
    """Values cut to [low, high]; the way back, which finds ``bounds`` and the saved ``z``, is for others to give."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, low: float, high: float) -> Tensor:
        """``z`` cut to [``low``, ``high``]."""
        ctx.save_for_backward(z)
        ctx.bounds = (low, high)
        return z.clamp(low, high)


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


def double_backward(losses: Callable[[Tensor], Tensor], x: Tensor, clip: Clip) -> Linearised:
    """What comes back to ``x`` (N, C, H, W) from the per-sample ``losses`` (N,), differentiated once more by autograd.

    The first takes a pass whose graph is kept, the second, Jᵀ·v, a backward pass through that whole graph. Where what
    comes back is a gradient, Jᵀ·v is H·v; where ``clip`` makes it another field, it is still the right product for the
    gradient of a loss on that field.
    """
    with torch.enable_grad(), twice_differentiable(), Clipping(clip):
        leaf = x.detach().requires_grad_(True)
        field = gradient(losses(leaf).sum(), leaf, attached=True)

    def product(v: Tensor) -> Tensor:
        if not field.requires_grad:  # the losses are linear
            return torch.zeros_like(v)
        return gradient(field, leaf, v, keep=False)

    return field.detach(), product


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
