"""The flow field."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from support.toys import images
from underfire import Flow, InputError
from underfire.attacks.perturbations.flow import roughness, roughness_slope
from underfire.interpreters.directional import unit

seeds = st.integers(0, 10_000)


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _constant(x: Tensor, right: float, down: float) -> Tensor:
    return torch.tensor([right, down], dtype=x.dtype)[:, None, None].expand(len(x), 2, *x.shape[2:]).clone()


class TestImage:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_no_displacement_is_the_image_to_the_bit(self, dtype: torch.dtype) -> None:
        x = images(3, 33, dtype=dtype)
        theta = Flow().start(x)
        assert theta.shape == (3, 2, 33, 33)
        assert torch.equal(Flow().image(x, theta), x)
        assert Flow().size(x, theta).tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize(("right", "down"), [(1, 0), (0, -1), (2, 3), (-3, 1)])
    def test_whole_displacements_shift_it_to_the_bit(self, right: int, down: int) -> None:
        x = images(2, 12)
        moved = Flow(5).image(x, _constant(x, right, down))
        for row, column in product(range(12), range(12)):
            there = x[:, :, min(max(row + down, 0), 11), min(max(column + right, 0), 11)]
            assert torch.equal(moved[:, :, row, column], there)

    def test_halves_are_means(self) -> None:
        x = images(1, 8, dtype=torch.float64)
        moved = Flow().image(x, _constant(x, 0.5, 0))
        torch.testing.assert_close(moved[..., :-1], (x[..., :-1] + x[..., 1:]) / 2)
        moved = Flow().image(x, _constant(x, -0.5, -0.5))
        four = (x[..., 1:, 1:] + x[..., 1:, :-1] + x[..., :-1, 1:] + x[..., :-1, :-1]) / 4
        torch.testing.assert_close(moved[..., 1:, 1:], four)

    @given(seeds, st.floats(0.01, 20))
    def test_it_is_torch_s_bilinear_sampling(self, seed: int, scale: float) -> None:
        x = images(2, 9, seed=seed, dtype=torch.float64)[..., :7]
        theta = scale * _draw(seed, 2, 2, 9, 7)
        rows, columns = torch.meshgrid(torch.arange(9.0).double(), torch.arange(7.0).double(), indexing="ij")
        grid = torch.stack([(columns + theta[:, 0]) / 3 - 1, (rows + theta[:, 1]) / 4 - 1], dim=-1)
        sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)
        torch.testing.assert_close(Flow(100).image(x, theta), sampled, rtol=0, atol=1e-12)

    @given(seeds, st.floats(0.01, 20))
    def test_it_stays_in_the_range(self, seed: int, scale: float) -> None:
        x = (2 * _draw(seed, 2, 3, 8, 8) + 0.5).clamp(0, 1).float()
        moved = Flow(100).image(x, (scale * _draw(seed + 1, 2, 2, 8, 8)).float())
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


class TestPullBack:
    """Between whole displacements, where the derivative exists."""

    @given(seeds)
    def test_it_is_the_derivative(self, seed: int) -> None:
        x, model = images(2, 6, seed=seed, dtype=torch.float64), Flow(9, tau=0)
        theta = 1.5 * _draw(seed, 2, 2, 6, 6)
        theta = theta.floor() + (theta - theta.floor()).clamp(0.01, 0.99)
        direction, step = _draw(seed + 1, *x.shape), 1e-4

        def gain(field: Tensor) -> Tensor:
            return (direction * model.image(x, field)).sum(dim=(1, 2, 3))

        slope = torch.zeros_like(theta)
        for place in product(range(2), range(6), range(6)):
            nudge = torch.zeros_like(theta[0])
            nudge[place] = step
            slope[:, *place] = (gain(theta + nudge) - gain(theta - nudge)) / (2 * step)
        torch.testing.assert_close(model.pull_back(x, theta, direction), unit(slope), rtol=1e-6, atol=1e-8)

    @given(seeds, st.floats(1e-6, 1e6))
    def test_the_price_does_not_hang_on_the_scale_of_the_direction(self, seed: int, scale: float) -> None:
        x, model = images(2, 6, dtype=torch.float64), Flow(2, tau=0.3)
        theta, direction = _draw(seed, 2, 2, 6, 6), _draw(seed + 1, *x.shape)
        pulled = model.pull_back(x, theta, direction)
        torch.testing.assert_close(model.pull_back(x, theta, scale * direction), pulled)
        attack = pulled - 0.3 * roughness_slope(theta)
        torch.testing.assert_close(attack.abs().mean(dim=(1, 2, 3)), torch.ones(2).double())

    def test_without_an_attack_the_price_alone_remains(self) -> None:
        x, theta = images(1, 6, dtype=torch.float64), _draw(0, 1, 2, 6, 6)
        pulled = Flow(2, tau=0.3).pull_back(x, theta, torch.zeros_like(x))
        assert torch.equal(pulled, 0.3 * roughness_slope(theta))


class TestRoughness:
    def test_of_a_step_and_of_nothing(self) -> None:
        theta = torch.zeros(2, 2, 4, 5, dtype=torch.float64)
        theta[1, 0, :, 3:] = 3.0
        theta[1, 1, :, 3:] = -4.0
        pairs = 4 * 4 + 3 * 5
        torch.testing.assert_close(
            roughness(theta), torch.tensor([pairs * 1e-4, 4 * 5 + (pairs - 4) * 1e-4]).double(), rtol=1e-6, atol=0
        )
        assert float(roughness_slope(theta)[0].abs().max()) == 0

    @given(seeds, st.sampled_from([1.0, 1e-3]))
    def test_its_slope(self, seed: int, scale: float) -> None:
        theta = scale * _draw(seed, 2, 2, 4, 5)
        step, slope = 1e-6 * scale, roughness_slope(theta)
        for place in product(range(2), range(4), range(5)):
            nudge = torch.zeros_like(theta[0])
            nudge[place] = step
            difference = (roughness(theta + nudge) - roughness(theta - nudge)) / (2 * step)
            torch.testing.assert_close(slope[:, *place], difference, rtol=1e-4, atol=1e-6)

    def test_going_against_it_makes_a_field_smoother(self) -> None:
        x, model = images(1, 8, dtype=torch.float64), Flow(2, tau=1.0)
        theta = _draw(1, 1, 2, 8, 8)
        smoother = theta - 0.05 * model.pull_back(x, theta, torch.zeros_like(x))
        assert float(roughness(smoother)) < 0.95 * float(roughness(theta))


class TestProject:
    @given(seeds, st.floats(0.01, 5), st.floats(0.01, 10))
    def test_no_pixel_moves_further_and_once_is_enough(self, seed: int, eps: float, scale: float) -> None:
        x, theta, model = images(2, 8), (scale * _draw(seed, 2, 2, 8, 8)).float(), Flow(eps)
        inside = model.project(x, theta)
        length = inside.double().norm(dim=1)
        assert float(length.max()) <= eps * (1 + 1e-6)
        assert float(model.size(x, inside).max()) == pytest.approx(float(length.max()))
        torch.testing.assert_close(model.project(x, inside), inside, rtol=1e-6, atol=0)
        short = theta.norm(dim=1, keepdim=True) < 0.999 * eps
        assert torch.equal(inside * short, theta * short)

    @given(seeds, st.floats(0.01, 3))
    def test_no_field_within_is_nearer(self, seed: int, eps: float) -> None:
        x, model = images(2, 6, dtype=torch.float64), Flow(eps)
        theta, other = _draw(seed, 2, 2, 6, 6), model.project(x, _draw(seed + 1, 2, 2, 6, 6))
        inside = model.project(x, theta)
        assert ((inside - theta).norm(dim=1) <= (other - theta).norm(dim=1) + 1e-12).all()


class TestSteepest:
    @given(seeds)
    def test_no_move_of_size_one_gains_more(self, seed: int) -> None:
        x, model = images(2, 6, dtype=torch.float64), Flow(1)
        direction, other = _draw(seed, 2, 2, 6, 6), model.project(x, 5 * _draw(seed + 1, 2, 2, 6, 6))
        steepest = model.steepest(direction)
        torch.testing.assert_close(steepest.norm(dim=1), torch.ones(2, 6, 6).double())
        assert ((direction * steepest).sum(dim=1) >= (direction * other).sum(dim=1) - 1e-12).all()

    def test_zero_stays_zero_and_what_is_tiny_counts(self) -> None:
        direction = torch.zeros(1, 2, 2, 2)
        direction[0, 1, 0, 0] = -1e-30
        assert Flow().steepest(direction).flatten().tolist() == [0.0] * 4 + [-1.0, 0.0, 0.0, 0.0]

    def test_a_share_for_every_value_makes_a_whole(self) -> None:
        x = images(1, 6, dtype=torch.float64)
        theta = torch.full((1, 2, 6, 6), Flow().share(x)).double()
        assert float(Flow().size(x, theta)) == pytest.approx(1)


class TestPixels:
    @given(seeds, st.floats(0.1, 3))
    def test_what_a_field_made_is_told_from_what_none_made(self, seed: int, eps: float) -> None:
        x, model = (images(2, 10, seed=seed) * 255).round() / 255, Flow(eps)
        image = model.image(x, model.project(x, (3 * _draw(seed, 2, 2, 10, 10)).float()))
        saved = model.rounded(x, image)
        assert saved.dtype == torch.uint8
        assert float((saved / 255 - image).abs().max()) <= 0.5001 / 255
        assert model.contains(x, saved / 255).tolist() == [True, True]
        image[1, 2, 4, 4] = 1.0  # brighter than any pixel of the toys
        assert model.contains(x, image).tolist() == [True, False]

    def test_it_looks_no_further_than_the_budget(self) -> None:
        x = torch.zeros(1, 3, 9, 9)
        x[..., 4, 4] = 1
        assert bool(Flow(2).contains(x, torch.roll(x, (2, -2), (2, 3))))
        assert not bool(Flow(2).contains(x, torch.roll(x, (3, 0), (2, 3))))

    def test_nor_than_the_image_whatever_the_budget(self) -> None:
        x = images(2, 9)
        image = torch.stack([x[0].roll((4, 4), (1, 2)), x[1] + 0.01 + x[1].max() - x[1].min()])
        assert Flow(1e30).contains(x, image).tolist() == [True, False]


class TestHarmless:
    def test_it_shifts_an_image_as_a_whole_by_the_full_budget(self) -> None:
        x, model = images(2, 8), Flow(1.5)
        theta = model.harmless(x, [torch.Generator().manual_seed(seed) for seed in (1, 2)])
        torch.testing.assert_close(model.size(x, theta), torch.full((2,), 1.5))
        assert torch.equal(theta, theta[:, :, :1, :1].expand_as(theta))
        assert not torch.equal(theta[0], theta[1])
        assert torch.equal(model.harmless(x[1:], [torch.Generator().manual_seed(2)])[0], theta[1])


class TestBudget:
    @pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, math.inf])
    def test_what_is_no_displacement_is_refused(self, eps: float) -> None:
        with pytest.raises(InputError, match=f"eps {eps:g} is no displacement"):
            Flow(eps)

    @pytest.mark.parametrize("tau", [-0.1, math.nan, math.inf])
    def test_what_is_no_price_is_refused(self, tau: float) -> None:
        with pytest.raises(InputError, match=f"tau {tau:g} is no price"):
            Flow(1, tau)
