"""Images of whole grey levels within the budget, where the model has such."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underfire import L2, Flow, Linf
from underfire.images.png import from_8bit


@pytest.mark.parametrize("model", [Linf(4 / 255), L2(0.5)], ids=lambda m: m.name)
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_it_is_the_image_that_is_saved(model: Linf | L2, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = from_8bit(torch.randint(0, 256, (2, 3, 8, 8), generator=draw, dtype=torch.uint8))
    theta = model.project(x, x + 0.1 * torch.randn(x.shape, generator=draw))
    whole = model.whole(x, theta)
    assert torch.equal(whole, from_8bit(model.rounded(x, theta)))
    assert model.contains(x, whole).all()
    assert (model.size(x, whole) <= model.eps + 1e-6).all()


def test_an_image_between_levels_whose_ball_has_none_keeps_its_own() -> None:
    x = torch.full((1, 3, 4, 4), 100.5 / 255)
    ball = Linf(0.3 / 255)
    theta = ball.project(x, x + 1)
    assert torch.equal(ball.whole(x, theta), theta)


def test_a_flow_stays_as_it_is() -> None:
    field = torch.rand(1, 2, 4, 4)
    assert Flow().whole(torch.rand(1, 3, 4, 4), field) is field
