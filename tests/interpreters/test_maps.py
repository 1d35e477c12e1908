"""From raw attributions to maps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from underfire.interpreters.maps import (
    POOL,
    RawLoss,
    distance,
    min_max,
    pooled,
    saliency,
    saliency_grid,
    saliency_slope,
    scaled_distance,
    shape_distance,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
grids = st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=4)


def _maps(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2, 3)


class TestMinMax:
    @given(grids)
    def test_each_map_fills_the_unit_interval_or_is_zero(self, rows: list[list[float]]) -> None:
        raw = _maps(rows)
        for one, scaled in zip(raw, min_max(raw), strict=True):
            if one.max() - one.min() <= torch.finfo(one.dtype).tiny:
                assert torch.equal(scaled, torch.zeros_like(one))
            else:
                assert (float(scaled.min()), float(scaled.max())) == (0.0, 1.0)
                assert bool((scaled[one == one.max()] == 1).all())
                assert bool((scaled[one == one.min()] == 0).all())

    @given(grids, st.floats(0.1, 10), st.floats(-10, 10))
    def test_scale_and_shift_don_t_matter(self, rows: list[list[float]], scale: float, shift: float) -> None:
        raw = _maps(rows).round(decimals=2)  # so that no difference drowns in the shift
        torch.testing.assert_close(min_max(raw * scale + shift), min_max(raw), rtol=0, atol=1e-9)

    @given(grids)
    def test_maps_don_t_see_each_other(self, rows: list[list[float]]) -> None:
        raw = _maps(rows)
        assert torch.equal(min_max(raw), torch.cat([min_max(one[None]) for one in raw]))

    def test_the_gradient_of_a_constant_map_is_finite(self) -> None:
        raw = torch.full((2, 3, 3), 0.7, requires_grad=True)
        (gradient,) = torch.autograd.grad(min_max(raw).square().sum(), raw)
        assert torch.isfinite(gradient).all()

    def test_gradients_match_finite_differences(self) -> None:
        torch.manual_seed(0)
        assert torch.autograd.gradcheck(min_max, torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True))


class TestSaliency:
    def test_channel_maximum_of_magnitudes_then_mean_over_cells_then_scaling(self) -> None:
        torch.manual_seed(0)
        a = torch.randn(2, 3, 8, 12, dtype=torch.float64)
        raw = torch.empty(2, 2, 3, dtype=torch.float64)
        for n in range(2):
            for i in range(2):
                for j in range(3):
                    cell = a[n, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                    raw[n, i, j] = (
                        sum(max(abs(float(v)) for v in cell[:, p, q]) for p in range(4) for q in range(4)) / 16
                    )
        low, high = raw.flatten(1).min(1).values[:, None, None], raw.flatten(1).max(1).values[:, None, None]
        torch.testing.assert_close(saliency(a), (raw - low) / (high - low))

    @given(st.integers(POOL, 40), st.integers(POOL, 40))
    def test_the_grid_is_what_the_maps_have(self, height: int, width: int) -> None:
        assert saliency(torch.zeros(1, 3, height, width)).shape[1:] == saliency_grid((height, width))

    def test_the_paper_s_grid(self) -> None:
        assert saliency_grid((224, 224)) == (56, 56)

    def test_signs_don_t_matter_and_zero_stays_zero(self) -> None:
        torch.manual_seed(0)
        a = torch.randn(1, 3, 8, 8)
        assert torch.equal(saliency(a), saliency(-a))
        assert torch.equal(saliency(0 * a), torch.zeros(1, 2, 2))


class TestDistance:
    @given(grids, st.integers(0, 2**31))
    def test_it_is_zero_for_equal_maps_alone_and_knows_no_order(self, rows: list[list[float]], seed: int) -> None:
        a = min_max(_maps(rows))
        b = torch.rand(a.shape, generator=torch.Generator().manual_seed(seed), dtype=a.dtype)
        assert torch.equal(distance(a, a), torch.zeros(len(a), dtype=a.dtype))
        assert bool((distance(a, b) > 0).all())
        torch.testing.assert_close(distance(a, b), distance(b, a))

    @given(st.floats(0.01, 1), st.integers(1, 9))
    def test_it_is_a_mean_over_cells(self, change: float, wrong: int) -> None:
        a = torch.zeros(1, 3, 3, dtype=torch.float64)
        b = a.clone()
        b.view(-1)[:wrong] = change
        whole = torch.full_like(a, change)
        assert float(distance(a, b)) == pytest.approx(wrong / 9 * float(distance(a, whole)))
        assert float(distance(a, torch.ones_like(a))) == pytest.approx(1)


def _row(*values: float) -> Tensor:
    """A map of one row, (1, 1, n)."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _ordinary(n: int = 3, *, seed: int = 1) -> Tensor:
    """Maps (n, 4, 5) in [0, 1] that begin at 0 and end at 1."""
    return min_max(_draw(n, 4, 5, seed=seed))


class TestShapeDistance:
    def test_by_hand(self) -> None:
        """From the minimum: 0 1 3 against 0 .5 .25, scaled to the mean .25: 0 .1875 .5625."""
        found = shape_distance(_row(2, 3, 5), _row(0, 0.5, 0.25))
        assert float(found) == pytest.approx((0 + 0.3125 + 0.3125) / 3)

    def test_the_target_counts_from_its_minimum_too(self) -> None:
        """0 1 3 against 0 .2 .1 above .3."""
        found = shape_distance(_row(2, 3, 5), _row(0.3, 0.5, 0.4))
        assert float(found) == pytest.approx((0 + abs(0.075 - 0.2) + abs(0.225 - 0.1)) / 3)

    @given(st.floats(1e-6, 1e6), st.floats(-100, 100), st.integers(0, 99))
    def test_it_is_zero_where_the_maps_agree_after_scaling(self, scale: float, offset: float, seed: int) -> None:
        target = _ordinary(seed=seed)
        raw = target * scale + offset * scale
        assert float(shape_distance(raw, target).max()) < 1e-12
        assert float(distance(min_max(raw), target).max()) < 1e-12

    @given(st.floats(1e-6, 1e6), st.floats(-100, 100))
    def test_scale_and_offset_of_the_raw_map_don_t_matter(self, scale: float, offset: float) -> None:
        raw, target = _draw(3, 4, 5), _ordinary()
        expected = shape_distance(raw, target)
        assert float(expected.min()) > 0.01
        torch.testing.assert_close(
            shape_distance(raw * scale + offset * scale, target), expected, rtol=1e-9, atol=1e-12
        )

    @given(st.floats(0.01, 1), st.floats(0, 0.5))
    def test_nor_does_the_offset_of_the_target_whose_scale_is_the_unit(self, scale: float, offset: float) -> None:
        raw, target = _draw(3, 4, 5), _ordinary()
        found = shape_distance(raw, target * scale + offset)
        torch.testing.assert_close(found, scale * shape_distance(raw, target))

    def test_any_other_shape_is_some_way_off(self) -> None:
        target = _ordinary(1)
        for cell in range(20):
            other = target.clone()
            other.view(-1)[cell] += 0.05
            if other.min() == 0 == target.min() and float(other.max()) <= 1 + 0.05:
                assert float(shape_distance(other, target)) > 1e-3

    def test_one_cell_that_stands_out_does_not_move_the_others(self) -> None:
        """What it is for: twice the maximum in one cell halves a min–max map everywhere, and this one by a little."""
        target = _ordinary(1, seed=3)
        raw = target.clone()
        raw.view(-1)[int(raw.argmax())] *= 2
        assert float(distance(min_max(raw), target)) > 3 * float(shape_distance(raw, target))

    def test_maps_don_t_see_each_other(self) -> None:
        raw, target = _draw(3, 4, 5), _ordinary()
        raw[1] *= 1e6
        alone = [shape_distance(raw[i : i + 1], target[i : i + 1]) for i in range(3)]
        assert torch.equal(shape_distance(raw, target), torch.cat(alone))

    @pytest.mark.parametrize("level", [0.0, 0.7, -3.0])
    def test_a_constant_map_is_as_far_off_as_nothing(self, level: float) -> None:
        target = _ordinary()
        raw = torch.full_like(target, level).requires_grad_(True)
        loss = shape_distance(raw, target)
        torch.testing.assert_close(loss.detach(), target.mean(dim=(1, 2)))
        (slope,) = torch.autograd.grad(loss.sum(), raw)
        assert torch.isfinite(slope).all()

    @pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
    @pytest.mark.parametrize("flat", [False, True])
    def test_a_constant_target_asks_for_nothing(self, level: float, flat: bool) -> None:
        """Its scale is 0, and every map scaled to that is it: no loss, and no direction that could be NaN."""
        raw = (0.7 + _draw(3, 4, 5) * (not flat)).requires_grad_(True)
        loss = shape_distance(raw, torch.full_like(raw, level).detach())
        (slope,) = torch.autograd.grad(loss.sum(), raw)
        assert torch.equal(loss.detach(), torch.zeros(3, dtype=torch.float64))
        assert torch.equal(slope, torch.zeros_like(slope))

    def test_gradients_match_finite_differences(self) -> None:
        target = _ordinary()
        raw = _draw(3, 4, 5, seed=4).requires_grad_(True)
        assert torch.autograd.gradcheck(lambda r: shape_distance(r, target), raw)


class TestSaliencySlope:
    TARGET = min_max(_draw(3, 2, 3, seed=5))

    def test_gap_and_loss_are_those_of_the_maps(self) -> None:
        attributions = _draw(3, 3, 8, 12)
        apart, loss, slope = saliency_slope(attributions, self.TARGET)
        torch.testing.assert_close(apart, distance(saliency(attributions), self.TARGET))
        torch.testing.assert_close(loss, shape_distance(pooled(attributions), self.TARGET))
        assert slope.shape == attributions.shape
        assert not any(t.requires_grad for t in (apart, loss, slope))

    def test_another_loss_may_be_asked_for(self) -> None:
        attributions = _draw(3, 3, 8, 12)
        apart, loss, slope = saliency_slope(attributions, self.TARGET, scaled_distance)
        assert torch.equal(loss, apart)
        assert not torch.equal(slope, saliency_slope(attributions, self.TARGET)[2])

    @pytest.mark.parametrize("wanted", [shape_distance, scaled_distance])
    def test_the_slope_is_the_loss_s_by_finite_differences(self, wanted: RawLoss) -> None:
        attributions, step = _draw(3, 3, 8, 12), 1e-6
        _, _, slope = saliency_slope(attributions, self.TARGET, wanted)
        for seed in range(10):
            d = _draw(3, 3, 8, 12, seed=100 + seed)
            ahead, behind = (saliency_slope(attributions + s * d, self.TARGET, wanted)[1] for s in (step, -step))
            torch.testing.assert_close(
                (slope * d).sum(dim=(1, 2, 3)), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-8
            )
        assert float(slope.flatten(1).abs().amax(dim=1).min()) > 0

    def test_only_the_largest_channel_of_a_pixel_has_one(self) -> None:
        attributions = _draw(3, 3, 8, 12)
        _, _, slope = saliency_slope(attributions, self.TARGET)
        largest = attributions.abs() == attributions.abs().amax(dim=1, keepdim=True)
        assert torch.equal(slope[~largest], torch.zeros_like(slope[~largest]))
        assert bool((slope != 0).any(dim=1).float().mean() > 0.5)

    def test_where_the_maps_agree_nothing_is_left_to_gain(self) -> None:
        attributions = _draw(3, 3, 8, 12)
        apart, loss, _ = saliency_slope(attributions, saliency(attributions))
        assert float(apart.max()) < 1e-12
        assert float(loss.max()) < 1e-12

    @pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
    def test_attributions_without_a_shape_have_finite_losses_and_slopes(self, value: float) -> None:
        attributions = torch.full((3, 3, 8, 12), value, dtype=torch.float64)
        apart, loss, slope = saliency_slope(attributions, self.TARGET)
        torch.testing.assert_close(apart, self.TARGET.mean(dim=(1, 2)))
        torch.testing.assert_close(loss, apart)
        assert torch.isfinite(slope).all()

    def test_no_attribution_at_all_has_no_slope(self) -> None:
        """|0| has no side: zero gradients stay zero, whatever is wanted."""
        _, _, slope = saliency_slope(torch.zeros(3, 3, 8, 12, dtype=torch.float64), self.TARGET)
        assert torch.equal(slope, torch.zeros_like(slope))

    def test_a_constant_target_has_no_slope(self) -> None:
        attributions = _draw(3, 3, 8, 12)
        apart, loss, slope = saliency_slope(attributions, torch.full_like(self.TARGET, 0.25))
        torch.testing.assert_close(apart, (saliency(attributions) - 0.25).abs().mean(dim=(1, 2)))
        assert torch.equal(loss, torch.zeros_like(loss))
        assert torch.equal(slope, torch.zeros_like(slope))

    def test_a_caller_s_no_grad_changes_nothing(self) -> None:
        attributions = _draw(3, 3, 8, 12).requires_grad_(True)
        expected = saliency_slope(attributions, self.TARGET)
        with torch.no_grad():
            found = saliency_slope(attributions, self.TARGET)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        assert attributions.grad is None


@pytest.mark.parametrize("loss", [shape_distance, scaled_distance])
@pytest.mark.parametrize("exponent", range(0, 40, 4))
def test_gradients_that_have_almost_vanished_keep_their_shape(loss: RawLoss, exponent: int) -> None:
    """As p_t nears 1, −log p_t flattens; what its gradient looks like stays, and so must the way to change that."""
    draw = torch.Generator().manual_seed(exponent)
    attributions = torch.rand(2, 3, 16, 16, generator=draw)
    target = min_max(torch.rand(2, 4, 4, generator=draw))
    apart, value, slope = saliency_slope(attributions, target, loss)
    tiny = torch.tensor(10.0**-exponent)
    small_gap, small_value, small_slope = saliency_slope(attributions * tiny, target, loss)
    torch.testing.assert_close((small_gap, small_value), (apart, value), rtol=1e-3, atol=1e-4)
    assert bool(small_slope.isfinite().all())
    torch.testing.assert_close(small_slope * tiny, slope, rtol=1e-2, atol=1e-4)
