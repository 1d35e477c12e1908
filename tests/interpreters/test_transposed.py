"""Convolutions by their transposes have the values and derivatives that torch gives them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.interpreters.transposed import Transposing

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a stride that leaves a rest": {"stride": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": (1, 0)},
    "holes": {"dilation": 2},
    "same": {"padding": "same"},
}


def _derivatives(x: Tensor, weight: Tensor, bias: Tensor | None, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The values, the gradient of a curved sum of them, and a product with its Hessian."""
    leaf = x.clone().requires_grad_()
    out = F.conv2d(leaf, weight, bias, **settings)
    (slope,) = torch.autograd.grad((out.tanh() * out).sum(), leaf, create_graph=True)
    (product,) = torch.autograd.grad(slope, leaf, torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape))
    return out.detach(), slope.detach(), product


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_values_and_derivatives_are_those_of_torch(name: str, with_bias: bool) -> None:
    settings, draw = SETTINGS[name], torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 9, generator=draw, dtype=torch.float64)
    weight = torch.randn(4, 4 // settings.get("groups", 1), 3, 3, generator=draw, dtype=torch.float64)
    bias = torch.randn(4, generator=draw, dtype=torch.float64) if with_bias else None
    wanted = _derivatives(x, weight, bias, **settings)
    with Transposing():
        found = _derivatives(x, weight, bias, **settings)
    assert torch.equal(found[0], wanted[0])
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_weights_keep_their_gradient() -> None:
    x, weight = torch.ones(1, 1, 3, 3, requires_grad=True), torch.ones(1, 1, 3, 3, requires_grad=True)
    with Transposing():
        F.conv2d(x, weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(1, 1, 3, 3))
