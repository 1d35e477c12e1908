"""Views change a photo little, alike in any batch, and maps of them are carried back to where the photo was."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.toys import images
from underfire import InputError
from underfire.defenses.views import Blur, Flip, Noise, Shift, View, default_views

KEYS = ("ant", "bee", "cat", "dog")
every_view = pytest.mark.parametrize("view", default_views(), ids=lambda view: view.name)


@every_view
def test_a_view_is_an_image_alike_in_any_batch(view: View) -> None:
    x = images(4, 16)
    whole = view.apply(x, KEYS)
    assert whole.shape == x.shape
    assert whole.dtype == x.dtype
    assert 0 <= float(whole.min()) <= float(whole.max()) <= 1
    assert 0 < float((whole - x).abs().mean()) < 0.2
    single = torch.cat([view.apply(x[i : i + 1], KEYS[i : i + 1]) for i in range(4)])
    assert torch.equal(whole, single)
    assert view.apply(x[:0], ()).shape == (0, 3, 16, 16)


def test_the_default_views_have_names_of_their_own() -> None:
    assert [view.name for view in default_views()] == ["noise-8", "noise-16", "shift-8", "blur-2", "flip"]
    assert default_views((300, 224)) == default_views((224, 224))


def test_the_default_views_of_small_images_move_and_blur_as_much_of_the_picture() -> None:
    *_, shift, blur, _ = default_views((32, 32), seed=3)
    assert (shift, blur) == (Shift(1), Blur(32 / 112))
    assert default_views((32, 32), seed=3)[:2] == (Noise(8, 3), Noise(16, 3))


def test_a_flip_is_its_own_way_back() -> None:
    x, maps = images(2, 16), torch.rand(2, 4, 4)
    assert torch.equal(Flip().apply(Flip().apply(x, KEYS[:2]), KEYS[:2]), x)
    assert torch.equal(Flip().apply(x, KEYS[:2])[..., 0], x[..., -1])
    assert torch.equal(Flip().carry_back(maps, (16, 16))[:, :, 0], maps[:, :, -1])


def test_noise_has_its_size_and_belongs_to_seed_and_key() -> None:
    x = torch.full((2, 3, 64, 64), 0.5, dtype=torch.float64)
    view = Noise(8)
    seen = view.apply(x, ("ant", "bee"))
    assert float((seen - x).std()) * 255 == pytest.approx(8, rel=0.02)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(view.apply(x, ("bee", "ant")), seen.flip(0))
    assert not torch.equal(replace(view, seed=1).apply(x, ("ant", "bee")), seen)
    # Another strength is another purpose: not the same noise, scaled.
    assert not torch.allclose(Noise(4).apply(x, ("ant", "bee")) - x, (seen - x) / 2)


def test_noise_is_cut_to_the_range_of_images() -> None:
    assert float(Noise(8).apply(torch.zeros(1, 3, 8, 8), ("ant",)).min()) == 0


def test_a_shift_moves_down_and_right_and_mirrors_at_the_edge() -> None:
    x = images(2, 16)
    seen = Shift(2).apply(x, KEYS[:2])
    assert torch.equal(seen[:, :, 2:, 2:], x[:, :, :-2, :-2])
    assert torch.equal(seen[:, :, 1, 2:], x[:, :, 1, :-2])
    assert torch.equal(seen[:, :, 0, 2:], x[:, :, 2, :-2])


def _cell_means(x: Tensor, cell: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, cell).mean(dim=1)


@pytest.mark.parametrize(("cell", "pixels"), [(1, 2), (4, 4), (4, 8), (2, 6)])
def test_a_map_of_a_shifted_image_is_carried_back_exactly_away_from_the_border(cell: int, pixels: int) -> None:
    x, view = images(2, 16, dtype=torch.float64), Shift(pixels)
    back = view.carry_back(_cell_means(view.apply(x, KEYS[:2]), cell), (16, 16))
    kept = (16 - pixels) // cell
    assert torch.equal(back[:, :kept, :kept], _cell_means(x, cell)[:, :kept, :kept])
    assert torch.equal(back[:, kept:, :kept], back[:, kept - 1 : kept, :kept].expand(-1, pixels // cell, -1))


def test_less_than_a_cell_is_interpolated() -> None:
    ramp = torch.arange(4.0, dtype=torch.float64).expand(1, 4, 4)
    back = Shift(2).carry_back(ramp, (16, 16))  # half a cell of 4 pixels
    assert torch.equal(back[0, 0], torch.tensor([0.5, 1.5, 2.5, 3.0], dtype=torch.float64))
    tall = Shift(2).carry_back(ramp.transpose(1, 2), (16, 8))  # a whole cell along the other axis, which is constant
    assert torch.equal(tall[0, :, 0], torch.tensor([0.5, 1.5, 2.5, 3.0], dtype=torch.float64))


def test_noise_and_blur_move_nothing() -> None:
    maps = torch.rand(2, 4, 4)
    assert torch.equal(Noise(8).carry_back(maps, (16, 16)), maps)
    assert torch.equal(Blur(1).carry_back(maps, (16, 16)), maps)


def test_views_that_cannot_be() -> None:
    with pytest.raises(InputError, match="sigma 0 is not in"):
        Noise(0)
    with pytest.raises(InputError, match="pixels is 0"):
        Shift(0)
    with pytest.raises(InputError, match="sigma -1 is not above 0"):
        Blur(-1)
    with pytest.raises(InputError, match="images of 16×16 pixels cannot be moved by 16"):
        Shift(16).apply(images(1, 16), ("ant",))


@every_view
def test_what_is_carried_there_comes_back(view: View) -> None:
    maps = torch.rand(2, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = view.carry(maps, (224, 224))
    torch.testing.assert_close(view.carry_back(there, (224, 224))[:, :-1, :-1], maps[:, :-1, :-1], rtol=0, atol=0)


def test_a_map_is_carried_as_the_image_is() -> None:
    x = images(2, 32)
    for view in (Shift(4), Flip()):
        seen = view.apply(x, KEYS[:2])
        carried = view.carry(_cell_means(x, 4), (32, 32))
        torch.testing.assert_close(carried[:, 1:, 1:], _cell_means(seen, 4)[:, 1:, 1:], rtol=0, atol=1e-6)
