"""The kept iterate is the best one, image by image."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from underfire.attacks.keepers import LAST, LATEST, KeptIterates
from underfire.interpreters.map_goals import ENOUGH

TYPES = (torch.bool, torch.float32, torch.float32)

offers = st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 2.0, 30.0]), st.sampled_from([0.0, 0.1, 0.3, 0.9]))
History = list[list[tuple[bool, float, float]]]
histories = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(offers, min_size=n, max_size=n), min_size=1, max_size=8)
)


def _theta(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)


def _losses(holds: list[bool], nll: list[float], distance: list[float]) -> dict[str, Tensor]:
    columns = zip((holds, nll, distance), TYPES, strict=True)
    return dict(zip(("reached", "nll", "distance"), (torch.tensor(c, dtype=t) for c, t in columns), strict=True))


def _last_best(history: History, image: int) -> int:
    """Which iterate sorting all that was offered for ``image`` puts first."""
    return min(
        range(len(history)),
        key=lambda k: (not history[k][image][0], history[k][image][2 if history[k][image][0] else 1], -k),
    )


class TestOffer:
    @given(histories)
    def test_it_keeps_what_sorting_the_whole_history_finds(self, history: History) -> None:
        n = len(history[0])
        best = KeptIterates(torch.full((n, 1, 1, 1), -1.0))
        for number, row in enumerate(history):
            holds, nll, distance = (list(column) for column in zip(*row, strict=True))
            best.offer(_theta(*[float(number)] * n), rows=torch.arange(n), **_losses(holds, nll, distance))
        for image in range(n):
            kept = _last_best(history, image)
            assert int(best.theta[image]) == kept
            assert float(best.nll[image]) == pytest.approx(history[kept][image][1])
            assert float(best.distance[image]) == pytest.approx(history[kept][image][2])

    @given(histories, st.data())
    def test_images_may_come_in_any_order_and_leave(self, history: History, data: st.DataObject) -> None:
        """Only the images that an offer names are touched, each by its own numbers."""
        n = len(history[0])
        best, expected = (KeptIterates(torch.full((n, 1, 1, 1), -1.0)) for _ in range(2))
        for number, row in enumerate(history):
            rows = data.draw(st.lists(st.integers(0, n - 1), unique=True))
            for image in rows:
                holds, nll, distance = row[image]
                losses = _losses([holds], [nll], [distance])
                expected.offer(_theta(float(number)), rows=torch.tensor([image]), **losses)
            losses = _losses(*([row[image][k] for image in rows] for k in range(3)))  # type: ignore[arg-type]
            places = torch.tensor(rows, dtype=torch.int64)
            best.offer(_theta(*[float(number)] * len(rows)), rows=places, **losses)
        assert torch.equal(best.theta, expected.theta)
        assert torch.equal(best.nll, expected.nll)
        assert torch.equal(best.distance, expected.distance)

    def test_a_label_that_holds_beats_any_that_does_not(self) -> None:
        best = KeptIterates(torch.zeros(1, 1, 1, 1))
        for value, holds, nll, distance in [(1.0, False, 0.0, 0.0), (2.0, True, 0.1, 0.99), (3.0, False, 0.0, 0.0)]:
            best.offer(_theta(value), rows=torch.tensor([0]), **_losses([holds], [nll], [distance]))
        assert float(best.theta) == 2.0
        assert float(best.nll) == pytest.approx(0.1)
        assert float(best.distance) == pytest.approx(0.99)


def test_nothing_offered_keeps_the_start_and_no_loss() -> None:
    theta = torch.rand(2, 3, 4, 4)
    best = KeptIterates(theta)
    assert torch.equal(best.theta, theta)
    assert best.theta is not theta
    assert best.nll.tolist() == best.distance.tolist() == [math.inf, math.inf]
    assert best.done(torch.arange(2)).tolist() == [False, False]


def test_the_last_is_kept_whatever_it_is() -> None:
    best = KeptIterates(torch.zeros(3, 1, 1, 1), LAST)
    every = torch.arange(3)
    best.offer(_theta(1, 2, 3), rows=every, **_losses([True] * 3, [0.0] * 3, [0.0] * 3))
    best.offer(_theta(8, 9), rows=torch.tensor([2, 0]), **_losses([False, True], [5.0, 6.0], [7.0, 0.5]))
    assert best.theta.flatten().tolist() == [9, 2, 8]
    assert best.nll.tolist() == [6, 0, 5]
    assert best.distance.tolist() == [0.5, 0, 7]
    assert best.done(every).tolist() == [False, True, False]


def test_what_is_kept_is_a_copy() -> None:
    best, theta = KeptIterates(torch.zeros(1, 1, 1, 1), LAST), _theta(4.0)
    best.offer(theta, rows=torch.tensor([0]), **_losses([True], [0.0], [0.0]))
    theta.zero_()
    assert float(best.theta) == 4


class TestDone:
    @pytest.mark.parametrize("holds", [True, False])
    @pytest.mark.parametrize(
        ("distance", "little"), [(0.0, True), (ENOUGH * 0.999, True), (ENOUGH * 1.001, False), (math.inf, False)]
    )
    def test_it_takes_the_label_and_half_a_grey_level(self, holds: bool, distance: float, little: bool) -> None:
        best = KeptIterates(torch.zeros(1, 1, 1, 1))
        best.offer(_theta(1.0), rows=torch.tensor([0]), **_losses([holds], [0.0], [distance]))
        assert bool(best.done(torch.tensor([0]))) == (holds and little)
        assert ENOUGH == 0.5 / 255

    def test_it_speaks_of_the_images_asked_in_their_order(self) -> None:
        best = KeptIterates(torch.zeros(4, 1, 1, 1), LAST)
        best.offer(_theta(1, 1, 1), rows=torch.tensor([3, 1, 0]), **_losses([True, True, False], [0.0] * 3, [0, 1, 0]))
        assert best.done(torch.tensor([3, 2, 1, 0])).tolist() == [True, False, False, False]

    def test_a_worse_iterate_afterwards_changes_nothing(self) -> None:
        best, row = KeptIterates(torch.zeros(1, 1, 1, 1)), torch.tensor([0])
        best.offer(_theta(1.0), rows=row, **_losses([True], [0.1], [0.0]))
        best.offer(_theta(2.0), rows=row, **_losses([False], [0.0], [0.5]))
        assert bool(best.done(row))


class TestLatest:
    @given(histories)
    def test_the_last_that_holds_is_kept_or_else_the_surest(self, history: History) -> None:
        best = KeptIterates(_theta(*([-1.0] * len(history[0]))), LATEST)
        rows = torch.arange(len(history[0]))
        for k, offered in enumerate(history):
            holds, nll, distance = (list(column) for column in zip(*offered, strict=True))
            best.offer(_theta(*([float(k)] * len(rows))), rows=rows, **_losses(holds, nll, distance))
        for i in rows.tolist():
            held = [k for k in range(len(history)) if history[k][i][0]]
            surest = min(range(len(history)), key=lambda k: (history[k][i][1], -k))
            assert float(best.theta[i]) == (held[-1] if held else surest)
