"""ReLU, ReLU6 and hardtanh with derivatives of another's choice, for the time of a block."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.interpreters.base import twice_differentiable
from underfire.interpreters.directional import Linearised
from underfire.interpreters.rectifiers import HARD_SIGMOIDS, rectified
from underfire.interpreters.transposed import Transposing
from underfire.models.gradients import gradient, gradients

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

    However it is called (see :mod:`underfire.interpreters.rectifiers`). Networks that were scripted or compiled call
    them where no block can see it. A hard sigmoid, of which torch has no second derivative, is computed by parts.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self._clip = clip

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or ``clip`` in its place."""
        named = dict(kwargs or {})
        if func in HARD_SIGMOIDS:
            return (args[0] + 3).clamp(0, 6) / 6
        found = rectified(func, args, named)
        if found is None:
            return func(*args, **named)
        if not found.inplace:
            return self._clip(found.z, found.low, found.high)
        # A copy is what the derivative remembers, since z itself is overwritten.
        return found.z.copy_(self._clip(found.z.clone(), found.low, found.high))


def double_backward(losses: Callable[[Tensor], Tensor], x: Tensor, clip: Clip) -> Linearised:
    """What comes back to ``x`` (N, C, H, W) from the per-sample ``losses`` (N,), differentiated once more by autograd.

    The first takes a pass whose graph is kept, the second, Jᵀ·v, a backward pass through that whole graph. Where what
    comes back is a gradient, Jᵀ·v is H·v; where ``clip`` makes it another field, it is still the right product for the
    gradient of a loss on that field.
    """
    with torch.enable_grad(), twice_differentiable(), Transposing(), Clipping(clip):
        leaf = x.detach().requires_grad_(True)
        field = gradient(losses(leaf).sum(), leaf, attached=True)

    def product(v: Tensor) -> Tensor:
        if not field.requires_grad:  # the losses are linear
            return torch.zeros_like(v)
        (found,) = gradients(field, (leaf,), v, keep=False)
        return torch.zeros_like(v) if found is None else found  # None where they are linear in pieces

    return field.detach(), product
