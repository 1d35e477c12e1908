"""Pictures: what they show, and that any picture can be written."""

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from underfire.present.pictures import amplified, data_uri, gain_for, overlay, upsampled


def decoded(uri: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("side", [1, 8, 32, 33, 168, 400])
@pytest.mark.parametrize("quality", [70, 84])
def test_noise_of_any_size_can_be_written(side: int, quality: int) -> None:
    noise = np.random.default_rng(side).choice([0, 255], size=(side, side, 3)).astype(np.uint8)
    shown = decoded(data_uri(noise, side=168, quality=quality))
    assert shown.shape == (min(side, 168), min(side, 168), 3)


def test_the_longer_side_is_bounded_and_the_shape_kept() -> None:
    wide = np.zeros((100, 400, 3), dtype=np.uint8)
    assert decoded(data_uri(wide, side=200)).shape == (50, 200, 3)


@pytest.mark.parametrize(("eps", "gain"), [(8 / 255, 16), (4 / 255, 32), (1.0, 1), (0.0, 1)])
def test_the_gain_fills_the_range(eps: float, gain: int) -> None:
    assert gain_for(eps) == gain


def test_amplified_is_grey_where_nothing_changed() -> None:
    benign = np.full((2, 1, 3), 100, dtype=np.uint8)
    adversarial = np.array([[[100, 100, 100]], [[102, 92, 108]]], dtype=np.uint8)
    assert amplified(adversarial, benign, 16).tolist() == [[[128, 128, 128]], [[160, 0, 255]]]


def test_upsampling_stays_in_range_and_in_place() -> None:
    peak = np.zeros((7, 7), dtype=np.float32)
    peak[1, 5] = 1
    smooth = upsampled(peak, (70, 140))
    assert smooth.shape == (70, 140)
    assert smooth.min() == 0
    assert smooth.max() == pytest.approx(1, abs=0.05)
    y, x = divmod(int(smooth.argmax()), 140)
    assert (y // 10, x // 20) == (1, 5)


def test_a_map_that_is_no_number_is_shown_as_zero() -> None:
    assert upsampled(np.full((3, 3), np.nan, dtype=np.float32), (6, 6)).tolist() == np.zeros((6, 6)).tolist()


def test_overlay_is_brighter_where_the_map_is() -> None:
    grey = np.full((64, 64, 3), 120, dtype=np.uint8)
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    brightness = overlay(grey, ramp).astype(float).mean(axis=(0, 2))
    assert (np.diff(brightness[4:-4]) >= -1).all()
    assert brightness[-1] > brightness[0] + 60
