"""Convolutions whose derivatives of any order are convolutions and their transposes, and nothing besides.

torch's own second derivative of a convolution computes the weight's too, group by group, whether wanted or not: on
networks of depthwise convolutions that takes most of the time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Along = Callable[[Tensor], Tensor]


def linear(z: Tensor, function: Along, transposed: Along, *, value: Along | None = None) -> Tensor:
    """``function`` of ``z``, which is linear, its derivative being ``transposed``, whose derivative is it again.

    With ``value`` that is what it gives, as one that differs by a constant.
    """
    out: Tensor = _Transposed.apply(z, value or function, function, transposed)  # type: ignore[no-untyped-call]
    return out


def sides_of(func: Any, args: Sequence[Any]) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[..., Tensor]]:
    """A convolution without a bias, and its transpose, by ``func`` and its arguments from the stride on.

    The one takes an input and a weight; the other what comes to the output, an input's like, and the weight.
    """
    stride, padding, dilation, groups = args
    none = [0] * len(stride)

    def run(z: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = func(z, weight, None, stride, padding, dilation, groups)
        return out

    def back(g: Tensor, like: Tensor, weight: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten.convolution_backward(
            g, like, weight, None, stride, padding, dilation, False, none, groups, [True, False, False]
        )[0]
        return found

    return run, back


class Transposing(TorchFunctionMode):
    """Inside the block every convolution is differentiated by its transpose; values stay what they are."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or that of a convolution."""
        named = dict(kwargs or {})
        if func not in (torch.conv1d, torch.conv2d, torch.conv3d):
            return func(*args, **named)
        x, weight, bias, *others = _arguments(*args, **named)
        given = (weight, bias) if bias is not None else (weight,)
        if isinstance(others[1], str) or any(value.requires_grad for value in given) or not x.requires_grad:
            return func(*args, **named)
        count = weight.ndim - 2
        *sizes, groups = others
        settings = [tuple(v) if isinstance(v, Sequence) else (v,) * count for v in sizes]
        run, back = sides_of(func, (*settings, groups))
        like = x.detach()
        return linear(
            x,
            lambda z: run(z, weight),
            lambda g: back(g, like, weight),
            value=lambda z: func(z, weight, bias, *settings, groups),
        )


def _arguments(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, dilation, groups


class _Transposed(torch.autograd.Function):
    """A linear function and its transpose, each the other's derivative."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Along, function: Along, transposed: Along) -> Tensor:
        ctx.pair = function, transposed
        return value(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        function, transposed = ctx.pair
        return linear(grads[0], transposed, function), None, None, None
