"""The terms of the training loss, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from underfire.training.losses import class_loss, compose, map_loss, presence
from underfire.training.plan import RtsPlan

PLAN = RtsPlan(keep=0.3, destroy=1.0, area=8.0, area_power=0.3, smooth=0.5)


def test_composites_are_the_image_the_fill_and_what_lies_between() -> None:
    draw = torch.Generator().manual_seed(0)
    x, fill = torch.rand(3, 3, 8, 8, generator=draw), torch.rand(3, 3, 8, 8, generator=draw)
    maps = torch.tensor([0.0, 1.0, 0.25])[:, None, None].expand(3, 2, 2)
    made = compose(x, maps, fill)
    m = maps[:, :1, :1, None]
    torch.testing.assert_close(made.shown, m * x + (1 - m) * fill)
    torch.testing.assert_close(made.destroyed, (1 - m) * x + m * fill)


def test_presence_is_the_log_odds() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 3
    y = torch.tensor([0, 5, 2, 2])
    p = logits.softmax(dim=1)[torch.arange(4), y]
    torch.testing.assert_close(presence(logits, y), (p / (1 - p)).log())


def test_presence_stays_finite_where_the_classifier_is_sure() -> None:
    odds = presence(torch.tensor([[200.0, 0.0], [-200.0, 0.0]]), torch.tensor([0, 0]))
    assert odds.tolist() == [200.0, -200.0]


def test_the_class_is_kept_and_destroyed_in_nats() -> None:
    kept, destroyed = 0.8, 0.1
    shown, gone = (torch.tensor([math.log(p / (1 - p))]) for p in (kept, destroyed))
    wanted = -0.3 * math.log(kept) - 1.0 * math.log(1 - destroyed)
    assert float(class_loss(shown, gone, PLAN)) == pytest.approx(wanted, rel=1e-5)


def test_area_counts_cells_and_smoothness_edges() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1  # one cell of 16, four edges of height 1
    area = ((1 + 5e-4) ** 0.3 + 15 * 5e-4**0.3) / 16
    assert float(map_loss(maps, PLAN)) == pytest.approx(8 * area + 0.5 * 4 / 4, rel=1e-5)
    assert float(map_loss(maps, PLAN, share=0.25)) == pytest.approx(2 * area + 0.5 * 4 / 4, rel=1e-5)
    assert float(map_loss(torch.ones(1, 4, 4), replace(PLAN, area_power=1.0))) == pytest.approx(8 * 1.0005, rel=1e-5)


def test_few_full_cells_are_preferred_to_many_faint_ones() -> None:
    full, faint = torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.25)
    full[0, :2, :2] = 1
    plan = replace(PLAN, smooth=0.0)
    assert float(map_loss(full, plan)) < float(map_loss(faint, plan))


def test_an_empty_map_has_a_finite_slope() -> None:
    maps = torch.zeros(1, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(map_loss(maps, PLAN).sum(), maps)
    assert bool(torch.isfinite(slope).all())
    assert float(slope.min()) > 0
