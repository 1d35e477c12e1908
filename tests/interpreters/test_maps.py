"""From raw attributions to maps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from underfire.interpreters.maps import POOL, distance, min_max, saliency, saliency_grid

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
grids = st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=4)


def _maps(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2, 3)


class TestMinMax:
    @given(grids)
    def test_each_map_fills_the_unit_interval_or_is_zero(self, rows: list[list[float]]) -> None:
        raw = _maps(rows)
        for one, scaled in zip(raw, min_max(raw), strict=True):
            if one.min() == one.max():
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
    def test_it_is_a_mean_over_cells(self, gap: float, wrong: int) -> None:
        a = torch.zeros(1, 3, 3, dtype=torch.float64)
        b = a.clone()
        b.view(-1)[:wrong] = gap
        whole = torch.full_like(a, gap)
        assert float(distance(a, b)) == pytest.approx(wrong / 9 * float(distance(a, whole)))
        assert float(distance(a, torch.ones_like(a))) == pytest.approx(1)
