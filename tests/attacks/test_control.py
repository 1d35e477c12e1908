"""Step sizes, what counts as holding the label, and the balance of prediction and maps."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire import InputError
from underfire.attacks.control import Balance, Confidence, Schedule, probability, unit


def _schedule(**options: float) -> Schedule:
    return Schedule(**{"steps": 10, "warm": 2, "first": 0.1, "peak": 0.2, "last": 0.05, **options})  # type: ignore[arg-type]


class TestSchedule:
    @given(st.integers(1, 500), st.floats(1e-5, 1))
    def test_a_constant_one_is_constant_to_the_bit(self, steps: int, size: float) -> None:
        schedule = Schedule.constant(steps, size)
        assert {schedule.size(step) for step in range(steps)} == {size}
        assert schedule.warm == 0

    @given(st.integers(1, 200), st.integers(0, 200))
    def test_warm_then_from_peak_down_to_last(self, steps: int, warm: int) -> None:
        warm = min(warm, steps)
        schedule = _schedule(steps=steps, warm=warm)
        sizes = [schedule.size(step) for step in range(steps)]
        assert sizes[:warm] == [0.1] * warm
        joint = sizes[warm:]
        assert joint == sorted(joint, reverse=True)
        assert all(0.05 <= size <= 0.2 for size in joint)
        if joint:
            assert joint[0] == pytest.approx(0.2)
        if len(joint) > 100:
            assert joint[-1] == pytest.approx(0.05, abs=1e-3)

    @pytest.mark.parametrize("steps", [0, -5])
    def test_no_step_is_refused(self, steps: int) -> None:
        with pytest.raises(InputError, match=f"steps is {steps}; an attack takes at least 1 step"):
            _schedule(steps=steps)

    @pytest.mark.parametrize("which", ["first", "peak", "last"])
    @pytest.mark.parametrize("size", [0.0, -0.01, math.nan, math.inf])
    def test_a_step_that_goes_nowhere_is_refused(self, which: str, size: float) -> None:
        with pytest.raises(InputError, match=f"step_size {size:g} must be"):
            _schedule(**{which: size})


LOGITS = torch.tensor([[0.1, 0.85, 0.05], [0.04, 0.92, 0.04], [0.02, 0.96, 0.02], [0.5, 0.3, 0.2]]).log()


class TestConfidence:
    def test_the_label_holds_from_keep_on_and_is_minded_up_to_seek(self) -> None:
        confidence, target = Confidence(keep=0.9, seek=0.95), torch.ones(4, dtype=torch.int64)
        assert confidence.holds(LOGITS, target).tolist() == [False, True, True, False]
        assert confidence.wanting(LOGITS, target).tolist() == [True, True, False, True]

    def test_a_low_bar_still_asks_for_the_largest_logit(self) -> None:
        confidence = Confidence(keep=0.2, seek=0.3)
        assert confidence.holds(LOGITS, torch.tensor([1, 1, 1, 1])).tolist() == [True, True, True, False]

    @given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.integers(0, 2))
    def test_a_step_minds_the_prediction_whenever_the_label_does_not_hold(self, row: list[float], target: int) -> None:
        confidence, logits, classes = Confidence(), torch.tensor([row], dtype=torch.float64), torch.tensor([target])
        assert bool(confidence.holds(logits, classes)) or bool(confidence.wanting(logits, classes))


class TestBalance:
    @given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=60))
    def test_the_weight_falls_while_the_label_is_wanting_and_recovers(self, history: list[list[bool]]) -> None:
        balance = Balance(3, torch.zeros(3, dtype=torch.float64))
        direction = torch.zeros(3, 1, 1, 1, dtype=torch.float64)
        for row in history:
            before = balance.weight.clone()
            balance.mix(direction, direction, torch.tensor(row))
            assert bool((balance.weight >= Balance.LOWEST).all())
            assert bool((balance.weight <= 1).all())
            for image, wanting in enumerate(row):
                was, now = float(before[image]), float(balance.weight[image])
                assert now < was or was == Balance.LOWEST if wanting else now > was or was == 1

    def test_the_prediction_counts_only_while_it_is_wanting(self) -> None:
        balance = Balance(2, torch.zeros(2))
        prediction, maps = torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 0.5)
        mixed = balance.mix(prediction, maps, torch.tensor([True, False]))
        assert mixed.flatten().tolist() == [3.5, 0.5]

    def test_images_are_balanced_by_themselves(self) -> None:
        together, alone = Balance(2, torch.zeros(2)), Balance(1, torch.zeros(1))
        d = torch.zeros(2, 1, 1, 1)
        for wanting in (True, True, False):
            together.mix(d, d, torch.tensor([not wanting, wanting]))
            alone.mix(d[:1], d[:1], torch.tensor([wanting]))
        assert torch.equal(together.weight[1:], alone.weight)


class TestProbability:
    def test_it_is_the_target_s_softmax_without_a_graph(self) -> None:
        p = probability(LOGITS.clone().requires_grad_(True), torch.tensor([0, 1, 2, 0]))
        torch.testing.assert_close(p, torch.tensor([0.1, 0.92, 0.02, 0.5]))
        assert not p.requires_grad


class TestUnit:
    @given(st.floats(-30, 30), st.integers(0, 1000))
    def test_the_mean_magnitude_is_one_at_any_scale(self, exponent: float, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        d = torch.randn(2, 3, 4, 4, generator=draw) * 10**exponent
        scaled = unit(d)
        torch.testing.assert_close(scaled.abs().mean(dim=(1, 2, 3)), torch.ones(2))
        assert torch.equal(scaled.sign(), d.sign())

    def test_zero_stays_zero_and_tells_nobody(self) -> None:
        d = torch.ones(2, 1, 2, 2)
        d[0] = 0
        assert torch.equal(unit(d), d)
