"""Which part of a photo a classifier sees, and how large."""

import math

from PIL import Image

_REACH = 2  # of the bicubic kernel, in pixels of the result


def resize_and_crop(image: Image.Image, *, resize: int, crop: tuple[int, int]) -> Image.Image:
    """The centre ``crop`` (width, height) of ``image`` resized to the short side ``resize``.

    Bicubic and antialiased. Equals cropping the resized whole but for rounding, and never makes that whole: of
    a strip of 1 × 250 000 pixels it would take 50 GB.
    """
    left, upper, right, lower = crop_box(image.size, resize=resize, crop=crop)
    # Pillow keeps a box in single precision; cut down to what the kernel reaches, its corners are small.
    reach_x, reach_y = (
        math.ceil(_REACH * max(1.0, length / out)) + 1
        for length, out in zip((right - left, lower - upper), crop, strict=True)
    )
    x, y = max(0, math.floor(left) - reach_x), max(0, math.floor(upper) - reach_y)
    width, height = image.size
    part = image.crop((x, y, min(width, math.ceil(right) + reach_x), min(height, math.ceil(lower) + reach_y)))
    box = (left - x, upper - y, min(part.width, right - x), min(part.height, lower - y))
    return part.resize(crop, Image.Resampling.BICUBIC, box=box)


def crop_box(size: tuple[int, int], *, resize: int, crop: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of an image of ``size`` that becomes the centre crop of the resized image.

    The image would be resized to the short side ``resize``, or to more where ``crop`` would not fit, and
    ``crop`` cut out of its middle. Sizes are (width, height); the result, (left, upper, right, lower), is in
    pixels of the image as it is, with fractions. Rounding as torchvision's ``Resize`` and ``CenterCrop``: the
    long side is cut down to whole pixels, the margin rounded to even.
    """
    # The scale is a ratio of integers: a side of 80 million must not lose its last digits.
    target, side = max([(resize, min(size)), *zip(crop, size, strict=True)], key=lambda pair: pair[0] / pair[1])
    axes = [_axis(length, max(out, length * target // side), out) for length, out in zip(size, crop, strict=True)]
    (left, right), (upper, lower) = axes
    return left, upper, right, lower


def _axis(length: int, resized: int, out: int) -> tuple[float, float]:
    """Where the middle ``out`` of ``resized`` pixels begin and end in the ``length`` they are made from."""
    start = round((resized - out) / 2)
    return start * length / resized, min(length, (start + out) * length / resized)
