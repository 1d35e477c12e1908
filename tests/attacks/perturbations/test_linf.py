"""The L∞ ball."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from underfire import InputError, Linf

ULP = 2.0**-23  # of float32 at 1: eps, the sum and the difference are rounded to half of one each
numbers = st.floats(0, 1, width=32)

pairs = st.lists(st.tuples(numbers, numbers, st.floats(-3, 3, width=32)), min_size=1, max_size=3).map(
    lambda rows: [torch.tensor(column).repeat_interleave(2).reshape(-1, 1, 1, 2) for column in zip(*rows, strict=True)]
)


def _row(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


class TestProject:
    @given(pairs, st.floats(1 / 255, 1), st.floats(1e-4, 2))
    def test_the_ball_and_the_range_are_kept_from_anywhere(
        self, tensors: list[Tensor], eps: float, step_size: float
    ) -> None:
        x, theta, move = tensors
        ball = Linf(eps)
        moved = ball.project(x, theta - step_size * move)
        assert float((moved - x).abs().max()) <= eps + ULP
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
        assert float(ball.size(x, moved).max()) <= eps + ULP

    @given(pairs, st.floats(1 / 255, 1))
    def test_what_is_within_stays_to_a_rounding(self, tensors: list[Tensor], eps: float) -> None:
        x, theta, _ = tensors
        inside = Linf(eps).project(x, theta)
        again = Linf(eps).project(x, inside)
        assert float((again - inside).abs().max()) <= ULP
        within = (theta - x).abs() <= eps
        assert float(((inside - theta).abs() * within).max()) <= ULP

    def test_it_stops_at_the_border_of_the_ball_and_of_the_range(self) -> None:
        x = _row(0.5, 0.5, 0.02, 0.99)
        moved = Linf(0.1).project(x, x - 0.3 * _row(1.0, -1.0, 1.0, -1.0))
        torch.testing.assert_close(moved, _row(0.4, 0.6, 0.0, 1.0))

    def test_steps_within_the_ball_go_on_from_where_they_are(self) -> None:
        x, ball = _row(0.5), Linf(0.1)
        theta = x
        for expected in (0.53, 0.56, 0.59, 0.6, 0.6):
            theta = ball.project(x, theta + 0.03)
            assert float(theta) == pytest.approx(expected)


class TestSteepest:
    def test_it_is_the_sign(self) -> None:
        assert torch.equal(Linf().steepest(_row(3.0, -1e-30, 0.0)), _row(1.0, -1.0, 0.0))

    def test_it_goes_up_so_that_the_loop_goes_against_it(self) -> None:
        x, ball = _row(0.5, 0.5, 0.5), Linf(0.1)
        moved = ball.project(x, x - 0.02 * ball.steepest(_row(1.0, -0.5, 0.0)))
        torch.testing.assert_close(moved, _row(0.48, 0.52, 0.5))

    @given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=3, max_size=3), st.integers(0, 99))
    def test_no_move_of_size_one_gains_more(self, values: list[float], seed: int) -> None:
        direction = _row(*values).double()
        steepest = Linf().steepest(direction)
        assert float(steepest.abs().max()) <= 1
        other = torch.rand(1, 1, 1, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
        assert float((direction * steepest).sum()) >= float((direction * other).sum())


class TestSize:
    def test_the_size_is_the_largest_change_of_each_image(self) -> None:
        x = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
        theta = x.clone()
        theta[0, 1, 2, 3] -= 0.03
        theta[0, 0, 0, 0] += 0.01
        theta[1, 2, 0, 1] += 0.02
        torch.testing.assert_close(Linf().size(x, theta), torch.tensor([0.03, 0.02], dtype=torch.float64))


class TestRounded:
    @given(
        st.integers(0, 255),
        st.floats(-1, 1),
        st.one_of(st.integers(1, 60).map(lambda k: k / 255), st.floats(0.001, 0.3)),
    )
    def test_it_is_the_nearest_value_inside_the_budget(self, centre: int, push: float, eps: float) -> None:
        x, ball = torch.full((1, 3, 1, 1), centre / 255), Linf(eps)
        image = (x + push * eps).clamp(0, 1)
        saved = int(ball.rounded(x, image)[0, 0, 0, 0])
        allowed = [k for k in range(256) if abs(k - centre) <= eps * 255 + 1e-6]
        value = float(image[0, 0, 0, 0]) * 255
        assert saved in allowed
        assert abs(saved - value) == pytest.approx(min(abs(k - value) for k in allowed), abs=1e-4)

    def test_whole_levels_stay(self) -> None:
        pixels = torch.arange(256).byte()[None, :, None, None]
        for dtype in (torch.float32, torch.float64):
            assert torch.equal(Linf().rounded(pixels.to(dtype) / 255, pixels.to(dtype) / 255), pixels)


class TestHarmless:
    def test_at_the_border_of_the_range_it_goes_inwards_only(self) -> None:
        noisy = Linf(0.1).harmless(torch.ones(1, 3, 4, 4), [torch.Generator()])
        assert 0.89 < float(noisy.min()) < float(noisy.max()) == 1


class TestBudget:
    @pytest.mark.parametrize("eps", [0.0, -0.1, math.nan, math.inf, 1.01])
    def test_what_is_no_budget_is_refused(self, eps: float) -> None:
        with pytest.raises(InputError, match=r"eps .* is not in \(0, 1\]"):
            Linf(eps)

    def test_eight_means_eight_of_255(self) -> None:
        with pytest.raises(InputError, match=r"eps 8 is not .* for 8-bit units write 8/255"):
            Linf(8)

    @pytest.mark.parametrize("eps", [1e-6, 8 / 255, 1.0, 1])
    def test_what_is_one_is_kept(self, eps: float) -> None:
        assert Linf(eps).eps == eps

    def test_by_default_it_is_eight_of_255(self) -> None:
        assert Linf().eps == 8 / 255
