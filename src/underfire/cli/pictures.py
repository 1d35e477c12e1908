"""Attribution maps as PNG files: plain, and over the photo."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from torch import Tensor

from underfire.report.pictures import Bytes, overlay, upsampled

_LONGEST = 100  # characters of a photo's name in the names of its files, which a file system limits


def photo_bytes(pixels: Tensor) -> Bytes:
    """Pixels (3, H, W), uint8, as a picture (H, W, 3)."""
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def save_maps(photo: Bytes, attribution: Tensor, stem: Path) -> tuple[Path, Path]:
    """Saves a map (h, w) as ``stem``.png, grey at the photo's size, and ``stem``-overlay.png; returns both paths."""
    values = attribution.float().numpy()
    plain = np.round(upsampled(values, (photo.shape[0], photo.shape[1])) * 255).astype(np.uint8)
    paths = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}-overlay.png")
    for picture, path in zip((plain, overlay(photo, values)), paths, strict=True):
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        Image.fromarray(picture).save(unfinished, "PNG")
        unfinished.replace(path)
    return paths


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
