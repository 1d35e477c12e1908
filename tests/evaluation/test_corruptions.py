"""Harmless corruptions do what they say, in whole grey levels, and are none of a detector's views."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from support.toys import images
from underfire.defenses.views import default_views
from underfire.evaluation.corruptions import Corruption, brightness, corruptions, crop, gaussian_noise, jpeg

IMAGE = torch.round(images(1, 32, seed=3)[0] * 255) / 255

every = pytest.mark.parametrize("change", corruptions().values(), ids=list(corruptions()))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_stays_one(change: Corruption, dtype: torch.dtype) -> None:
    x = torch.round(IMAGE * 255).to(dtype) / 255
    before = x.clone()
    found = change(x, "photo")
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert torch.equal(found, torch.round(255 * found) / 255)
    assert 0 <= found.min() <= found.max() <= 1
    assert not torch.equal(found, x)
    assert torch.equal(x, before)
    assert torch.equal(change(x, "photo"), found)


def test_names_are_different_and_none_is_a_views() -> None:
    assert len(corruptions()) == 6
    assert not {view.name for view in default_views()} & corruptions().keys()


def test_jpeg_is_pillows() -> None:
    pixels = (255 * IMAGE).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    with Image.open(file) as decoded:
        oracle = np.array(decoded)
    assert np.array_equal((255 * jpeg(IMAGE, "x", quality=50)).round().permute(1, 2, 0).numpy(), oracle)
    assert (jpeg(IMAGE, "x", quality=50) - IMAGE).abs().mean() > (jpeg(IMAGE, "x", quality=90) - IMAGE).abs().mean()


def test_noise_belongs_to_the_photo_and_has_its_size() -> None:
    grey = torch.full((3, 64, 64), 128 / 255)
    noise = gaussian_noise(grey, "a", sigma=6) - grey
    assert (255 * noise).std() == pytest.approx(6, rel=0.05)
    assert (255 * noise).mean() == pytest.approx(0, abs=0.3)
    assert not torch.equal(gaussian_noise(grey, "b", sigma=6) - grey, noise)
    assert not torch.equal(gaussian_noise(grey, "a", sigma=6, seed=1) - grey, noise)


def test_a_crop_enlarges_the_middle() -> None:
    """A ramp over 100 columns becomes one of 0.9 of its slope around the same middle."""
    ramp = (torch.arange(100.0) + 50).expand(3, 100, 100) / 255
    found = 255 * crop(ramp, "x", share=0.9)[:, :, 10:90]
    wanted = 99.5 + 0.9 * (torch.arange(100.0)[10:90] - 49.5)
    assert (found - wanted).abs().max() <= 0.75
    assert torch.equal(crop(ramp, "x", share=1.0), ramp)


def test_brightness_multiplies_and_cuts() -> None:
    x = torch.tensor([0, 100, 200, 250]).expand(3, 1, 4) / 255
    assert (255 * brightness(x, "x", factor=1.2)).round()[0, 0].tolist() == [0, 120, 240, 255]
    assert (255 * brightness(x, "x", factor=0.8)).round()[0, 0].tolist() == [0, 80, 160, 200]
