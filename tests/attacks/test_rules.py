"""Step rules: what a move is, in steps."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from underfire.attacks.rules import Adam, sign


def _one(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def test_the_sign_is_a_whole_step_whatever_the_size() -> None:
    assert sign(torch.tensor([3.0, -1e-30, 0.0])).tolist() == [1, -1, 0]


class TestAdam:
    @given(st.floats(1e-6, 1e6), st.integers(1, 30))
    def test_a_steady_direction_moves_one_whole_step_whatever_its_size(self, size: float, count: int) -> None:
        adam = Adam(_one(0))
        for _ in range(count):
            move = adam(_one(size))
        assert float(move) == pytest.approx(1)

    def test_a_direction_that_turns_at_every_step_hardly_moves(self) -> None:
        adam = Adam(_one(0))
        moves = [abs(float(adam(_one((-1) ** k)))) for k in range(60)]
        assert moves[0] == 1
        assert max(moves[30:]) < 0.1

    def test_the_second_move_in_closed_form(self) -> None:
        adam = Adam(_one(0))
        adam(_one(1.0))
        mean = (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9**2)
        spread = ((0.95 * 0.05 * 1 + 0.05 * 9) / (1 - 0.95**2)) ** 0.5
        assert float(adam(_one(3.0))) == pytest.approx(mean / spread)

    @given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
    def test_no_move_is_longer_than_the_longest_nor_undefined(self, directions: list[float]) -> None:
        adam = Adam(_one(0))
        for direction in directions:
            assert abs(float(adam(_one(direction)))) <= Adam.LONGEST

    def test_no_direction_is_no_move(self) -> None:
        assert float(Adam(_one(0))(_one(0.0))) == 0
