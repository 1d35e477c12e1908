import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.pictures import photo_bytes, put
from underfire.choices import Crop, Interpolation
from underfire.errors import InputError
from underfire.images import Preprocessing, load_photo
from underfire.images.geometry import check_photos_fit, crop_box, prepared

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
    # A pixel on the edge of a box is in or out by the last bit.
    interpolation=st.sampled_from(sorted(set(get_args(Interpolation)) - {"nearest", "box"})),
    seed=st.integers(0, 1000),
)
def test_equals_resizing_all_and_cropping(
    width: int, height: int, resize: int, crop: tuple[int, int], interpolation: Interpolation, seed: int
) -> None:
    # Far from black and white, where Pillow would cut overshoot off between its two passes, in the order it likes.
    pixels = np.random.default_rng(seed).integers(80, 176, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resize = max(resize, *crop)
    short = min(width, height)
    whole = image.resize((width * resize // short, height * resize // short), Image.Resampling[interpolation.upper()])
    left, upper = (round((side - out) / 2) for side, out in zip(whole.size, crop, strict=True))
    expected = whole.crop((left, upper, left + crop[0], upper + crop[1]))
    actual = prepared(image, Preprocessing(resize=resize, input_size=crop[::-1], interpolation=interpolation))
    assert actual.size == crop
    assert np.abs(np.asarray(actual, int) - np.asarray(expected, int)).max() <= 2


def test_the_nearest_pixels() -> None:
    image = noise(33, 21)
    seen = prepared(image, Preprocessing(resize=7, input_size=(7, 7), interpolation="nearest"))
    assert np.array_equal(np.asarray(seen), np.asarray(image)[1::3, 7:-6:3])


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    path = put(tmp_path / "stripes.png", photo_bytes(stripes))
    pixels = load_photo(path, Preprocessing(resize=8, input_size=(4, 4))).pixels.float()
    assert (pixels - 127.5).abs().max() < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1), (1, 200_000), (200_000, 1), (3, 65_000)])
def test_extreme_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = put(tmp_path / "strip.png", photo_bytes(Image.new("RGB", size, (1, 2, 3))))
    tracemalloc.start()
    loaded = load_photo(path, Preprocessing(resize=256, input_size=(224, 192)))
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
    middle = np.asarray(prepared(image, Preprocessing(resize=8, input_size=(8, 8), channels=1)))
    lit = middle if axis else middle.T
    assert lit.max() >= 250
    assert np.array_equal(lit, lit[::-1])


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(80, 176, (height, width, 3), dtype=np.uint8))


def difference(one: Image.Image, other: Image.Image) -> int:
    assert (one.size, one.mode) == (other.size, other.mode)
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (20, 12)])
def test_squashed_photos_are_seen_whole(size: tuple[int, int]) -> None:
    image = noise(*size)
    seen = prepared(image, Preprocessing(resize=24, input_size=(24, 36), crop="squash", interpolation="bilinear"))
    assert difference(seen, image.resize((36, 24), Image.Resampling.BILINEAR)) == 0
    middle = prepared(image, Preprocessing(resize=32, input_size=(24, 36), crop="squash"))
    assert difference(middle, image.resize((48, 32), Image.Resampling.BICUBIC).crop((6, 4, 42, 28))) <= 2


@pytest.mark.parametrize(("size", "inner"), [((90, 40), (36, 16)), ((40, 90), (10, 24)), ((9, 6), (36, 24))])
def test_letterboxed_photos_are_seen_whole_between_bars(size: tuple[int, int], inner: tuple[int, int]) -> None:
    image = noise(*size)
    boxed = Preprocessing(resize=24, input_size=(24, 36), crop="letterbox", mean=(0.2, 0.4, 2), bgr=True)
    expected = Image.new("RGB", (36, 24), (255, 102, 51))
    place = (36 - inner[0]) // 2, (24 - inner[1]) // 2
    expected.paste(image.resize(inner, Image.Resampling.BICUBIC), place)
    assert difference(prepared(image, boxed), expected) == 0


def test_the_middle_of_a_letterboxed_photo() -> None:
    image = noise(60, 30)
    seen = prepared(image, Preprocessing(resize=40, input_size=(24, 24), crop="letterbox", mean=(0.5,)))
    expected = Image.new("RGB", (24, 24), (128, 128, 128))
    expected.paste(image.resize((40, 20), Image.Resampling.BICUBIC).crop((8, 0, 32, 20)), (0, 2))
    assert difference(seen, expected) <= 2


@pytest.mark.parametrize("crop", get_args(Crop))
def test_grey_is_the_luma_of_the_photo(crop: Crop) -> None:
    image, colored = noise(50, 30), Preprocessing(resize=16, input_size=(16, 16), crop=crop)
    grey = prepared(image, replace(colored, channels=1))
    assert grey.mode == "L"
    assert difference(grey, prepared(image.convert("L").convert("RGB"), colored).convert("L")) == 0
    level = Image.new("RGB", (40, 40), (77, 77, 77))
    assert np.unique(np.asarray(prepared(level, replace(colored, channels=1)))).tolist() == [77]


def test_no_photo_has_another_number_of_channels() -> None:
    with pytest.raises(InputError, match=r"photos have 3 channels, or 1 .* this one takes 4"):
        check_photos_fit(Preprocessing(resize=16, input_size=(16, 16), channels=4))
