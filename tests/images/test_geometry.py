import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.pictures import photo_bytes, put
from underfire.images import load_photo
from underfire.images.geometry import crop_box, resize_and_crop

SIDES = st.integers(1, 400)
ANY_SIDE = st.one_of(st.integers(1, 400), st.integers(1, 80_000_000))


@given(size=st.tuples(ANY_SIDE, ANY_SIDE), resize=SIDES, crop=st.tuples(SIDES, SIDES))
def test_the_box_lies_in_the_middle_of_the_image(size: tuple[int, int], resize: int, crop: tuple[int, int]) -> None:
    left, upper, right, lower = crop_box(size, resize=resize, crop=crop)
    for start, end, side, out in ((left, right, size[0], crop[0]), (upper, lower, size[1], crop[1])):
        assert 0 <= start < end <= side
        pixel = (end - start) / out  # of the result, in pixels of the image
        assert abs(start - (side - end)) <= pixel * (1 + 1e-6) + 1e-6


@given(size=st.tuples(SIDES, SIDES), resize=SIDES, crop=st.tuples(SIDES, SIDES))
def test_both_axes_have_one_scale(size: tuple[int, int], resize: int, crop: tuple[int, int]) -> None:
    left, upper, right, lower = crop_box(size, resize=resize, crop=crop)
    scale = max(resize / min(size), crop[0] / size[0], crop[1] / size[1])
    for start, end, side, out in ((left, right, size[0], crop[0]), (upper, lower, size[1], crop[1])):
        resized = side * out / (end - start)
        assert resized == pytest.approx(round(resized))
        slack = 1e-6 + 1e-9 * scale * side
        assert scale * side - 1 - slack < resized < scale * side + slack


@pytest.mark.parametrize(
    ("size", "resize", "crop", "box"),
    [
        ((256, 256), 256, (224, 224), (16, 16, 240, 240)),
        ((512, 512), 256, (224, 224), (32, 32, 480, 480)),
        ((1024, 512), 256, (224, 224), (288, 32, 736, 480)),
        ((64, 32), 256, (224, 224), (18, 2, 46, 30)),  # enlarged eight times
        ((100, 100), 100, (200, 100), (0, 25, 100, 75)),  # the crop decides
        ((224, 224), 224, (224, 224), (0, 0, 224, 224)),
        ((300, 260), 256, (224, 224), (10800 / 295, 16.25, 78000 / 295, 243.75)),  # 295.38 → 295, 35.5 → 36
    ],
)
def test_boxes_by_hand(size: tuple[int, int], resize: int, crop: tuple[int, int], box: tuple[float, ...]) -> None:
    assert crop_box(size, resize=resize, crop=crop) == pytest.approx(box)


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    resize=st.integers(8, 40),
    crop=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 1000),
)
def test_equals_resizing_all_and_cropping(
    width: int, height: int, resize: int, crop: tuple[int, int], seed: int
) -> None:
    # Far from black and white, where Pillow would cut overshoot off between its two passes, in the order it likes.
    pixels = np.random.default_rng(seed).integers(80, 176, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resize = max(resize, *crop)
    short = min(width, height)
    whole = image.resize((width * resize // short, height * resize // short), Image.Resampling.BICUBIC)
    left, upper = (round((side - out) / 2) for side, out in zip(whole.size, crop, strict=True))
    expected = whole.crop((left, upper, left + crop[0], upper + crop[1]))
    actual = resize_and_crop(image, resize=resize, crop=crop)
    assert actual.size == crop
    assert np.abs(np.asarray(actual, int) - np.asarray(expected, int)).max() <= 2


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    path = put(tmp_path / "stripes.png", photo_bytes(stripes))
    pixels = load_photo(path, resize=8, input_size=(4, 4)).pixels.float()
    assert (pixels - 127.5).abs().max() < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1), (1, 200_000), (200_000, 1), (3, 65_000)])
def test_extreme_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = put(tmp_path / "strip.png", photo_bytes(Image.new("RGB", size, (1, 2, 3))))
    tracemalloc.start()
    loaded = load_photo(path, resize=256, input_size=(224, 192))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert loaded.original_size == size
    assert torch.equal(loaded.pixels, torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None].expand(3, 224, 192))
    assert peak < 50 * 2**20


@pytest.mark.parametrize("axis", [0, 1])
def test_the_middle_of_a_very_long_strip(axis: int) -> None:
    """Where single precision no longer tells one pixel from the next."""
    strip = np.zeros(40_000_001, np.uint8)
    strip[20_000_000] = 255
    image = Image.fromarray(strip[:, None] if axis else strip[None])
    middle = np.asarray(resize_and_crop(image, resize=8, crop=(8, 8)))
    lit = middle if axis else middle.T
    assert lit.max() >= 250
    assert np.array_equal(lit, lit[::-1])
