"""The rules by which relevance goes back through layers that have weights: ε, γ and z^B."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from underfire.devices import maybe_any
from underfire.interpreters.relevance import Layer, Lineage, Propagation, Rule, called, linear
from underfire.interpreters.transposed import sides_of

STABILIZER = 1e-6
"""Added to the denominator of the rule for bounded pixels, which may be 0."""


@dataclass(frozen=True)
class LayerRules:
    """How relevance goes through layers that have weights.

    Attributes:
        epsilon: added to the size of a linear layer's outputs; its share of the relevance is lost. 0 loses none.
        gamma: by which the contributions of an output's own sign count more, in convolutions.
        linear_gamma: the same in linear layers, in place of epsilon.
        box: whether a convolution that reads pixels has the rule for pixels between black and white.
    """

    epsilon: float
    gamma: float
    linear_gamma: float
    box: bool


def layer_rules(rules: LayerRules) -> Mapping[str, Rule]:
    """The rules of layers with weights by the names of their functions."""
    conv = called(partial(_convolution, rules))
    return {
        **dict.fromkeys(("conv1d", "conv2d", "conv3d"), conv),
        "linear": called(partial(_linear, rules)),
        "batch_norm": called(partial(_batch_norm, rules)),
    }


def _convolution(
    rules: LayerRules,
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    x, sides = input, weight.ndim - 2
    if not mode.carries(x) or mode.lineage(weight) is not None:
        raise mode.refuse("a convolution whose weights depend on the image")
    stride, dilation = (value if isinstance(value, Sequence) else (value,) * sides for value in (stride, dilation))
    if isinstance(padding, str):
        x, padding = _padded(mode, x, padding, weight, dilation)
    elif not isinstance(padding, Sequence):
        padding = (padding,) * sides

    run, back = sides_of(func, (stride, padding, dilation, groups))
    layer = Layer(run, back, x, weight, bias, (-1,) + (1,) * sides)
    return _made_by(rules, mode, layer.output(), layer)


def _padded(mode: Propagation, x: Tensor, how: str, weight: Tensor, dilation: Sequence[int]) -> tuple[Tensor, Any]:
    """The input and the numbers for the padding "same" or "valid", put on before where sides differ."""
    sides = weight.ndim - 2
    totals = [d * (k - 1) if how == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if not any(total % 2 for total in totals):
        return x, tuple(total // 2 for total in totals)
    each = [part for total in reversed(totals) for part in (total // 2, total - total // 2)]
    with mode:
        return F.pad(x, each), (0,) * sides


def _linear(
    rules: LayerRules,
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    if mode.lineage(weight) is not None:
        raise mode.refuse("a linear layer whose weights depend on the image")

    def back(g: Tensor, _: Tensor, w: Tensor) -> Tensor:
        return g @ w

    layer = Layer(func, back, input, weight, bias, (-1,))
    return _made_by(rules, mode, func(input, weight, bias), layer)


def _batch_norm(
    rules: LayerRules,
    mode: Propagation,
    func: Any,
    input: Tensor,  # noqa: A002 - torch's name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """A batch norm right behind a layer is part of it, as where it was folded; another is linear."""
    if training or running_mean is None or running_var is None:
        raise mode.refuse("a batch norm that takes the batch's own statistics")
    call = (input, running_mean, running_var, weight, bias, training, momentum, eps)
    trace = mode.lineage(input)
    if trace is None or trace.layer is None:
        out: Tensor = linear(mode, func, call, {})
        return out
    layer, slope = trace.layer, (running_var + eps).rsqrt()
    if weight is not None:
        slope = slope * weight
    offset = -running_mean * slope if layer.bias is None else (layer.bias - running_mean) * slope
    folded = layer.weight * slope.reshape((-1,) + (1,) * (layer.weight.ndim - 1))
    merged = replace(layer, weight=folded, bias=offset if bias is None else offset + bias)
    return _made_by(rules, mode, func(*call), merged)


def _made_by(rules: LayerRules, mode: Propagation, out: Tensor, layer: Layer) -> Tensor:
    """The output ``out`` of ``layer``, by the rule that it has."""
    trace = mode.lineage(layer.x)
    is_linear = layer.weight.ndim == 2
    gamma = rules.linear_gamma if is_linear else rules.gamma
    if not is_linear and rules.box and trace is not None and trace.box is not None:
        low, high = trace.box
        out = mode.ruled(partial(_between, layer), out, layer.x, low, high)
    elif gamma:
        out = mode.ruled(partial(_favouring, layer, gamma), out, layer.x)
    elif is_linear and rules.epsilon:
        out = mode.ruled(partial(_absorbing, layer, rules.epsilon), out, layer.x)
    return mode.mark(out, Lineage(layer=layer))


def _absorbing(layer: Layer, epsilon: float, g: Tensor, z: Tensor, _: Tensor) -> tuple[Tensor]:
    """The ε rule: R_i = Σ_j x_i·w_ij/(z_j + ε·sign z_j)·R_j."""
    size = z.abs()
    return (layer.onward(g * size / (size + epsilon), layer.weight),)


def _favouring(layer: Layer, gamma: float, g: Tensor, z: Tensor, x: Tensor) -> tuple[Tensor]:
    """The γ rule for inputs of either sign (Andéol et al. 2021).

    With c_ij = x_i·w_ij, R_i = Σ_j (c_ij + γ·c_ij^±)/(z_j + γ·(Σ_i c_ij^± + b_j^±))·R_j, ± the sign of z_j. Since
    c^± = ½(c ± |c|), the denominator is ±½((2 + γ)·|z_j| + γ·(Σ_i |c_ij| + |b_j|)).
    """
    weight, negative = layer.weight, x.detach() < 0
    signed = maybe_any(negative)
    # Where no input is negative, one of 0 counts as above it.
    side = x.detach().sign().where(negative.any(), 1.0) if signed else None
    sizes = layer.forth(x if side is None else x * side, weight.abs())
    if layer.bias is not None:
        sizes = sizes + layer.bias.abs().reshape(layer.channels)
    share: Tensor = _Favoured.apply(g, z, sizes, gamma)  # type: ignore[no-untyped-call]
    if side is not None:
        alike = layer.onward(share * z.sign(), weight.abs()) * side
        return (torch.add((1 + gamma / 2) * layer.onward(share, weight), alike, alpha=gamma / 2),)
    favoured, rising = weight + gamma * weight.clamp(min=0), z >= 0
    falling = share * ~rising
    if not bool(falling.any()):  # as where only a ReLU reads the output: zeros bring back zeros
        return (layer.onward(share, favoured),)
    other = layer.onward(falling, weight + gamma * weight.clamp(max=0))
    return (layer.onward(share * rising, favoured) + other,)


class _Favoured(torch.autograd.Function):
    """g·|z|/((1 + γ/2)·|z| + (γ/2)·sizes) and its derivatives, by few steps through memory."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, z: Tensor, sizes: Tensor, gamma: float) -> Tensor:
        inverse = torch.add(z.abs().mul_(1 + gamma / 2), sizes, alpha=gamma / 2)
        inverse = inverse.add_(torch.finfo(z.dtype).tiny).reciprocal_()
        ctx.save_for_backward(g, z, sizes, inverse)
        ctx.gamma = gamma
        return z.abs().mul_(inverse).mul_(g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        g, z, sizes, inverse = ctx.saved_tensors
        of_g, of_z = z.abs().mul_(inverse), sizes * inverse
        common = (grads[0] * g).mul_(ctx.gamma / 2)
        of_z = of_z.mul_(common).mul_(inverse).mul_(z.sign())  # in this order: where all are 0 the inverse is huge
        of_sizes = (of_g * common).mul_(inverse).neg_()
        return of_g.mul_(grads[0]), of_z, of_sizes, None


def _between(layer: Layer, g: Tensor, z: Tensor, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor | None, ...]:
    """The z^B rule (Montavon et al. 2017): R_i = Σ_j (x_i·w_ij − l_i·w_ij⁺ − h_i·w_ij⁻)/(Σ_i of the same)·R_j.

    What goes to the ends is −w⁺ and −w⁻ times the same; the pixels then take their distance to each times that.
    """
    rising, falling = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    upright = low <= high  # not behind a subtraction from white
    least, most = low.where(upright, high), high.where(upright, low)
    total = layer.forth(x - least, rising) + layer.forth(x - most, falling)
    share = -g * z / (total + STABILIZER)
    to_least, to_most = layer.onward(share, rising), layer.onward(share, falling)
    return None, to_least.where(upright, to_most), to_most.where(upright, to_least)
