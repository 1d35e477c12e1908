"""The kept iterate is the best one, image by image."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire.attacks.best import Best

offers = st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 2.0, 30.0]), st.sampled_from([0.0, 0.1, 0.3, 0.9]))
histories = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(offers, min_size=n, max_size=n), min_size=1, max_size=8)
)


@given(histories)
def test_it_is_what_sorting_the_whole_history_finds(history: list[list[tuple[bool, float, float]]]) -> None:
    n = len(history[0])
    best = Best(torch.full((n, 1, 1, 1), -1.0))
    for number, row in enumerate(history):
        holds, nll, gap = (torch.tensor(column) for column in zip(*row, strict=True))
        best.offer(torch.full((n, 1, 1, 1), float(number)), holds=holds, nll=nll, gap=gap)
    for image in range(n):
        ranked = sorted(
            range(len(history)),
            key=lambda k: (not history[k][image][0], history[k][image][2 if history[k][image][0] else 1], k),
        )
        assert int(best.x_adv[image]) == ranked[0]


def test_nothing_offered_keeps_the_image_itself() -> None:
    x = torch.rand(2, 3, 4, 4)
    best = Best(x)
    assert torch.equal(best.x_adv, x)
    assert best.x_adv is not x


def test_a_label_that_holds_beats_any_that_does_not() -> None:
    best = Best(torch.zeros(1, 1, 1, 1))
    for value, holds, nll, gap in [(1.0, False, 0.0, 0.0), (2.0, True, 0.1, 0.99), (3.0, False, 0.0, 0.0)]:
        best.offer(
            torch.full((1, 1, 1, 1), value),
            holds=torch.tensor([holds]),
            nll=torch.tensor([nll]),
            gap=torch.tensor([gap]),
        )
    assert float(best.x_adv) == 2.0
