"""Views of an image: transformed copies that a person takes for the same photo, and that may undo an attack.

Each view also carries maps along, and maps of the copy back to the image. Views are made of single images, so that a
batch gives the same bits split or whole.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.devices import sent
from underfire.errors import InputError
from underfire.interpreters.faithfulness import blurred
from underfire.seeding import generator


class View(Protocol):
    """A transformed copy of an image that a detector looks at."""

    @property
    def name(self) -> str:
        """What signals call it, one word; also the purpose that its random numbers belong to."""
        ...

    def apply(self, x: Tensor, keys: Sequence[str], /) -> Tensor:
        """The view (N, C, H, W) in [0, 1] of images ``x`` in [0, 1], which ``keys`` name."""
        ...

    def carry(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        """Maps (N, h, w) of images of ``size`` (H, W), each cell moved to where the view has it."""
        ...

    def carry_back(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        """Maps (N, h, w) of the view of images of ``size`` (H, W), each cell moved to where the image had it."""
        ...


class Unmoving:
    """A base of views, and of transforms, that leave every pixel where it is, and so the cells of maps."""

    def carry(self, maps: Tensor, _size: tuple[int, int], /) -> Tensor:
        """``maps`` as they are."""
        return maps

    def carry_back(self, maps: Tensor, _size: tuple[int, int], /) -> Tensor:
        """``maps`` as they are."""
        return maps


@dataclass(frozen=True)
class Noise(Unmoving):
    """Gaussian noise on every value of a pixel, cut to [0, 1].

    Attributes:
        sigma: its standard deviation in levels of 255.
        seed: of the noise, which belongs to the image's key.

    Raises:
        InputError: ``sigma`` is not in (0, 255].
    """

    sigma: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 255:
            raise InputError(f"sigma {self.sigma:g} is not in (0, 255]; give a standard deviation in levels of 255.")

    @property
    def name(self) -> str:
        """Such as ``noise-8``."""
        return f"noise-{self.sigma:g}"

    def apply(self, x: Tensor, keys: Sequence[str], /) -> Tensor:
        """``x`` with each image's own noise."""
        draws = [generator(self.seed, key, self.name) for key in keys]
        parts = [torch.randn(x.shape[1:], generator=draw, dtype=x.dtype) for draw in draws]
        noise = sent(torch.stack(parts), x) if parts else torch.zeros_like(x)
        return (x + self.sigma / 255 * noise).clamp(0, 1)


@dataclass(frozen=True)
class Shift:
    """The picture moved down and to the right; what comes in at the edges is mirrored.

    Attributes:
        pixels: how far, along each axis.

    Raises:
        InputError: ``pixels`` is below 1.
    """

    pixels: int = 2

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise InputError(f"pixels is {self.pixels}; give a shift of 1 pixel or more.")

    @property
    def name(self) -> str:
        """Such as ``shift-2``."""
        return f"shift-{self.pixels}"

    def apply(self, x: Tensor, _keys: Sequence[str], /) -> Tensor:
        """``x`` moved; the last rows and columns leave the picture.

        Raises:
            InputError: the images are no larger than the shift.
        """
        h, w = x.shape[2:]
        if min(h, w) <= self.pixels:
            raise InputError(f"images of {h}×{w} pixels cannot be moved by {self.pixels}; give a smaller shift.")
        if not x.shape[0]:
            return x
        return F.pad(x, (self.pixels, 0, self.pixels, 0), mode="reflect")[:, :, :h, :w]

    def carry(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        """The maps moved down and to the right by the same way on their grid, between cells by linear interpolation.

        The first rows and columns, which came in at the edges, repeat the first of the image.
        """
        return self._moved(maps, size, -1)

    def carry_back(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        """The maps moved up and to the left by the same way on their grid, between cells by linear interpolation.

        Where the way is a whole number of cells, the values are copied. The last rows and columns, of which the view
        saw nothing, repeat the last that it saw.
        """
        return self._moved(maps, size, 1)

    def _moved(self, maps: Tensor, size: tuple[int, int], towards: int) -> Tensor:
        """``maps`` read ``pixels`` away along both axes: down and right for ``towards`` 1, up and left for −1."""
        for axis, side in ((1, size[0]), (2, size[1])):
            cells = maps.shape[axis]
            # A ratio of integers: 4 pixels of 224 on 56 cells are exactly one.
            whole, rest = divmod(self.pixels * cells, side)
            cell = torch.arange(cells, device=maps.device)
            near, far = (
                maps.index_select(axis, (cell + towards * (whole + step)).clamp(0, cells - 1)) for step in (0, 1)
            )
            maps = torch.lerp(near, far, rest / side) if rest else near
        return maps


@dataclass(frozen=True)
class Blur(Unmoving):
    """A slight Gaussian blur.

    Attributes:
        sigma: its standard deviation in pixels.

    Raises:
        InputError: ``sigma`` is not above 0.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InputError(f"sigma {self.sigma:g} is not above 0; give a standard deviation in pixels.")

    @property
    def name(self) -> str:
        """Such as ``blur-1``."""
        return f"blur-{self.sigma:g}"

    def apply(self, x: Tensor, _keys: Sequence[str], /) -> Tensor:
        """``x`` blurred, mirrored at the edges."""
        return torch.cat([blurred(x[i : i + 1], self.sigma) for i in range(x.shape[0])]) if x.shape[0] else x


@dataclass(frozen=True)
class Flip:
    """The picture seen in a mirror."""

    name: ClassVar[str] = "flip"

    def apply(self, x: Tensor, _keys: Sequence[str], /) -> Tensor:
        """``x``, left and right exchanged."""
        return x.flip(3)

    def carry(self, maps: Tensor, _size: tuple[int, int], /) -> Tensor:
        """The maps, left and right exchanged."""
        return maps.flip(2)

    def carry_back(self, maps: Tensor, _size: tuple[int, int], /) -> Tensor:
        """As :meth:`carry`: a mirror image of a mirror image is the image."""
        return maps.flip(2)


def default_views(size: tuple[int, int] = (224, 224), seed: int = 0) -> tuple[View, ...]:
    """The views that a detector takes by default of images of ``size`` (H, W); ``seed`` is that of their noise.

    Noise of 8 and of 16 levels, a shift by one part in 28 of the shorter side and a blur of one in 112 (8 and 2 pixels
    of 224), and a flip. A person sees the same in all of them. They may take the label from a clean photo, which the
    detector learns to expect.
    """
    side = min(size)
    return (Noise(8, seed), Noise(16, seed), Shift(max(1, round(side / 28))), Blur(side / 112), Flip())


def described(part: Any) -> list[Any]:
    """The class of a view, or of another such part of a detector, and its settings, as values of JSON.

    Those of a dataclass are its fields; of another only the name is known.
    """
    settings = asdict(part) if is_dataclass(part) and not isinstance(part, type) else {"name": part.name}
    return [type(part).__name__, settings]
