"""The distance from clean signals against numpy, its parts, and signals that do not vary."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from underfire.defenses.density import Density, ledoit_wolf
from underfire.errors import InputError


def _draws(n: int, count: int, seed: int = 0) -> Tensor:
    """Correlated normal numbers (n, count) of unlike scales and centres."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(count, count, generator=draw, dtype=torch.float64)
    scales = 10.0 ** torch.arange(count, dtype=torch.float64).sub(count // 2)
    return torch.randn(n, count, generator=draw, dtype=torch.float64) @ mix * scales + 3 * scales


def _numpy_distance(clean: Tensor, values: Tensor) -> NDArray[np.float64]:
    """The distance step by step, with the shrinkage written as a loop over photos and an explicit inverse."""
    a, b = clean.numpy(), values.numpy()
    centre = np.median(a, axis=0)
    mad = np.median(np.abs(a - centre), axis=0)
    spread = np.maximum(1.4826 * mad, np.sqrt(np.mean((a - centre) ** 2, axis=0)))
    z = (a - centre) / spread
    n, p = z.shape
    sample = sum(np.outer(row, row) for row in z) / n
    m = np.trace(sample) / p
    d2 = np.linalg.norm(sample - m * np.eye(p)) ** 2 / p
    b2 = sum(np.linalg.norm(np.outer(row, row) - sample) ** 2 / p for row in z) / n**2
    rho = min(b2, d2) / d2
    inverse = np.linalg.inv((1 - rho) * sample + rho * m * np.eye(p))
    w = (b - centre) / spread
    distance: NDArray[np.float64] = np.einsum("ni,ij,nj->n", w, inverse, w)
    return distance


@pytest.mark.parametrize(("n", "count"), [(200, 4), (31, 7), (5, 12), (40, 2)])
def test_the_distance_is_mahalanobis_with_the_shrunk_covariance(n: int, count: int) -> None:
    clean, new = _draws(n, count), _draws(9, count, seed=1)
    density = Density.fit(clean)
    np.testing.assert_allclose(density.distance(new), _numpy_distance(clean, new), rtol=1e-9)
    np.testing.assert_allclose(density.score(new), -0.5 * _numpy_distance(clean, new), rtol=1e-9)
    assert density.n == n


def test_a_worked_case() -> None:
    # Median 0; the deviations of both signals are ±1 and ±3: MAD (1 + 3) / 2 = 2, root mean square √5.
    a = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=torch.float64)
    b = torch.tensor([-1.0, 3.0, -3.0, 1.0], dtype=torch.float64)  # a·b = 3 − 3 − 3 + 3 = 0
    density = Density.fit(torch.stack([a, 10 + 100 * b], dim=1).repeat(2, 1))
    assert density.centre.tolist() == [0, 10]
    spread = 1.4826 * 2
    np.testing.assert_allclose(density.spread, [spread, 100 * spread], rtol=1e-15)
    # Equal variances 5 / spread² and no correlation: the shrinkage changes nothing.
    distance = density.distance(torch.tensor([[2.0, 10.0], [0.0, 310.0]], dtype=torch.float64))
    np.testing.assert_allclose(distance, [4 / 5, 9 / 5], rtol=1e-12)


def test_shrinkage_on_a_worked_case() -> None:
    # xxᵀ: diag(4, 0) twice and diag(0, 1) twice. C = diag(2, ½), m = 5/4, ‖C − mI‖² = 9/8, ‖xxᵀ − C‖² = 4¼ and 4¼.
    x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    covariance, shrinkage = ledoit_wolf(x)
    rho = (4.25 / 4) / (9 / 8)
    assert shrinkage == pytest.approx(rho, rel=1e-14)
    wanted = [[(1 - rho) * 2 + rho * 1.25, 0], [0, (1 - rho) * 0.5 + rho * 1.25]]
    np.testing.assert_allclose(covariance, wanted, rtol=1e-14)
    # A quarter of the scatter with four times the photos.
    assert ledoit_wolf(x.repeat(4, 1))[1] == pytest.approx(rho / 4, rel=1e-14)


def test_shrinkage_is_bounded_by_one_and_defined_where_there_is_nothing_to_shrink() -> None:
    draw = torch.Generator().manual_seed(0)
    assert ledoit_wolf(torch.randn(3, 40, generator=draw, dtype=torch.float64))[1] <= 1
    covariance, shrinkage = ledoit_wolf(torch.tensor([[1.0], [-3.0]], dtype=torch.float64))
    assert covariance.tolist() == [[5]]
    assert shrinkage == 1


def test_the_contributions_are_positive_and_add_up() -> None:
    density, new = Density.fit(_draws(60, 8)), _draws(20, 8, seed=2)
    parts = density.contributions(new)
    assert parts.shape == (20, 8)
    assert bool((parts >= 0).all())
    assert torch.equal(parts.sum(dim=1), density.distance(new))


def test_the_contribution_is_large_where_the_signal_is_odd() -> None:
    draw = torch.Generator().manual_seed(3)
    common = torch.randn(400, 1, generator=draw, dtype=torch.float64)
    clean = 0.8 * common + 0.6 * torch.randn(400, 5, generator=draw, dtype=torch.float64)
    density = Density.fit(clean)
    for odd in range(5):
        row = density.centre.clone()
        row[odd] += 6
        assert int(density.contributions(row[None])[0].argmax()) == odd


def test_uncorrelated_signals_contribute_their_own_squares() -> None:
    steps = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    density = Density.fit(torch.cartesian_prod(steps, 2 * steps, 3 * steps))
    parts = density.contributions(torch.tensor([[5.0, 2.0, -9.0]], dtype=torch.float64))
    np.testing.assert_allclose(parts, [[25, 1, 9]], rtol=1e-12)


def test_a_scale_or_a_shift_of_a_signal_changes_nothing() -> None:
    clean, new = _draws(50, 5), _draws(6, 5, seed=4)
    scale, shift = torch.tensor([1.0, -2.0, 0.25, 8.0, 4.0]), torch.tensor([0.0, 1.0, -7.0, 0.5, 2.0])
    moved = Density.fit(clean * scale + shift).distance(new * scale + shift)
    np.testing.assert_allclose(moved, Density.fit(clean).distance(new), rtol=1e-9)


def test_extreme_values_are_not_clipped() -> None:
    density = Density.fit(_draws(50, 3))
    far = density.centre + density.spread * torch.tensor([[1e3], [1e6], [1e12]], dtype=torch.float64)
    distance = density.distance(far)
    np.testing.assert_allclose(distance[1:] / distance[:-1], [1e6, 1e12], rtol=1e-6)


def test_a_constant_signal_costs_nothing_and_tells_when_it_changes() -> None:
    clean = _draws(99, 2)
    with_constant = torch.cat([clean, torch.full((99, 1), 0.1, dtype=torch.float64)], dim=1)
    plain, density = Density.fit(clean), Density.fit(with_constant)
    new = torch.cat([_draws(4, 2, seed=5), torch.tensor([[0.1], [0.1], [1.1], [-0.9]], dtype=torch.float64)], dim=1)
    parts = density.contributions(new)
    np.testing.assert_allclose(parts[:, :2], plain.contributions(new[:, :2]), rtol=1e-12)
    # A spread of 1 / √100 of its unit.
    np.testing.assert_allclose(parts[:, 2], [0, 0, 100, 100], atol=1e-10)


def test_rounding_does_not_make_a_constant_signal_vary() -> None:
    noise = 1e-13 * torch.rand(30, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density = Density.fit(torch.cat([_draws(30, 2), 0.7 + noise], dim=1))
    assert float(density.spread[2]) == pytest.approx(31**-0.5)


def test_a_signal_that_seldom_differs_has_a_spread() -> None:
    """1 of 100 photos loses its label: the median absolute deviation is 0, the root mean square 1/10."""
    kept = torch.ones(100, 1, dtype=torch.float64)
    kept[17] = 0
    density = Density.fit(torch.cat([_draws(100, 3), kept], dim=1))
    assert float(density.spread[3]) == pytest.approx(0.1)
    row = density.centre.clone()
    row[3] = 0
    assert 50 < float(density.distance(row[None])) < 200


def test_one_signal_with_long_tails_does_not_drown_the_others() -> None:
    clean = _draws(100, 3)
    tails = torch.randn(100, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 9
    density = Density.fit(torch.cat([clean, tails], dim=1))
    assert density.shrinkage < 0.5
    row = torch.cat([clean.median(dim=0).values + 8 * clean.std(dim=0), tails.median()[None]])
    assert float(density.distance(row[None])) > 30


def test_all_signals_constant_or_one_twice() -> None:
    flat = Density.fit(torch.full((8, 3), 2.0))
    assert flat.distance(torch.tensor([[2.0, 2.0, 3.0]])).tolist() == pytest.approx([9])
    one = _draws(30, 1)
    twice = Density.fit(torch.cat([one, one], dim=1))
    assert math.isfinite(float(twice.distance(torch.tensor([[9.0, -9.0]], dtype=torch.float64))))
    same = Density.fit(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(3, 1))  # rank one, no scatter
    assert bool(torch.isfinite(same.distance(torch.tensor([[0.0, 7.0]], dtype=torch.float64))).all())


def test_a_row_is_the_same_bits_in_any_batch() -> None:
    density, new = Density.fit(_draws(80, 37)), _draws(13, 37, seed=6)
    whole = density.contributions(new)
    for sizes in ([1] * 13, [2, 3, 8], [12, 1]):
        assert torch.equal(torch.cat([density.contributions(part) for part in new.split(sizes)]), whole)
        assert torch.equal(torch.cat([density.score(part) for part in new.split(sizes)]), density.score(new))


def test_the_score_is_differentiable() -> None:
    density = Density.fit(_draws(40, 3) / torch.tensor([0.1, 1.0, 10.0]))
    row = density.centre + density.spread * torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(density.score, row.requires_grad_(True))


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (5, 0)])
def test_too_little_to_fit_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"^{shape[0]} photos with {shape[1]} signals"):
        Density.fit(torch.zeros(shape))


def test_what_is_no_density_is_refused() -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        Density.fit(torch.tensor([[1.0], [math.nan]]))
    with pytest.raises(ValueError, match=r"\(n, S\)"):
        Density.fit(torch.zeros(4))
    density = Density.fit(_draws(9, 2))
    for part in (
        {"spread": torch.zeros(2, dtype=torch.float64)},
        {"spread": density.spread.float()},
        {"centre": torch.full((2,), math.nan, dtype=torch.float64)},
        {"whitening": torch.eye(3, dtype=torch.float64)},
        {"shrinkage": 1.5},
        {"shrinkage": math.nan},
        {"n": 1},
    ):
        with pytest.raises(ValueError, match=r"a part|out of their range"):
            dataclasses.replace(density, **part)
