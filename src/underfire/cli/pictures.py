"""Attribution maps as PNG files: plain, over the photo, and those of several interpreters side by side."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from underfire.files import write_whole
from underfire.present.pictures import Bytes, overlay, upsampled

_LONGEST = 100  # characters of a photo's name in the names of its files, which a file system limits
_SIDE = 160  # pixels that a picture beside others has at least, so that its name fits above it
_GAP, _LINE = 4, 16  # pixels between pictures, and of the names above them


def photo_bytes(pixels: Tensor) -> Bytes:
    """Pixels (C, H, W), uint8, RGB or grey, as a picture (H, W, 3)."""
    return np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def save_maps(photo: Bytes, attribution: Tensor, stem: Path) -> tuple[Path, Path]:
    """Saves a map (h, w) as ``stem``.png, grey at the photo's size, and ``stem``-overlay.png; returns both paths."""
    values = attribution.float().numpy()
    plain = np.round(upsampled(values, (photo.shape[0], photo.shape[1])) * 255).astype(np.uint8)
    paths = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}-overlay.png")
    for picture, path in zip((plain, overlay(photo, values)), paths, strict=True):
        _save_png(picture, path)
    return paths


def save_side_by_side(photo: Bytes, maps: Mapping[str, Tensor], path: Path) -> None:
    """Saves the photo (H, W, 3) and to its right each map (h, w) over it, its name above it, as a PNG at ``path``."""
    times = math.ceil(_SIDE / photo.shape[1])
    large = photo.repeat(times, axis=0).repeat(times, axis=1)
    pictures = {"photo": large} | {name: overlay(large, values.float().numpy()) for name, values in maps.items()}
    _save_png(_side_by_side(pictures), path)


_IN, _OUT, _FREE = (0.13, 0.55, 0.13), (0.1, 0.1, 0.1), (0.95, 0.65, 0.1)
_TINT = 0.55  # of a cell's colour; the photo keeps the rest


def save_cells(photo: Bytes, cells: Mapping[str, tuple[Tensor, Tensor]], path: Path) -> None:
    """Saves the photo (H, W, 3) and to its right, by name, which cells are sure: green in, black out, orange free.

    Args:
        photo: 8-bit, RGB.
        cells: which cells (h, w) are surely in, and which surely out.
        path: of the PNG.
    """
    times = math.ceil(_SIDE / photo.shape[1])
    large = photo.repeat(times, axis=0).repeat(times, axis=1)
    sheets = {"photo": large}
    for name, (inside, outside) in cells.items():
        colours = np.where(inside[..., None], _IN, np.where(outside[..., None], _OUT, _FREE)).astype(np.float32)
        rows, columns = (
            np.arange(size) * count // size for size, count in zip(large.shape, inside.shape, strict=False)
        )
        tinted = (1 - _TINT) * large / 255 + _TINT * colours[rows][:, columns]
        sheets[name] = np.round(tinted * 255).astype(np.uint8)
    _save_png(_side_by_side(sheets), path)


def _side_by_side(pictures: Mapping[str, Bytes]) -> Bytes:
    """Pictures of one size, each under its name."""
    height, width = next(iter(pictures.values())).shape[:2]
    sheet = Image.new("RGB", ((width + _GAP) * len(pictures) - _GAP, _LINE + height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, picture) in enumerate(pictures.items()):
        draw.text((place * (width + _GAP) + 2, 2), name, fill="black")
        sheet.paste(Image.fromarray(picture), (place * (width + _GAP), _LINE))
    return np.asarray(sheet)


def _save_png(picture: Bytes, path: Path) -> None:
    """Writes the file whole or not at all."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


def file_stems(image_ids: Sequence[str]) -> list[str]:
    """A readable file name without suffix for each photo, no two the same."""
    stems: list[str] = []
    for image_id in image_ids:
        name = PurePosixPath(image_id).with_suffix("").as_posix()
        plain = "".join(char if char.isalnum() or char in "-_.()+" else "_" for char in name).lstrip(".")
        stem = plain[:_LONGEST] or "photo"
        count = sum(other == stem or other.startswith(f"{stem}~") for other in stems)
        stems.append(f"{stem}~{count + 1}" if count else stem)
    return stems
