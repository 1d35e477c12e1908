"""8-bit PNG files: what a person is shown, and what is scored again after it was saved."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
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
_RGB_OF_8_BITS = (8, 2)


def save_png(image: Tensor, path: Path) -> None:
    """Write ``image``, (3, H, W) floats in [0,1], as an 8-bit RGB PNG, rounded to multiples of 1/255.

    The file appears whole or not at all: it is written beside ``path`` under a hidden name and moved there.
    The folder must exist.

    Raises:
        InputError: another shape or type, a NaN, or a value outside [0,1].
        OSError: the file cannot be written.
    """
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
        raise InputError(
            f"Cannot save {quoted(path)}: expected a floating-point image of shape (3, H, W), "
            f"got {image.dtype} of shape {tuple(image.shape)}."
        )
    image = image.detach().to("cpu", torch.float32)
    low, high = image.aminmax()
    if not (low >= 0 and high <= 1):  # false for NaN too, which aminmax passes on
        raise InputError(
            f"Cannot save {quoted(path)}: values must lie in [0, 1], these go from {low:.4g} to {high:.4g}."
        )
    pixels = image.mul(255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    # Not tempfile: its files are for their owner alone, and a report is to be shared as the umask says.
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with naming(path):
            temporary.write_bytes(buffer.getbuffer())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_pixels(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of the 8-bit RGB PNG at ``path``, whoever wrote it.

    What a run directory holds may be anybody's, so nothing else is decoded than what :func:`save_png` writes: links are
    not followed, and the header is judged before a decoder sees the file.

    Args:
        path: of the file.
        size: the (height, width) that it must have; None for any up to ``MAX_PIXELS``.

    Raises:
        InputError: it is no regular file, not a whole 8-bit RGB PNG, or of another size.
    """
    try:
        # Noise takes three bytes a pixel; whole MiB, as the message has them.
        limit = MAX_FILE_BYTES if size is None else 2**20 * (1 + 4 * size[0] * size[1] // 2**20)
        data = read_regular_file(path, limit=limit, follow_links=False)
        _check_header(data, size)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.array(image)
    except Exception as error:  # a decoder fed damaged bytes may raise anything
        raise InputError(f"{quoted(path)} is not an 8-bit RGB PNG that can be read: {error}.") from error
    return pixels


def _check_header(data: bytes, size: tuple[int, int] | None) -> None:
    """Refuses, by an `InputError` that is a clause, all but an 8-bit RGB PNG of this (height, width)."""
    if not data.startswith(_BEGINNING) or len(data) < len(_BEGINNING) + _SIZE_AND_KIND.size:
        raise InputError("it does not begin as one")
    width, height, *kind = _SIZE_AND_KIND.unpack_from(data, len(_BEGINNING))
    if tuple(kind) != _RGB_OF_8_BITS:
        raise InputError(f"it has bit depth {kind[0]} and colour type {kind[1]} where 8 and 2 are expected")
    if size is not None and (height, width) != size:
        raise InputError(f"it has {width} × {height} pixels where {size[1]} × {size[0]} are expected")
    if width * height > MAX_PIXELS:
        raise InputError(f"it has {width} × {height} pixels, the limit being {MAX_PIXELS} in all")


def read_png(path: Path) -> Tensor:
    """The image at ``path``, (3, H, W) float32 in [0,1]; to the bit what :func:`save_png` rounded to.

    Raises:
        InputError: not a whole 8-bit RGB PNG.
    """
    return from_8bit(_channels_first(read_pixels(path)))


def read_pngs(paths: Sequence[Path], size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The 8-bit PNGs of (height, width) ``size`` at ``paths``, as (N, 3, H, W) in [0, 1].

    Raises:
        InputError: one is not a whole 8-bit RGB PNG of this size.
    """
    return from_8bit(torch.stack([_channels_first(read_pixels(path, size)) for path in paths]), dtype)


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def from_8bit(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels (…, whole grey levels) as numbers in [0, 1]."""
    return pixels.to(dtype) / 255
