"""How a photo becomes a classifier's input."""

import math
from dataclasses import dataclass, replace
from typing import Self, get_args

from torch import Tensor

from underfire.choices import Crop, Interpolation
from underfire.devices import filled
from underfire.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a photo becomes the input of a classifier's module: first a picture of ``input_size``, then numbers.

    Attributes:
        input_size: (height, width) of the picture in pixels.
        resize: what the short side of the *whole* picture would be in pixels, of which ``input_size`` is the centre.
            With ``crop="center"`` the short side of the photo becomes so long; with the others the whole photo, in a
            frame of the shape of ``input_size``, becomes so large. No photo is made smaller than the input.
        mean, std: of the normalisation (x - mean) / std of x in [0, 1]; one number for all channels, or one for each in
            the order in which the module takes them.
        interpolation: how pixels are resized, antialiased but for ``nearest``; see Pillow's ``Resampling``.
        crop: ``center`` keeps the shape of what is seen and cuts the rest off; ``squash`` takes all, in another shape;
            ``letterbox`` takes all in its own shape, with bars in the colour nearest to ``mean``.
        channels: 3 for colour, 1 for grey; photos come with no other number.
        bgr: whether the module takes blue first. Pictures are RGB everywhere else.

    Raises:
        InputError: a value is out of its range, or they contradict each other.
    """

    input_size: tuple[int, int]
    resize: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: Interpolation = "bicubic"
    crop: Crop = "center"
    channels: int = 3
    bgr: bool = False

    def __post_init__(self) -> None:
        if len(self.input_size) != 2 or min(self.input_size) < 1:
            raise InputError(f"input_size {self.input_size!r} is not a height and a width of at least one pixel.")
        if self.resize < 1:
            raise InputError(f"resize {self.resize!r} is not a number of pixels; give a short side of 1 or more.")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if not numbers or not all(map(math.isfinite, numbers)):
                raise InputError(f"{name} {_shown(numbers)} is not a finite number per channel.")
            if len(numbers) not in (1, self.channels):
                raise InputError(f"{name} has {len(numbers)} numbers for {self.channels} channels; give one of each.")
        if min(self.std) <= 0:
            raise InputError(f"std {_shown(self.std)} must be above zero in every channel.")
        for name, known in (("interpolation", get_args(Interpolation)), ("crop", get_args(Crop))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; give one of {', '.join(known)}.")
        if self.bgr and self.channels != 3:
            raise InputError(f"bgr is for 3 channels, and the classifier takes {self.channels}; leave it out.")

    def at(self, size: tuple[int, int]) -> Self:
        """The same for another input size, with the same share of the photo in it."""
        return replace(self, input_size=size, resize=round(min(size) * self.resize / min(self.input_size)))

    def enlarged(self, factor: float) -> Self:
        """The same with ``factor`` times as many pixels on every side."""
        height, width = self.input_size
        size = (round(height * factor), round(width * factor))
        return replace(self, input_size=size, resize=round(self.resize * factor))

    def normalised(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] as the module takes them; differentiable."""
        mean, std = (filled(numbers, x).reshape(1, -1, 1, 1) for numbers in (self.mean, self.std))
        return ((x.flip(1) if self.bgr else x) - mean) / std


def _shown(numbers: tuple[float, ...]) -> str:
    return repr(numbers[0] if len(numbers) == 1 else numbers)
