"""Benign corruptions, as they happen to a photo on its way: images that a detector must not flag.

None is among a detector's own views (:mod:`underfire.defenses.views`). Each takes an image (3, H, W) in [0, 1] in whole
grey levels, with the photo's name, and gives one like it.
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underfire.images.png import from_8bit
from underfire.seeding import generator

Corruption = Callable[[Tensor, str], Tensor]
"""From an image and the photo's name, to which random numbers belong, to the image corrupted."""


def corruptions(seed: int = 0) -> dict[str, Corruption]:
    """Those that the benchmark measures, by the word that tables have for each; ``seed`` is that of the noise."""
    return {
        "jpeg-75": partial(jpeg, quality=75),
        "jpeg-50": partial(jpeg, quality=50),
        "gaussian-6": partial(gaussian_noise, sigma=6, seed=seed),
        "crop-90": partial(crop, share=0.9),
        "brightness-0.8": partial(brightness, factor=0.8),
        "brightness-1.2": partial(brightness, factor=1.2),
    }


def jpeg(image: Tensor, _photo: str, *, quality: int) -> Tensor:
    """Compressed at ``quality``, 1 to 95, and decoded again, by Pillow's own settings: colours at half resolution."""
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as decoded:
        return _numbers(decoded, image.dtype)


def gaussian_noise(image: Tensor, photo: str, *, sigma: float, seed: int = 0) -> Tensor:
    """Gaussian noise on every value, of standard deviation ``sigma`` in levels of 255, cut to [0, 1].

    Its purpose is named ``gaussian-6``, never as a detector's view, whose noise it would be.
    """
    noise = torch.randn(image.shape, generator=generator(seed, photo, f"gaussian-{sigma:g}"), dtype=torch.float64)
    return _rounded(255 * image.double() + sigma * noise, image.dtype)


def crop(image: Tensor, _photo: str, *, share: float) -> Tensor:
    """The middle, of which ``share`` of each side is kept, in (0, 1], enlarged to the size of the whole (bicubic)."""
    picture = _picture(image)
    width, height = picture.size
    left, upper = (side * (1 - share) / 2 for side in (width, height))
    box = (left, upper, width - left, height - upper)
    return _numbers(picture.resize(picture.size, Image.Resampling.BICUBIC, box=box), image.dtype)


def brightness(image: Tensor, _photo: str, *, factor: float) -> Tensor:
    """Every value multiplied by ``factor`` > 0, cut to [0, 1]."""
    return _rounded(255 * image.double() * factor, image.dtype)


def _picture(image: Tensor) -> Image.Image:
    pixels = (255 * image.double()).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _numbers(picture: Image.Image, dtype: torch.dtype) -> Tensor:
    return from_8bit(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous(), dtype)


def _rounded(levels: Tensor, dtype: torch.dtype) -> Tensor:
    """``levels`` of 255, rounded and cut, as an image."""
    return from_8bit(levels.clamp(0, 255).round(), dtype)
