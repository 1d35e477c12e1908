"""8-bit PNG files: what a person is shown, and what is scored again after it was saved."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from underfire.errors import InputError
from underfire.files import naming, quoted, read_regular_file
from underfire.images.decode import MAX_FILE_BYTES
from underfire.images.work import MAX_PIXELS

_BEGINNING = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_SIZE_AND_KIND = struct.Struct(">IIBB")  # width, height, bit depth, colour type
_COLOUR_TYPES = {1: 0, 3: 2}
"""The PNG's own numbers of grey and of RGB, by channels."""
_NAMES = {1: "grey", 3: "RGB"}

Shape: TypeAlias = tuple[int, int, int]
"""(channels, height, width) of a picture, with 1 or 3 channels."""


def save_png(image: Tensor, path: Path) -> None:
    """Write ``image``, (C, H, W) floats in [0,1], as an 8-bit PNG, RGB or of one channel grey, rounded to 1/255.

    The file appears whole or not at all: it is written beside ``path`` under a hidden name and moved there.
    The folder must exist.

    Raises:
        InputError: another shape or type, a NaN, or a value outside [0,1].
        OSError: the file cannot be written.
    """
    if image.ndim != 3 or image.shape[0] not in _NAMES or 0 in image.shape or not image.is_floating_point():
        raise InputError(
            f"Cannot save {quoted(path)}: expected a floating-point image of shape (3, H, W) or (1, H, W), "
            f"got {image.dtype} of shape {tuple(image.shape)}."
        )
    image = image.detach().to("cpu", torch.float32)
    low, high = image.aminmax()
    if not (low >= 0 and high <= 1):  # false for NaN too, which aminmax passes on
        raise InputError(
            f"Cannot save {quoted(path)}: values must lie in [0, 1], these go from {low:.4g} to {high:.4g}."
        )
    data = png_bytes(image.mul(255).round_().to(torch.uint8))
    # Not tempfile: its files are for their owner alone, and a report is to be shared as the umask says.
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with naming(path):
            temporary.write_bytes(data)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def png_bytes(pixels: Tensor) -> bytes:
    """``pixels``, uint8 (C, H, W) of 1 or 3 channels on the CPU, as the bytes of a PNG, grey or RGB."""
    picture = pixels.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()


def read_pixels(path: Path, shape: Shape | None = None) -> NDArray[np.uint8]:
    """The pixels (H, W, C) of the 8-bit RGB or grey PNG at ``path``, whoever wrote it.

    What a run directory holds may be anybody's, so nothing else is decoded than what :func:`save_png` writes: links are
    not followed, and the header is judged before a decoder sees the file.

    Args:
        path: of the file.
        shape: that it must have; None for any up to ``MAX_PIXELS``.

    Raises:
        InputError: it is no regular file, not a whole 8-bit PNG of these colours, or of another shape.
    """
    channels = tuple(_NAMES) if shape is None else shape[:1]
    try:
        # Noise takes three bytes a pixel; whole MiB, as the message has them.
        limit = MAX_FILE_BYTES if shape is None else 2**20 * (1 + 4 * shape[1] * shape[2] // 2**20)
        data = read_regular_file(path, limit=limit, follow_links=False)
        mode, size = _checked_header(data, channels, None if shape is None else shape[1:])
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if (image.mode, *image.size) != (mode, *size):  # of a second header
                raise InputError("it has two headers")
            pixels = np.atleast_3d(np.array(image))
    except Exception as error:  # a decoder fed damaged bytes may raise anything
        kind = " or ".join(_NAMES[count] for count in reversed(channels))
        raise InputError(f"{quoted(path)} is not an 8-bit {kind} PNG that can be read: {error}.") from error
    return pixels


def read_shown(path: Path, shape: Shape | None = None) -> NDArray[np.uint8]:
    """As `read_pixels`, to look at: always (H, W, 3)."""
    pixels = read_pixels(path, shape)
    return pixels.repeat(3 // pixels.shape[2], axis=2)


def _checked_header(data: bytes, channels: Sequence[int], size: tuple[int, int] | None) -> tuple[str, tuple[int, int]]:
    """Pillow's mode and (width, height) of a PNG of 8 bits; raises `InputError`, a clause, if it is another one."""
    if not data.startswith(_BEGINNING) or len(data) < len(_BEGINNING) + _SIZE_AND_KIND.size:
        raise InputError("it does not begin as one")
    width, height, depth, colours = _SIZE_AND_KIND.unpack_from(data, len(_BEGINNING))
    expected = [_COLOUR_TYPES[count] for count in channels]
    if depth != 8 or colours not in expected:
        wanted = " or ".join(map(str, expected))
        raise InputError(f"it has bit depth {depth} and colour type {colours} where 8 and {wanted} are expected")
    if size is not None and (height, width) != size:
        raise InputError(f"it has {width} × {height} pixels where {size[1]} × {size[0]} are expected")
    if width * height > MAX_PIXELS:
        raise InputError(f"it has {width} × {height} pixels, the limit being {MAX_PIXELS} in all")
    return {0: "L", 2: "RGB"}[colours], (width, height)


def read_png(path: Path) -> Tensor:
    """The image at ``path``, (C, H, W) float32 in [0,1]; to the bit what :func:`save_png` rounded to.

    Raises:
        InputError: not a whole 8-bit RGB or grey PNG.
    """
    return from_8bit(_channels_first(read_pixels(path)))


def read_pngs(paths: Sequence[Path], shape: Shape, dtype: torch.dtype) -> Tensor:
    """The 8-bit PNGs of ``shape`` at ``paths``, as (N, C, H, W) in [0, 1].

    Raises:
        InputError: one is not a whole 8-bit PNG of this shape.
    """
    return from_8bit(torch.stack([_channels_first(read_pixels(path, shape)) for path in paths]), dtype)


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def from_8bit(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels (…, whole grey levels) as numbers in [0, 1]."""
    return pixels.to(dtype, copy=True).div_(255)
