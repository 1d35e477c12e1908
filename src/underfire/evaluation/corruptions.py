"""Benign corruptions, as they happen to a photo on its way: images that a detector must not flag.

None is among a detector's own views (:mod:`underfire.defenses.views`). Each takes an image (3, H, W) in [0, 1] in whole
grey levels and gives one like it.
"""

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underfire.images.png import from_8bit
from underfire.seeding import generator


class Corruption(Protocol):
    """A benign corruption."""

    @property
    def name(self) -> str:
        """What tables call it, one word."""
        ...

    def __call__(self, image: Tensor, key: str, /) -> Tensor:
        """``image`` corrupted; random numbers belong to ``key``, the photo's name."""
        ...


@dataclass(frozen=True)
class Jpeg:
    """Compressed and decoded again, by Pillow with its own settings: colours at half the resolution.

    Attributes:
        quality: from 1 to 95.
    """

    quality: int

    @property
    def name(self) -> str:
        """Such as ``jpeg-75``."""
        return f"jpeg-{self.quality}"

    def __call__(self, image: Tensor, _key: str, /) -> Tensor:
        """``image`` as it comes back."""
        file = io.BytesIO()
        _picture(image).save(file, "JPEG", quality=self.quality)
        with Image.open(file, formats=("JPEG",)) as decoded:
            return _numbers(decoded, image.dtype)


@dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise on every value of a pixel, cut to [0, 1].

    Attributes:
        sigma: its standard deviation in levels of 255.
        seed: of the noise, which belongs to the photo's key.
    """

    sigma: float
    seed: int = 0

    @property
    def name(self) -> str:
        """Such as ``gaussian-6``; never that of a detector's view, whose noise it would be."""
        return f"gaussian-{self.sigma:g}"

    def __call__(self, image: Tensor, key: str, /) -> Tensor:
        """``image`` with the photo's own noise."""
        noise = torch.randn(image.shape, generator=generator(self.seed, key, self.name), dtype=torch.float64)
        return _rounded(255 * image.double() + self.sigma * noise, image.dtype)


@dataclass(frozen=True)
class Crop:
    """The middle of the picture, enlarged to the size of the whole (bicubic).

    Attributes:
        share: of each side that is kept, in (0, 1].
    """

    share: float

    @property
    def name(self) -> str:
        """Such as ``crop-90``: in per cent."""
        return f"crop-{100 * self.share:g}"

    def __call__(self, image: Tensor, _key: str, /) -> Tensor:
        """The middle of ``image``."""
        picture = _picture(image)
        width, height = picture.size
        left, upper = (side * (1 - self.share) / 2 for side in (width, height))
        box = (left, upper, width - left, height - upper)
        return _numbers(picture.resize(picture.size, Image.Resampling.BICUBIC, box=box), image.dtype)


@dataclass(frozen=True)
class Brightness:
    """Every value multiplied by one number, cut to [0, 1].

    Attributes:
        factor: above 0.
    """

    factor: float

    @property
    def name(self) -> str:
        """Such as ``brightness-0.8``."""
        return f"brightness-{self.factor:g}"

    def __call__(self, image: Tensor, _key: str, /) -> Tensor:
        """``image``, brighter or darker."""
        return _rounded(255 * image.double() * self.factor, image.dtype)


def corruptions(seed: int = 0) -> tuple[Corruption, ...]:
    """Those that the benchmark measures; ``seed`` is that of the noise."""
    return (Jpeg(75), Jpeg(50), GaussianNoise(6, seed), Crop(0.9), Brightness(0.8), Brightness(1.2))


def _picture(image: Tensor) -> Image.Image:
    pixels = (255 * image.double()).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _numbers(picture: Image.Image, dtype: torch.dtype) -> Tensor:
    return from_8bit(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous(), dtype)


def _rounded(levels: Tensor, dtype: torch.dtype) -> Tensor:
    """``levels`` of 255, rounded and cut, as an image."""
    return from_8bit(levels.clamp(0, 255).round(), dtype)
