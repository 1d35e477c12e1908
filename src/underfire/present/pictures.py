"""Pictures for the report, as data URIs: photos, amplified perturbations, maps over the greyed photo."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from underfire.display.figures import COLORMAP as COLORMAP

Bytes = NDArray[np.uint8]
"""An 8-bit picture, (H, W, 3)."""
Map = NDArray[np.float32]
"""An attribution map on its native grid, (h, w) in [0, 1]."""

_MAP_SHARE = 0.80  # of the map's colour in a cell at full attribution; the photo keeps the rest
_FLOOR_SHARE = 0.35  # at zero attribution: enough to darken, little enough to see what lies below


def amplified(adversarial: Bytes, benign: Bytes, gain: int) -> Bytes:
    """The difference of two pictures (H, W, 3) times ``gain`` around mid grey, the colour of no change."""
    difference = adversarial.astype(np.int32) - benign.astype(np.int32)
    return np.clip(128 + gain * difference, 0, 255).astype(np.uint8)


def gain_for(eps: float) -> int:
    """The whole number by which a change of ``eps`` (of pixels in [0, 1]) fills the range around grey."""
    return max(1, round(min(0.5 / eps, 255))) if eps > 0 else 1


def upsampled(attribution: Map, size: tuple[int, int]) -> NDArray[np.float32]:
    """The map (h, w) interpolated to ``size`` = (height, width) to look at; nothing is measured on it."""
    height, width = size
    grid = Image.fromarray(np.ascontiguousarray(attribution, dtype=np.float32), mode="F")
    smooth = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.clip(np.nan_to_num(smooth), 0.0, 1.0)  # a cubic overshoots at the edge of a peak


def overlay(photo: Bytes, attribution: Map) -> Bytes:
    """The map (h, w) in the colours of `COLORMAP` over the greyed photo (H, W, 3)."""
    height, width = photo.shape[:2]
    smooth = upsampled(attribution, (height, width))
    colours = np.asarray(colormaps[COLORMAP](smooth), dtype=np.float32)[..., :3]
    grey = np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float32)[..., None] / 255
    share = (_FLOOR_SHARE + (_MAP_SHARE - _FLOOR_SHARE) * smooth)[..., None]
    mixed = share * colours + (1 - share) * grey
    return np.round(mixed * 255).astype(np.uint8)


def data_uri(picture: Bytes, *, side: int, quality: int = 80) -> str:
    """``picture`` (H, W, 3) as a WebP data URI whose longer side has at most ``side`` pixels."""
    image = Image.fromarray(picture)
    scale = side / max(image.size)
    if scale < 1:
        width, height = image.size
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def map_uri(attribution: Map) -> str:
    """The map (h, w) on its own grid as a grey PNG data URI of 8 bits: ⌊255·m + ½⌋, so that m ≥ ½ is 128 or more."""
    grey = np.floor(255 * np.clip(attribution.astype(np.float64), 0, 1) + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def colour_tables(steps: int = 17) -> dict[str, str]:
    """By channel (R, G, B), the values of `COLORMAP` at even ``steps`` from 0 to 1, for an SVG filter."""
    ramp = np.asarray(colormaps[COLORMAP](np.linspace(0, 1, steps)), dtype=np.float64)
    return {name: " ".join(f"{value:.3f}" for value in ramp[:, place]) for place, name in enumerate("RGB")}


def colour_bar(*, side: int = 256) -> str:
    """The colours of `COLORMAP` from 0 (left) to 1 (right) as a PNG data URI, ``side`` pixels wide."""
    ramp = np.asarray(colormaps[COLORMAP](np.linspace(0, 1, side)), dtype=np.float64)[None, :, :3]
    buffer = io.BytesIO()
    Image.fromarray(np.round(ramp * 255).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
