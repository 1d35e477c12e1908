"""Random views and fills: what they may be, and to whom their randomness belongs."""

from dataclasses import replace

import pytest
import torch

from support.toys import images
from underfire.seeding import generator
from underfire.training.augment import blurred, random_fill, random_view
from underfire.training.plan import RtsPlan

PLAN = RtsPlan()
PHOTO = images(1, 40)[0]


@pytest.mark.parametrize("size", [(32, 32), (24, 40)], ids=str)
def test_a_view_is_an_image_of_the_input_size(size: tuple[int, int]) -> None:
    for index in range(20):
        view = random_view(PHOTO, size, generator(0, index), PLAN)
        assert view.shape == (3, *size)
        assert 0 <= float(view.min()) <= float(view.max()) <= 1


def test_a_view_belongs_to_its_generator() -> None:
    a, b, c = (random_view(PHOTO, (32, 32), generator(0, name), PLAN) for name in ("a", "a", "b"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_views_are_mirrored_half_the_time_and_nothing_else_where_nothing_else_is_asked_for() -> None:
    plan = replace(PLAN, smallest_crop=1.0, brightness=0.0)
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32)
    means = [float(random_view(ramp, (32, 32), generator(0, i), plan)[:, :, :16].mean()) for i in range(60)]
    mirrored = sum(mean > 0.5 for mean in means)
    assert 15 < mirrored < 45


def test_views_are_brighter_or_darker() -> None:
    grey = torch.full((3, 8, 8), 0.5)
    levels = [float(random_view(grey, (8, 8), generator(0, i), PLAN).mean()) for i in range(50)]
    assert 0.4 <= min(levels) < 0.43
    assert 0.57 < max(levels) <= 0.6


def test_a_crop_is_no_smaller_than_asked() -> None:
    """On a ramp of slope 1 per pixel, the range of a crop's values is its width."""
    ramp = torch.linspace(0, 1, 100).expand(3, 100, 100)
    plan = replace(PLAN, brightness=0.0, smallest_crop=0.5)
    spans = []
    for index in range(50):
        view = random_view(ramp, (100, 100), generator(0, index), plan)
        spans.append(float(view.max() - view.min()))
    assert min(spans) > 0.5**0.5 * (3 / 4) ** 0.5 - 0.03
    assert max(spans) <= 1


def test_a_fill_is_the_blurred_image_or_a_colour_with_noise() -> None:
    x = images(1, 32)[0]
    soft = blurred(x[None])[0]
    fills = [random_fill(x, generator(0, index)) for index in range(60)]
    blurs = [torch.equal(fill, soft) for fill in fills]
    assert 15 < sum(blurs) < 45
    colours = [fill for fill, blur in zip(fills, blurs, strict=True) if not blur]
    assert all(0 <= float(fill.min()) <= float(fill.max()) <= 1 for fill in colours)
    assert all(float(fill.std(dim=(1, 2)).min()) > 0.05 for fill in colours)
    assert len({round(float(fill[0].mean()), 4) for fill in colours}) == len(colours)


def test_blur_keeps_the_mean_and_loses_the_detail() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    soft = blurred(x)
    torch.testing.assert_close(soft.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0.02, atol=0.0)
    assert float(soft.std(dim=(2, 3)).max()) < 0.1 * float(x.std(dim=(2, 3)).min())
