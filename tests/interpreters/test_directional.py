"""Hessian–vector products by a directional difference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from underfire.interpreters.directional import along

SHAPE = (3, 2, 4, 4)


def _draw(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _quadratic() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A symmetric matrix A and the gradient field z ↦ A·z of ½ zᵀAz, for each image."""
    a = torch.randn(32, 32, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    a = a + a.T
    return a, lambda z: (z.flatten(1) @ a).reshape(z.shape)


@pytest.mark.parametrize("probe", [1e-6, 5e-4, 1.0])
def test_it_is_exact_for_a_quadratic_at_any_probe(probe: float) -> None:
    a, gradient_at = _quadratic()
    x, v = _draw(0), _draw(1)
    expected = (v.flatten(1) @ a).reshape(SHAPE)
    torch.testing.assert_close(along(gradient_at, x, gradient_at(x), v, probe), expected, rtol=1e-6, atol=1e-7)


def test_it_tends_to_the_true_product_as_the_probe_shrinks() -> None:
    x, v = _draw(0), _draw(1)
    exact = 6 * x * v  # the Hessian of Σ x³ is diag(6x)
    errors = [float((along(lambda z: 3 * z**2, x, 3 * x**2, v, p) - exact).norm()) for p in (1e-1, 1e-2, 1e-3)]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.01)
    assert errors[2] == pytest.approx(errors[1] / 10, rel=0.01)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_field_is_asked_once_at_the_probe_s_distance(scale: float) -> None:
    asked: list[Tensor] = []

    def gradient_at(z: Tensor) -> Tensor:
        asked.append(z)
        return z

    x, v = _draw(0), _draw(1) * scale
    product = along(gradient_at, x, x, v, 5e-4)
    (z,) = asked
    torch.testing.assert_close((z - x).abs().mean(dim=(1, 2, 3)), torch.full((3,), 5e-4, dtype=torch.float64))
    torch.testing.assert_close(product / scale, v / scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_vector_no_product_and_no_division_by_zero(dtype: torch.dtype) -> None:
    x, v = _draw(0, dtype), _draw(1, dtype)
    v[1] = 0
    product = along(lambda z: z**2, x, x**2, v, 5e-4)
    assert torch.isfinite(product).all()
    assert torch.equal(product[1], torch.zeros_like(product[1]))
    assert bool((product[[0, 2]] != 0).any())


def test_images_don_t_see_each_other() -> None:
    x, v = _draw(0), _draw(1)
    v[2] *= 1e6
    whole = along(torch.sin, x, x.sin(), v, 5e-4)
    single = [along(torch.sin, x[i : i + 1], x[i : i + 1].sin(), v[i : i + 1], 5e-4) for i in range(3)]
    torch.testing.assert_close(whole, torch.cat(single))
