"""Step rules: what a move is, in steps."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from underfire.attacks.rules import Adam


def _one(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


class TestAdam:
    @given(st.floats(1e-6, 1e6), st.integers(1, 30))
    def test_a_steady_direction_moves_one_whole_step_whatever_its_size(self, size: float, count: int) -> None:
        stepper = Adam().begin(_one(0))
        for _ in range(count):
            move = stepper(_one(size))
        assert float(move) == pytest.approx(1)

    def test_a_direction_that_turns_at_every_step_hardly_moves(self) -> None:
        stepper = Adam().begin(_one(0))
        moves = [abs(float(stepper(_one((-1) ** k)))) for k in range(60)]
        assert moves[0] == 1
        assert max(moves[30:]) < 0.1

    @pytest.mark.parametrize(("kept", "kept_square"), [(0.9, 0.95), (0.5, 0.8)])
    def test_the_second_move_in_closed_form(self, kept: float, kept_square: float) -> None:
        stepper = Adam(mean=kept, spread=kept_square).begin(_one(0))
        stepper(_one(1.0))
        mean = (kept * (1 - kept) * 1 + (1 - kept) * 3) / (1 - kept**2)
        spread = ((kept_square * (1 - kept_square) * 1 + (1 - kept_square) * 9) / (1 - kept_square**2)) ** 0.5
        assert float(stepper(_one(3.0))) == pytest.approx(mean / spread)

    def test_by_default_the_means_reach_back_ten_and_twenty_steps(self) -> None:
        assert (Adam().mean, Adam().spread, Adam().longest) == (0.9, 0.95, 1.5)

    @given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20), st.floats(0.1, 3))
    def test_no_move_is_longer_than_the_longest_nor_undefined(self, directions: list[float], longest: float) -> None:
        stepper = Adam(longest=longest).begin(_one(0))
        for direction in directions:
            assert abs(float(stepper(_one(direction)))) <= longest

    def test_a_jump_reaches_the_longest(self) -> None:
        """After long stillness 0.1·g stands over √0.05·|g|, before the corrections: more than 0.4 of a step."""
        stepper = Adam(longest=0.4).begin(_one(0))
        for _ in range(200):
            stepper(_one(0))
        assert float(stepper(_one(5.0))) == 0.4

    def test_no_direction_is_no_move(self) -> None:
        assert float(Adam().begin(_one(0))(_one(0.0))) == 0

    def test_two_attacks_share_nothing(self) -> None:
        rule = Adam()
        first, second = rule.begin(_one(0)), rule.begin(_one(0))
        first(_one(-8.0))
        assert float(second(_one(1.0))) == pytest.approx(1)


class TestSelect:
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 1000))
    def test_the_images_that_stay_move_as_if_all_had_stayed(self, places: list[int], seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        directions = [torch.randn(4, 2, 3, 3, generator=draw) for _ in range(6)]
        whole, part = (Adam().begin(directions[0]) for _ in range(2))
        for direction in directions[:3]:
            assert torch.equal(whole(direction), part(direction))
        rows = torch.tensor(places)
        part.select(rows)
        for direction in directions[3:]:
            assert torch.equal(part(direction[rows]), whole(direction)[rows])
