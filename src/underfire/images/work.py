"""What decoding a photo would cost, told from its bytes: a file of a few kilobytes may ask for hours.

Decoders are bounded by the pixels of a photo and the bytes of its file, but for what is refused here. Estimates, and no
child process with a time limit: they cost nothing, hold on every system, and which photos an audit goes without never
depends on how busy the machine is.
"""

import contextlib
import io
import math
import re
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

from underfire.errors import InputError

MAX_PIXELS = 80_000_000
"""Photos with more pixels are refused by their header. Pillow itself begins to warn a little above this."""

MAX_WEBP_PIXELS = 50_000_000
"""Of a WebP, whose decoder keeps whole frames beside the picture: 18 bytes for each."""

MAX_SIDE = 250_000
"""Pixels. Longer photos are refused by their header: a column of 80 million rows costs more than a square."""

MAX_READS = 2_000_000
"""Pillow reads headers, and rare kinds of PPM pixel by pixel, in Python: up to so many pieces, some seconds."""

MAX_SCANNED_PIXELS = 4_000_000_000
"""Scans of a JPEG times its pixels: 50 of the largest photo. A progressive photo has about 10."""

MAX_SEGMENTS = 100_000
"""Segments of a JPEG, each of up to 64 KiB."""

MAX_EXIF_BYTES = 2**20
"""An EXIF segment of a JPEG has at most 64 KiB, and Pillow joins those that follow it at growing cost."""

MAX_PYTHON_PIXELS = 8_000_000
"""Of a picture that is decoded by Python code and not by C: a run-length coded BMP."""

MAX_NUMBERS = 300_000
"""In one entry of a TIFF: Pillow makes an object of each. No picture has more strips."""

_TIFF_BYTES = frozenset({1, 2, 6, 7})  # types of entries that are kept as bytes
_TIFF_TILE = (322, 323)  # the entries with a tile's width and length

# The markers that stand alone in scans (RSTn, TEM) and stuffed zeros begin no segment.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])", re.DOTALL)
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})


class MeteredBytes(io.BytesIO):
    """The bytes of a file, which can be read in at most `MAX_READS` pieces; the next one raises `InputError`."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise InputError("it is made of too many pieces to be read in seconds; save it again, as PNG")
        return super().read(size)


def check_before(data: bytes) -> None:
    """Refuses, by an `InputError` that is a clause, bytes of a photo that would take long, or much memory, to open."""
    if data.startswith(b"\xff\xd8"):
        # Counted wherever they stand, in a preview or behind the picture too: a photo has few.
        if data.count(b"Exif\0\0") > MAX_EXIF_BYTES // 2**16:
            raise InputError("it has EXIF in too many pieces; save it again")
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)
    elif re.match(rb"P[123]\s", data):
        raise InputError("its pixels are written as text; save it as PNG")


def check_opened(image: Image.Image, data: bytes) -> None:
    """Refuses, by an `InputError` that is a clause, to decode the ``image`` in ``data`` if it would take long."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise InputError(too_large(f"{image.width} × {image.height} pixels"))
    if image.format == "WEBP" and pixels > MAX_WEBP_PIXELS:
        raise InputError(f"it is a WebP of more than {MAX_WEBP_PIXELS} pixels; save it as PNG or JPEG")
    if len(image.info.get("exif", b"")) > MAX_EXIF_BYTES:
        raise InputError("it has more EXIF than a photo has; save it again")
    tiles: list[Any] = getattr(image, "tile", [])
    # All of a picture may be decoded once for each of its bands.
    if sum(_area(tile) for tile in tiles) > 8 * pixels:
        raise InputError("its parts overlap; save it again")
    if pixels > MAX_PYTHON_PIXELS and any(tile[0] in Image.DECODERS for tile in tiles):
        raise InputError(f"it has more than {MAX_PYTHON_PIXELS} pixels in a rare encoding; save it as PNG")
    if data.startswith(b"\xff\xd8"):
        _check_scans(data, pixels)
    if image.format == "TIFF":
        width, length = (getattr(image, "tag_v2", {}).get(tag, 1) for tag in _TIFF_TILE)
        padded = math.ceil(image.width / width) * math.ceil(image.height / length) * width * length
        if padded > 2 * MAX_PIXELS:
            raise InputError(f"its tiles are of {width} × {length} pixels; save it again")


def too_large(size: str) -> str:
    """Why a photo of ``size``, in words, is refused."""
    return f"the image has {size}, the limit being {MAX_PIXELS} in all and {MAX_SIDE} on a side"


def _area(tile: Any) -> int:
    left, upper, right, lower = tile[1] or (0, 0, 0, 0)
    return int((right - left) * (lower - upper))


def _check_scans(data: bytes, pixels: int) -> None:
    """Of a JPEG. A scan of few bytes still visits every pixel."""
    most = MAX_SCANNED_PIXELS // pixels
    # First wherever the bytes stand, which is never too few: most photos need no second look.
    counting = data.count(bytes([0xFF, _SOS])) > most
    scans = 0
    for number, marker in enumerate(_jpeg_markers(data)):
        scans += marker == _SOS
        if marker in _ARITHMETIC:
            raise InputError("it is a JPEG with arithmetic coding, which hardly any program reads; save it again")
        if number >= MAX_SEGMENTS:
            raise InputError(f"it has more than {MAX_SEGMENTS} segments; save it again")
        if scans > most:
            raise InputError(f"it has more than {most} scans of {pixels} pixels; save it again")
        if scans and not counting:
            return


def _jpeg_markers(data: bytes) -> Iterator[int]:
    """The markers of the picture that begins ``data``, as libjpeg meets them."""
    place = 0
    while match := _JPEG_MARKER.search(data, place):
        marker = match[1][0]
        yield marker
        if marker == _EOI:
            return
        place = match.end()
        if marker != _SOI:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))


def _check_tiff(data: bytes) -> None:
    """Of the first directory, the only one that is read (TIFF 6.0, section 2; BigTIFF has wider fields)."""
    order, big = "<" if data.startswith(b"II") else ">", data[2:3] == b"+"
    entry = struct.Struct(f"{order}HHQ8x" if big else f"{order}HHL4x")
    with contextlib.suppress(struct.error):  # cut short: Pillow says so
        (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}L", data, 8 if big else 4)
        (entries,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, start)
        for number in range(entries):
            _, kind, count = entry.unpack_from(data, start + (8 if big else 2) + number * entry.size)
            if kind not in _TIFF_BYTES and count > MAX_NUMBERS:
                raise InputError(f"an entry of its directory has {count} numbers; save it again")
