"""Which part of a photo a classifier sees, and how large."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from PIL import Image

from underfire.choices import Interpolation
from underfire.errors import InputError
from underfire.images.preprocessing import Preprocessing

Box: TypeAlias = tuple[float, float, float, float]
"""(left, upper, right, lower), in pixels with fractions."""

_REACH: Mapping[Interpolation, float] = MappingProxyType(
    {"nearest": 1, "box": 0.5, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}
)
"""Of the kernels, in pixels of the result."""

_MODES = {1: "L", 3: "RGB"}


def check_photos_fit(preprocessing: Preprocessing) -> None:
    """Refuses, by an `InputError`, a classifier that takes neither grey nor coloured pictures."""
    if preprocessing.channels not in _MODES:
        raise InputError(
            f"photos have 3 channels, or 1 for a classifier of grey; this one takes {preprocessing.channels}: give it "
            "tensors, in Python, or wrap it in a module that makes its channels of RGB."
        )


def prepared(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """``image``, of mode RGB, as the picture of mode RGB or L that a classifier is to see, of its input size."""
    mode = _MODES[preprocessing.channels]
    image = image if image.mode == mode else image.convert(mode)
    size, crop = preprocessing.input_size[::-1], preprocessing.crop
    if crop == "center":
        box = crop_box(image.size, resize=preprocessing.resize, crop=size)
        return resized(image, box, size, preprocessing.interpolation)
    whole = _whole(preprocessing)
    if crop == "squash":
        left, right = _axis(image.width, whole[0], size[0])
        upper, lower = _axis(image.height, whole[1], size[1])
        return resized(image, (left, upper, right, lower), size, preprocessing.interpolation)
    return _letterboxed(image, whole, preprocessing)


def resized(image: Image.Image, box: Box, size: tuple[int, int], interpolation: Interpolation) -> Image.Image:
    """The part ``box`` of ``image``, inside of it, resized to ``size`` (width, height); antialiased.

    Equals cropping the resized whole but for rounding, and never makes that whole: of a strip of 1 × 250 000 pixels it
    would take 50 GB.
    """
    left, upper, right, lower = box
    # Pillow keeps a box in single precision; cut down to what the kernel reaches, its corners are small.
    reach_x, reach_y = (
        math.ceil(_REACH[interpolation] * max(1.0, length / out)) + 1
        for length, out in zip((right - left, lower - upper), size, strict=True)
    )
    x, y = max(0, math.floor(left) - reach_x), max(0, math.floor(upper) - reach_y)
    width, height = image.size
    part = image.crop((x, y, min(width, math.ceil(right) + reach_x), min(height, math.ceil(lower) + reach_y)))
    inner = (left - x, upper - y, min(part.width, right - x), min(part.height, lower - y))
    return part.resize(size, Image.Resampling[interpolation.upper()], box=inner)


def crop_box(size: tuple[int, int], *, resize: int, crop: tuple[int, int]) -> Box:
    """The part of an image of ``size`` that becomes the centre crop of the resized image.

    The image would be resized to the short side ``resize``, or to more where ``crop`` would not fit, and
    ``crop`` cut out of its middle. Sizes are (width, height). Rounding as torchvision's ``Resize`` and ``CenterCrop``:
    the long side is cut down to whole pixels, the margin rounded to even.
    """
    # The scale is a ratio of integers: a side of 80 million must not lose its last digits.
    target, side = max([(resize, min(size)), *zip(crop, size, strict=True)], key=lambda pair: pair[0] / pair[1])
    axes = [_axis(length, max(out, length * target // side), out) for length, out in zip(size, crop, strict=True)]
    (left, right), (upper, lower) = axes
    return left, upper, right, lower


def _whole(preprocessing: Preprocessing) -> tuple[int, int]:
    """(width, height) of the frame of which the input is the centre, in pixels."""
    height, width = preprocessing.input_size
    large, small = max(preprocessing.resize, min(height, width)), min(height, width)
    return width * large // small, height * large // small


def _letterboxed(image: Image.Image, whole: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    """All of ``image`` in the middle of a frame of (width, height) ``whole``, and of that the centre."""
    size = preprocessing.input_size[::-1]
    frame, side = min(zip(whole, image.size, strict=True), key=lambda pair: pair[0] / pair[1])
    width, height = (max(1, length * frame // side) for length in image.size)
    seen = min(width, size[0]), min(height, size[1])
    (left, right), (upper, lower) = _axis(image.width, width, seen[0]), _axis(image.height, height, seen[1])
    picture = resized(image, (left, upper, right, lower), seen, preprocessing.interpolation)
    laid = Image.new(image.mode, size, _bars(preprocessing))
    laid.paste(picture, ((size[0] - seen[0]) // 2, (size[1] - seen[1]) // 2))
    return laid


def _bars(preprocessing: Preprocessing) -> int | tuple[int, ...]:
    """The colour of bars: 8-bit, the nearest to what becomes zero."""
    levels = [round(255 * min(max(value, 0.0), 1.0)) for value in preprocessing.mean]
    levels = levels * preprocessing.channels if len(levels) == 1 else levels
    return levels[0] if len(levels) == 1 else tuple(levels[::-1] if preprocessing.bgr else levels)


def _axis(length: int, resized: int, out: int) -> tuple[float, float]:
    """Where the middle ``out`` of ``resized`` pixels begin and end in the ``length`` they are made from."""
    start = round((resized - out) / 2)
    return start * length / resized, min(length, (start + out) * length / resized)
