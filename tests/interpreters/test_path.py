"""Integrals that are known in closed form, and integrations that must refuse."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from support.nets import pixel_weights, poison, poisoned, squares_classifier
from support.toys import images, relu_net
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters import IG
from underfire.interpreters.path import Field, IncompleteError, field_of, integrate
from underfire.models.classifier import Classifier


def analytic(value: Callable[[Tensor], Tensor]) -> Field:
    """The function ``value``, from (n, C, H, W) to (n, k), by autograd."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        x = points.detach().requires_grad_(True)
        values = value(x)
        gradients = [torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in values.T]
        return values.detach(), torch.stack(gradients, dim=1)

    return field


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    first, second = images(2, 4, seed=seed, dtype=torch.float64)
    return first, second


def test_a_linear_function_is_exact_at_once() -> None:
    start, end = pair()
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    field = analytic(lambda x: torch.einsum("nchw,kchw->nk", x, weight))
    found = integrate(field, start, end, tolerance=1e-12)
    assert torch.allclose(found.values, (end - start) * weight, atol=1e-14)
    assert found.points == 17
    assert found.residual.max() < 1e-13
    assert torch.allclose(found.coarse, found.norm)


def test_squares_are_exact_since_their_gradient_is_linear() -> None:
    classifier = squares_classifier()
    x, weight = images(1, 16, dtype=torch.float64)[0], pixel_weights()
    with classifier.frozen():
        found = integrate(field_of(classifier, lambda z: z[:, [1, 3]]), torch.zeros_like(x), x, tolerance=1e-10)
    # ∫₀¹ of 2·w·(t·x − m)/s² times x is w·((x − m)² − m²)/s².
    expected = weight[[1, 3]] * ((x - 0.5).square() - 0.25) / 0.0625
    assert torch.allclose(found.values, expected, atol=1e-12)


@pytest.mark.parametrize("kink", [0.5, 0.3, 1 / math.pi, 0.999])
def test_kinks_anywhere_are_found(kink: float) -> None:
    """Σ max(x − kink, 0) from 0 to 1: each value's attribution is 1 − kink, once the sudden change is located."""
    start, end = torch.zeros(1, 2, 2).double(), torch.ones(1, 2, 2).double()
    field = analytic(lambda x: (x - kink).clamp_min(0).sum(dim=(1, 2, 3))[:, None])
    found = integrate(field, start, end, tolerance=1e-4)
    assert torch.allclose(found.values, torch.full((1, 1, 2, 2), 1 - kink).double(), atol=1e-4)
    assert found.points < 40


@given(seed=st.integers(0, 10_000), tolerance=st.sampled_from([0.3, 0.05, 0.01]))
def test_the_residual_is_within_the_tolerance(seed: int, tolerance: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 48, generator=draw, dtype=torch.float64)
    start, end = pair(seed)
    field = analytic(lambda x: 5 * torch.sin(x.flatten(1) @ weight.T))
    found = integrate(field, start, end, tolerance=tolerance)
    assert (found.residual <= tolerance + 1e-12).all()
    assert torch.allclose(found.values.flatten(1).sum(dim=1), found.change, atol=tolerance)


def test_it_agrees_with_many_points_of_the_midpoint_rule() -> None:
    classifier = Classifier(relu_net().double(), mean=0.5, std=0.25, input_size=32)
    x = images(1, 32, dtype=torch.float64)
    with classifier.frozen():
        found = integrate(field_of(classifier, lambda z: z[:, [2]]), torch.zeros_like(x[0]), x[0], tolerance=0.05)
    dense = IG(classifier, points=500, output="logit").integrate(x, torch.tensor([2]))
    assert (found.values[0] - dense.values[0]).abs().sum() < 0.02 * dense.values.abs().sum()


def test_points_that_do_not_suffice_are_refused() -> None:
    start, end = pair()
    field = analytic(lambda x: torch.sin(500 * x).sum(dim=(1, 2, 3))[:, None])
    with pytest.raises(IncompleteError, match=r"40 points on the path leave .* the tolerance 1e-06; give a larger"):
        integrate(field, start, end, tolerance=1e-6, most_points=40)


def test_gradients_that_are_not_those_of_the_function_are_refused() -> None:
    start, end = pair()
    honest = analytic(lambda x: x.square().sum(dim=(1, 2, 3))[:, None])

    def broken(points: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = honest(points)
        return values, 0.9 * gradients

    with pytest.raises(IncompleteError, match=r"512 points .* whether the model's gradients are those of its output"):
        integrate(broken, start, end, tolerance=1e-3)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_a_tolerance_is_above_zero(tolerance: float) -> None:
    start, end = pair()
    with pytest.raises(InputError, match="give a number above 0"):
        integrate(analytic(lambda x: x.sum(dim=(1, 2, 3))[:, None]), start, end, tolerance=tolerance)


def test_most_points_leave_room() -> None:
    start, end = pair()
    with pytest.raises(InputError, match="most_points is 16; give at least 17"):
        integrate(analytic(lambda x: x.sum(dim=(1, 2, 3))[:, None]), start, end, tolerance=1, most_points=16)


def test_nan_on_the_way_is_refused() -> None:
    classifier = poisoned(relu_net(), size=32)
    clean, bad = poison(images(2, 32), 1)
    with classifier.frozen(), pytest.raises(NonFiniteError, match="on the path"):
        integrate(field_of(classifier, lambda z: z[:, [0]]), clean, bad, tolerance=1)
