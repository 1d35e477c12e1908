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


def _images(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 2)


pairs = st.lists(st.tuples(numbers, numbers, st.floats(-3, 3, width=32)), min_size=1, max_size=3).map(
    lambda rows: [torch.tensor(column).repeat_interleave(2).reshape(-1, 1, 1, 2) for column in zip(*rows, strict=True)]
)


class TestMove:
    @given(pairs, st.floats(1 / 255, 1), st.floats(1e-4, 2))
    def test_the_ball_and_the_range_are_kept_from_anywhere(
        self, tensors: list[Tensor], eps: float, step_size: float
    ) -> None:
        x, x_adv, direction = tensors
        moved = Linf(eps).move(x_adv, x, direction, step_size)
        assert float((moved - x).abs().max()) <= eps + ULP
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1

    def test_it_goes_against_the_move(self) -> None:
        x = torch.full((1, 1, 1, 3), 0.5)
        moved = Linf(0.1).move(x, x, torch.tensor([1.0, -0.5, 0.0]).reshape(1, 1, 1, 3), 0.02)
        torch.testing.assert_close(moved.flatten(), torch.tensor([0.48, 0.51, 0.5]))

    def test_it_stops_at_the_border_of_the_ball_and_of_the_range(self) -> None:
        x = torch.tensor([0.5, 0.5, 0.02, 0.99]).reshape(1, 1, 1, 4)
        moved = Linf(0.1).move(x, x, torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 1, 4), 0.3)
        torch.testing.assert_close(moved.flatten(), torch.tensor([0.4, 0.6, 0.0, 1.0]))

    def test_steps_within_the_ball_go_on_from_where_they_are(self) -> None:
        x, ball = torch.full((1, 1, 1, 1), 0.5), Linf(0.1)
        x_adv = x
        for expected in (0.53, 0.56, 0.59, 0.6, 0.6):
            x_adv = ball.move(x_adv, x, -torch.ones_like(x), 0.03)
            assert float(x_adv) == pytest.approx(expected)


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
