"""8-bit PNG files: what a person is shown, and what is scored again after it was saved."""

import io
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underfire.errors import InputError
from underfire.files import quoted, read_regular_file
from underfire.images.decode import MAX_FILE_BYTES, MAX_PIXELS


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
        temporary.write_bytes(buffer.getbuffer())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_png(path: Path) -> Tensor:
    """The image at ``path``, (3, H, W) float32 in [0,1]; to the bit what :func:`save_png` rounded to.

    Raises:
        InputError: not a whole 8-bit RGB PNG.
    """
    try:
        with Image.open(io.BytesIO(read_regular_file(path, limit=MAX_FILE_BYTES)), formats=("PNG",)) as image:
            if image.mode != "RGB" or image.width * image.height > MAX_PIXELS:
                raise InputError(f"it holds {image.width}×{image.height} pixels of mode {image.mode}")
            pixels = np.array(image)
    except Exception as error:  # a decoder fed damaged bytes may raise anything
        raise InputError(f"{quoted(path)} is not an 8-bit RGB PNG that can be read: {error}.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div(255).contiguous()


def read_pngs(paths: Sequence[Path], dtype: torch.dtype) -> Tensor:
    """The 8-bit PNGs at ``paths``, of one size, as (N, 3, H, W) in [0, 1]; raises `InputError` if one is damaged."""
    # Back to whole numbers first: a multiple of 1/255 in float32 is not the one in float64.
    return from_8bit(torch.stack([torch.round(read_png(path) * 255) for path in paths]), dtype)


def from_8bit(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels (…, whole grey levels) as numbers in [0, 1]."""
    return pixels.to(dtype) / 255
