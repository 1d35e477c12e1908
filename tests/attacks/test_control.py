"""Step sizes, what counts as holding the label, and the balance of prediction and maps."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from underfire import InputError
from underfire.attacks.control import (
    MINIMAX,
    NORMALIZED,
    SUM,
    Balance,
    Mixer,
    Schedule,
    Weighting,
)
from underfire.interpreters.directional import unit


def _schedule(**options: float | tuple[int, ...]) -> Schedule:
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

    @given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.data())
    def test_every_stage_anneals_whatever_comes_after(self, lengths: list[int], data: st.DataObject) -> None:
        ends = tuple(2 + sum(lengths[: k + 1]) for k in range(len(lengths)))
        steps = data.draw(st.integers(1, ends[-1]))
        schedule, longer = _schedule(steps=steps, ends=ends), _schedule(steps=ends[-1], ends=ends)
        sizes = [longer.size(step) for step in range(ends[-1])]
        assert [schedule.size(step) for step in range(steps)] == sizes[:steps]
        assert sizes[:2] == [0.1, 0.1]
        for k, (start, end) in enumerate(pairwise((2, *ends))):
            alone = _schedule(steps=end - start, warm=0, peak=max(0.05, 0.2 / (1 + 2 * k)))
            assert sizes[start:end] == [alone.size(step) for step in range(end - start)]

    def test_what_is_left_of_it(self) -> None:
        schedule = _schedule(steps=20, ends=(4, 9, 30))
        left = schedule.without(5)
        assert (left.steps, left.warm, left.ends) == (15, 0, (-1, 4, 25))
        assert [left.size(step) for step in range(15)] == [schedule.size(step) for step in range(5, 20)]
        assert schedule.without(40).steps == 1

    def test_stages_that_end_too_soon_are_refused(self) -> None:
        with pytest.raises(InputError, match="the stages end after 7 steps, and steps is 10"):
            _schedule(ends=(3, 7))

    @pytest.mark.parametrize("steps", [0, -5])
    def test_no_step_is_refused(self, steps: int) -> None:
        with pytest.raises(InputError, match=f"steps is {steps}; an attack takes at least 1 step"):
            _schedule(steps=steps)

    @pytest.mark.parametrize("which", ["first", "peak", "last"])
    @pytest.mark.parametrize("size", [0.0, -0.01, math.nan, math.inf])
    def test_a_step_that_goes_nowhere_is_refused(self, which: str, size: float) -> None:
        with pytest.raises(InputError, match=f"step_size {size:g} must be"):
            _schedule(**{which: size})


def _d(*values: float) -> Tensor:
    """One direction (1, 1, 2) per image: its second value is minus its first."""
    return torch.tensor([[v, -v] for v in values], dtype=torch.float64).reshape(-1, 1, 1, 2)


def _mix(mixer: Mixer, prediction: Tensor, pulls: list[Tensor], needs_confidence: Tensor, step: int) -> Tensor:
    """A joint step of maps that are as far from their targets as one another."""
    return mixer(prediction, pulls, [torch.ones(len(needs_confidence))] * len(pulls), needs_confidence, step)


def _weights(mixer: Mixer, n: int) -> Tensor:
    """λ (N,) at this step: the share of a map of unit size while the prediction is left alone. It moves λ."""
    mixed = _mix(mixer, _d(*[0.0] * n), [_d(*[1.0] * n)], torch.zeros(n, dtype=torch.bool), 0)
    return mixed[:, 0, 0, 0]


class TestBalance:
    @given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=60), st.data())
    def test_the_weight_falls_while_the_label_is_wanting_and_recovers(
        self, history: list[list[bool]], data: st.DataObject
    ) -> None:
        rule = Balance(
            lowest=data.draw(st.floats(0.01, 0.9)),
            fall=data.draw(st.floats(0.5, 0.99)),
            rise=data.draw(st.floats(1.01, 2)),
        )
        mixer, expected = rule.begin(_d(1, 2, 3)), [1.0] * 3
        for step, row in enumerate(history):
            mixed = _mix(mixer, _d(0, 0, 0), [_d(2, -3, 4)], torch.tensor(row), step)
            assert mixed[:, 0, 0, 0].tolist() == pytest.approx([expected[0], -expected[1], expected[2]])
            for image, needs_confidence in enumerate(row):
                was = expected[image]
                now = expected[image] = min(1.0, max(rule.lowest, was * (rule.fall if needs_confidence else rule.rise)))
                assert rule.lowest <= now <= 1
                assert now < was or was == rule.lowest if needs_confidence else now > was or was == 1

    def test_by_default_it_falls_and_rises_by_a_twentieth_down_to_a_tenth(self) -> None:
        assert (Balance().lowest, Balance().fall, Balance().rise) == (0.1, 0.95, 1.05)

    def test_the_prediction_counts_only_while_it_is_wanting(self) -> None:
        mixer = Balance().begin(_d(0, 0))
        mixed = _mix(mixer, _d(3, 3), [_d(-0.5, -0.5)], torch.tensor([True, False]), 0)
        assert torch.equal(mixed, _d(1 - 1, -1))

    def test_directions_count_alike_whatever_their_size(self) -> None:
        needs_confidence = torch.tensor([True, False])
        small, large = (
            _mix(Balance().begin(_d(0, 0)), _d(3 * s, 2 * s), [_d(-0.5 / s, 0.1), _d(7, 9 * s)], needs_confidence, 0)
            for s in (1e-6, 1e6)
        )
        torch.testing.assert_close(small, large)
        torch.testing.assert_close(small, _d(1 + (-1 + 1) / 2, (1 + 1) / 2))

    def test_several_maps_share_the_weight_of_one(self) -> None:
        x, none = _d(0, 0), torch.tensor([False, False])
        pulls = [_d(1, 1), _d(1, -1), _d(1, 1)]
        mixed = _mix(Balance().begin(x), _d(5, 5), pulls, none, 0)
        torch.testing.assert_close(mixed, _d(1, 1 / 3))
        assert torch.equal(_mix(Balance().begin(x), _d(5, 5), pulls[:1], none, 0), _d(1, 1))

    def test_a_map_without_a_direction_leaves_the_prediction_s(self) -> None:
        mixed = _mix(Balance().begin(_d(0)), _d(4), [_d(0)], torch.tensor([True]), 0)
        assert torch.equal(mixed, _d(1))

    def test_first_steps_are_on_the_prediction_alone_until_it_holds(self) -> None:
        mixer, pulls = Balance(alone=3).begin(_d(0, 0)), [_d(1, 1)]
        steps = [(True, True), (False, True), (True, True), (True, True), (False, False)]
        found = [_mix(mixer, _d(4, 4), pulls, torch.tensor(needs), step) for step, needs in enumerate(steps)]
        assert found[0][:, 0, 0, 0].tolist() == [1, 1]
        assert found[1][:, 0, 0, 0].tolist() == [1, 1]  # of the first image that of the map, of the second the other
        assert found[2][:, 0, 0, 0].tolist() == pytest.approx([2, 1])
        assert found[3][:, 0, 0, 0].tolist() == pytest.approx([1.95, 2])
        assert found[4][:, 0, 0, 0].tolist() == pytest.approx([0.95**2, 0.95])

    def test_images_are_balanced_by_themselves(self) -> None:
        together, alone = Balance().begin(_d(0, 0)), Balance().begin(_d(0))
        for needs_confidence in (True, True, False, True):
            both = _mix(together, _d(1, 2), [_d(-3, 5)], torch.tensor([not needs_confidence, needs_confidence]), 0)
            assert torch.equal(both[1:], _mix(alone, _d(2), [_d(5)], torch.tensor([needs_confidence]), 0))
        assert torch.equal(_weights(together, 2)[1:], _weights(alone, 1))

    def test_two_attacks_share_nothing(self) -> None:
        rule = Balance()
        first, second = rule.begin(_d(0)), rule.begin(_d(0))
        for _ in range(5):
            _mix(first, _d(1), [_d(1)], torch.tensor([True]), 0)
        assert float(_weights(first, 1)) == pytest.approx(0.95**5)
        assert float(_weights(second, 1)) == 1

    @given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    def test_the_images_that_stay_keep_their_weights(self, places: list[int]) -> None:
        rows = torch.tensor(places)
        whole, part = (Balance().begin(_d(0, 0, 0, 0)) for _ in range(2))
        history = [[True, True, True, False], [False, True, True, False], [True, False, True, False]]
        for row in history:
            for mixer in (whole, part):
                _mix(mixer, _d(1, 1, 1, 1), [_d(1, 1, 1, 1)], torch.tensor(row), 0)
        part.select(rows)
        for row in history:
            needs_confidence = torch.tensor(row)
            d, m = _d(1, 2, 3, 4), _d(4, -3, 2, -1)
            assert torch.equal(
                _mix(part, d[rows], [m[rows]], needs_confidence[rows], 0),
                _mix(whole, d, [m], needs_confidence, 0)[rows],
            )
        weights = _weights(whole, 4)
        assert len(set(weights.tolist())) == 4
        assert torch.equal(_weights(part, len(places)), weights[rows])


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

    def test_a_step_without_maps_minds_the_prediction_where_it_is_wanting(self) -> None:
        mixed = _mix(Balance().begin(_d(0, 0)), _d(7, 7), [], torch.tensor([True, False]), 0)
        assert torch.equal(mixed, _d(1, 0))

    def test_it_shares_among_the_maps_as_it_is_told(self) -> None:
        rule, none = Balance(weighting=MINIMAX), torch.tensor([False, False])
        distances = [torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.1])]
        assert torch.equal(rule.begin(_d(0, 0))(_d(5, 5), [_d(2, 2), _d(-9, -9)], distances, none, 0), _d(-1, 1))


class TestSharing:
    """Two maps of three images; the second's gradient is 100 times as large, and points the other way at the last."""

    pulls = (_d(1, 2, 3), _d(100, 200, -300))
    distances = (torch.tensor([0.1, 0.5, 0.2]), torch.tensor([0.3, 0.4, 0.1]))

    def test_even_maps_pull_alike_whatever_their_gradients(self) -> None:
        assert torch.equal(NORMALIZED(self.pulls, self.distances), _d(1, 1, 0))

    def test_with_fixed_weights_the_steepest_leads(self) -> None:
        assert torch.equal(SUM(self.pulls, self.distances), _d(1, 1, -1))

    def test_the_worst_has_the_step_and_the_first_among_equals(self) -> None:
        wide = [torch.cat([pull, -pull], dim=2) for pull in self.pulls]
        for distances, chosen in ((self.distances, (1, 0, 0)), ((torch.zeros(3), torch.zeros(3)), (0, 0, 0))):
            shared = MINIMAX(wide, distances)
            for image, which in enumerate(chosen):
                assert torch.equal(shared[image], unit(wide[which])[image])

    @pytest.mark.parametrize("rule", [NORMALIZED, SUM, MINIMAX])
    def test_one_map_has_the_whole_step(self, rule: Weighting) -> None:
        assert torch.equal(rule(self.pulls[1:], self.distances[1:]), _d(1, 1, -1))

    @pytest.mark.parametrize("rule", [NORMALIZED, SUM, MINIMAX])
    def test_images_share_nothing(self, rule: Weighting) -> None:
        whole = rule(self.pulls, self.distances)
        for image in range(3):
            row = slice(image, image + 1)
            assert torch.equal(rule([p[row] for p in self.pulls], [g[row] for g in self.distances]), whole[row])

    def test_each_has_a_name_of_its_own(self) -> None:
        assert [rule.name for rule in (NORMALIZED, SUM, MINIMAX)] == ["normalized", "sum", "minimax"]
