"""The rules by which relevance goes back through torch's functions that have no weights, by their names."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from underfire.interpreters.gates import gated_clip
from underfire.interpreters.relevance import Lineage, Propagation, Rule, called, linear, tensors

Ratio = Callable[..., Tensor]
"""f(x)/x of an activation f, of the arguments of a call of it but ``inplace``."""


def activation(
    ratio: Ratio | None, mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]
) -> Tensor:
    """All relevance goes on, R_in = R_out: what goes on is what comes times f(x)/x."""
    x, others = _first(args, named)
    others.pop("inplace", None)
    out: Tensor = func(*args, **named)

    def passed(g: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor]:
        if ratio is not None:
            return (g * ratio(x, **others),)
        return (g * y / torch.where(x == 0, torch.finfo(x.dtype).tiny ** 0.5, x),)

    return mode.ruled(passed, out, x)


def gate(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """What only weighs or scales something else carries no relevance: all goes to that (Arras et al. 2017)."""
    return mode.scaled(func(*args, **named), 0)


def product(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """The same share of the relevance for each factor that carries some; all for one beside a constant or a gate."""
    factors = sum(map(mode.carries, tensors([args, named])))
    if factors < 2:
        return linear(mode, func, args, named)  # type: ignore[no-any-return]
    return mode.scaled(func(*args, **named), 1 / factors)


def quotient(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """The numerator's, where the denominator carries no relevance."""
    _, *others = (*args, *named.values())
    if any(map(mode.carries, others)):
        raise mode.refuse("a division by what carries relevance itself")
    return linear(mode, func, args, named)  # type: ignore[no-any-return]


def _power(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    _, *others = (*args, *named.values())
    if any(mode.lineage(value) is not None for value in others):
        raise mode.refuse("a power whose exponent depends on the image")
    return activation(None, mode, func, args, named)


def _relu(mode: Propagation, func: Any, input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, ARG001
    """Its gate has a derivative: see :mod:`underfire.interpreters.gates`."""
    return mode.mark(gated_clip(input, 0.0, math.inf), Lineage())


def _hardtanh(
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,  # noqa: ARG001
) -> Tensor:
    """ReLU6 is a ReLU below."""
    if min_val != 0:
        return activation(None, mode, func, (input, min_val, max_val), {})
    rectified = mode.mark(gated_clip(input, 0.0, math.inf), Lineage())
    return mode.ruled(lambda g, _, x: (g * max_val / x.clamp_min(max_val),), rectified.clamp(max=max_val), rectified)


def _relu6(mode: Propagation, func: Any, input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, ARG001
    return _hardtanh(mode, torch.nn.functional.hardtanh, input, 0.0, 6.0)


def _layer_norm(
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))

    def passed(g: Tensor, _: Tensor, x: Tensor) -> tuple[Tensor]:
        return (_centred(g if weight is None else g * weight, x, dims, eps),)

    return mode.ruled(passed, func(input, normalized_shape, weight, bias, eps), input)


def _group_norm(
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    def passed(g: Tensor, _: Tensor, x: Tensor) -> tuple[Tensor]:
        scaled = g if weight is None else g * weight.reshape((-1,) + (1,) * (g.ndim - 2))
        groups, of_x = (value.reshape(len(value), num_groups, -1) for value in (scaled, x))
        return (_centred(groups, of_x, (-1,), eps).reshape(g.shape),)

    return mode.ruled(passed, func(input, num_groups, weight, bias, eps), input)


def _centred(g: Tensor, x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Back through (x − mean)/σ, σ no way for relevance (Achtibat et al. 2024, proposition 3.4)."""
    return (g - g.mean(dims, keepdim=True)) * (x.var(dims, keepdim=True, correction=0) + eps).rsqrt()


def _rms_norm(
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))

    def passed(g: Tensor, _: Tensor, x: Tensor) -> tuple[Tensor]:
        least = torch.finfo(x.dtype).eps if eps is None else eps
        return ((g if weight is None else g * weight) * (x.square().mean(dims, keepdim=True) + least).rsqrt(),)

    return mode.ruled(passed, func(input, normalized_shape, weight, eps), input)


def _normalize(
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    out: None = None,  # noqa: ARG001
) -> Tensor:
    def passed(g: Tensor, _: Tensor, x: Tensor) -> tuple[Tensor]:
        return (g / x.norm(p, dim, keepdim=True).clamp_min(eps),)

    return mode.ruled(passed, func(input, p, dim, eps), input)


def _first(args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """The input of a function of one tensor, and its named arguments without that."""
    others = dict(named)
    return (others.pop("input"), others) if "input" in others else (args[0], others)


def _silu(x: Tensor) -> Tensor:
    return x.sigmoid()


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return 0.5 * torch.erfc(-x * math.sqrt(0.5))
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


def _hardswish(x: Tensor) -> Tensor:
    return (x / 6 + 0.5).clamp(0, 1)


def _mish(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(x).tanh()


_LINEAR = """
    add sub rsub neg positive sum mean cat concat concatenate stack hstack vstack split chunk unbind unflatten
    reshape view flatten ravel permute transpose movedim swapaxes swapdims t T mT squeeze unsqueeze expand expand_as
    broadcast_to repeat tile repeat_interleave contiguous clone to float double type type_as view_as reshape_as narrow
    select index_select gather take_along_dim flip roll rot90 pad unfold fold where masked_fill
    dropout dropout2d feature_dropout alpha_dropout
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max maximum
    interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle
    conv_transpose1d conv_transpose2d conv_transpose3d
    __add__ __radd__ __sub__ __rsub__ __neg__ __getitem__
"""
_ODD = """
    leaky_relu elu selu celu tanh softplus softsign prelu logsigmoid clamp clamp_min clamp_max clip square abs
"""
_ACTIVATIONS: Mapping[str, Ratio | None] = {
    **dict.fromkeys(_ODD.split()),
    "silu": _silu,
    "gelu": _gelu,
    "hardswish": _hardswish,
    "mish": _mish,
}
_GATES = ("sigmoid", "hardsigmoid", "sqrt", "rsqrt", "reciprocal", "std", "var", "norm", "linalg_vector_norm")

_PRODUCTS = ("mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "bmm", "einsum")
_QUOTIENTS = ("div", "divide", "true_divide", "__truediv__")

FUNCTIONS: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_LINEAR.split(), linear),
        **{name: partial(activation, ratio) for name, ratio in _ACTIVATIONS.items()},
        **dict.fromkeys(_GATES, gate),
        **dict.fromkeys(_PRODUCTS, product),
        **dict.fromkeys(_QUOTIENTS, quotient),
        **dict.fromkeys(("pow", "__pow__"), _power),
        "relu": called(_relu),
        "relu6": called(_relu6),
        "hardtanh": called(_hardtanh),
        "layer_norm": called(_layer_norm),
        "group_norm": called(_group_norm),
        "rms_norm": called(_rms_norm),
        "normalize": called(_normalize),
    }
)
