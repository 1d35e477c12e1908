"""Small pictures as files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("tench", "great white shark", "crane", "crane", "hen, biddy")
"""Class names with a space, a synonym and two that are the same."""


def grey_ramp(width: int = 24, height: int = 16) -> Image.Image:
    """RGB, every column of another grey."""
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(row[None, :, None], (height, width, 3)).copy())


def photo_bytes(image: Image.Image | None = None, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or grey_ramp()).save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    """A file with ``data``, or a good photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo_bytes() if data is None else data)
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_header(width: int, height: int, *, depth: int = 8, color: int = 2) -> bytes:
    """A PNG that promises ``width`` × ``height`` pixels and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )
