"""Photos of every format that is read, spoilt where decoders look: sizes, chunks, segments, entries, scans."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from fuzz.case import Case, Originals
from fuzz.mutate import MAGIC, spoilt_bytes
from support.pictures import photo_bytes, png_chunk
from support.toy_photos import MODEL_OPTIONS

_SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "L", {}), ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
    ("JPEG", "RGB", {"restart_marker_blocks": 1}), ("JPEG", "RGB", {"icc_profile": b"\0" * 400}),
    ("PNG", "RGB", {}), ("PNG", "P", {}), ("PNG", "RGBA", {}), ("PNG", "LA", {}), ("PNG", "I;16", {}), ("PNG", "1",
    {}),
    ("PNG", "RGB", {"save_all": True, "frames": 3}), ("PNG", "P", {"transparency": 3}), ("PNG", "L", {"bits": 4}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True, "frames": 3}),
    ("GIF", "P", {}), ("GIF", "P", {"save_all": True, "frames": 4}), ("GIF", "L", {"interlace": True}),
    ("BMP", "RGB", {}), ("BMP", "P", {}), ("BMP", "1", {}), ("BMP", "RGBA", {}), ("DIB", "RGB", {}),
    ("TIFF", "RGB", {}), ("TIFF", "P", {}), ("TIFF", "I;16", {}), ("TIFF", "CMYK", {}), ("TIFF", "LAB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}), ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"compression": "packbits"}), ("TIFF", "RGB", {"save_all": True, "frames": 3}),
    ("TIFF", "RGB", {"big_tiff": True}), ("PPM", "RGB", {}), ("PPM", "L", {}), ("PPM", "1", {}), ("PPM", "I;16", {}),
)  # fmt: skip
_SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "PPM": "ppm"}


def image(draw: Random, folder: Path, originals: Originals) -> Case:
    """A photo to be explained."""
    kind, data, told = spoilt_photo(draw)
    photo = folder / f"photo.{draw.choice(list(_SUFFIX.values())) if draw.random() < 0.1 else _SUFFIX.get(kind, 'bmp')}"
    photo.write_bytes(data)
    command = ("explain", photo.name, *MODEL_OPTIONS, "--interpreters", "cam", "--out", "maps")
    return Case(told, (command,))


def spoilt_photo(draw: Random) -> tuple[str, bytes, str]:
    """The format of a photo, its bytes, spoilt, and what was done to them."""
    kind, mode, options = draw.choice(_SAVED)
    data = _saved(draw, kind, mode, dict(options))
    told = f"{kind} {mode} {str(options)[:60]}"
    for _ in range(draw.choice((1, 1, 2))):
        name, change = draw.choice([*_OWN.get(kind, ()), ("bytes", _bytes), ("bytes", _bytes)])
        data, told = change(draw, data), f"{told}, {name}"
    if draw.random() < 0.08:
        told, data = _work(draw)
    return kind, data, told


def _saved(draw: Random, kind: str, mode: str, options: dict[str, Any]) -> bytes:
    width, height = draw.choice(((24, 16), (1, 1), (64, 64), (300, 200), (7, 500)))
    rng = np.random.default_rng(draw.randrange(2**32))
    pixels = (
        rng.integers(0, 256, (height, width, 3), np.uint8)
        if draw.random() < 0.5
        else np.zeros((height, width, 3), np.uint8)
    )
    picture = Image.fromarray(pixels)
    converted = picture.convert("L").convert("I;16") if mode == "I;16" else picture
    if mode == "LAB":
        converted = Image.new("LAB", (width, height))
    elif mode != "I;16":
        converted = picture.convert(mode)
    frames = options.pop("frames", 0)
    if frames:
        options["append_images"] = [converted.rotate(90 * i) for i in range(1, frames)]
    return photo_bytes(converted, kind, **options)


def _bytes(draw: Random, data: bytes) -> bytes:
    return spoilt_bytes(draw, data)[0]


def _side(draw: Random) -> int:
    return draw.choice((0, 1, 2, 1000, 4000, 8944, 8945, 16383, 65500, 65535, 2**20, 2**31 - 1, 2**32 - 1))


# --- PNG ---


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, content) for name, content in chunks)


def _png_header(draw: Random, data: bytes) -> bytes:
    """Another size, depth or colour type, with the right checksum."""
    chunks = _chunks(data)
    if not chunks or len(chunks[0][1]) != 13:
        return data
    fields: list[int] = list(struct.unpack(">IIBBBBB", chunks[0][1]))
    place = draw.choice((0, 0, 1, 1, 2, 3, 4, 5, 6))
    fields[place] = _side(draw) if place < 2 else draw.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return _png([(b"IHDR", struct.pack(">IIBBBBB", *fields)), *chunks[1:]])


def _png_chunk(draw: Random, data: bytes) -> bytes:
    chunks = _chunks(data)
    if not chunks:
        return data
    place = draw.randrange(len(chunks))
    bomb = zlib.compress(bytes(draw.choice((10, 10**5, 4 * 10**7))), 9)
    new = draw.choice((
        (b"zTXt", b"k\0\0" + bomb), (b"iCCP", b"p\0\0" + bomb), (b"iTXt", b"k\0\1\0\0\0" + bomb), (b"tEXt",
        b"k\0" + b"x" * 10**6),
        (b"eXIf", b"MM\0*" + bytes(draw.choice((4, 10**5)))), (b"acTL", struct.pack(">II",
        draw.choice(MAGIC) % 2**32, 0)),
        (b"PLTE", bytes(draw.choice((3, 4, 768, 3000)))), (b"tRNS", bytes(draw.choice((1, 2, 6, 300)))), (b"gAMA",
        b"\0\0\0\0"),
        (b"IDAT", bomb), (b"fdAT", bytes(4) + bomb), (b"cHRM", bytes(32)), (b"\xff\xff\xff\xff", b""),
    ))  # fmt: skip
    how = draw.choice(("in", "in", "out", "twice", "thousand", "shuffle"))
    if how == "in":
        chunks.insert(place, new)
    elif how == "out":
        del chunks[place]
    elif how == "shuffle":
        draw.shuffle(chunks)
    else:
        chunks[place:place] = [chunks[place] if how == "twice" else new if len(new[1]) < 1000 else (b"teSt", b"")] * (
            1 if how == "twice" else 3000
        )
    return _png(chunks)


# --- JPEG ---


def _segments(data: bytes) -> list[bytes]:
    """Cut before each marker that begins one."""
    places = [m.start() for m in re.finditer(rb"\xff[\xc0-\xcf\xd8-\xfe]", data)]
    return [data[a:b] for a, b in zip([0, *places[1:]], [*places[1:], len(data)], strict=True)] if places else [data]


def _jpeg_segment(draw: Random, data: bytes) -> bytes:
    segments = _segments(data)
    place = draw.randrange(len(segments))
    how = draw.choice(("out", "twice", "many", "swap", "length", "spoil", "app"))
    if how == "out":
        del segments[place]
    elif how in ("twice", "many"):
        segments[place:place] = [segments[place]] * (1 if how == "twice" else draw.choice((20, 1000)))
    elif how == "swap":
        draw.shuffle(segments)
    elif how == "length":
        segments[place] = segments[place][:2] + struct.pack(">H", draw.choice(MAGIC) % 2**16) + segments[place][4:]
    elif how == "spoil":
        segments[place] = segments[place][:2] + _bytes(draw, segments[place][2:])
    else:
        marker = draw.choice(
            (
                b"\xff\xe0JFIF\0",
                b"\xff\xe1Exif\0\0MM\0*",
                b"\xff\xe2ICC_PROFILE\0\1\1",
                b"\xff\xe2MPF\0",
                b"\xff\xedPhotoshop 3.0\x008BIM",
                b"\xff\xeeAdobe",
                b"\xff\xdd\0\4",
                b"\xff\xfe",
            )
        )
        body = marker[2:] + draw.randbytes(draw.choice((0, 4, 60, 5000)))
        segments.insert(1, marker[:2] + struct.pack(">H", len(body) + 2) + body)
    return b"".join(segments)


def _jpeg_size(draw: Random, data: bytes) -> bytes:
    found = re.search(rb"\xff[\xc0-\xc3]..\x08", data, re.DOTALL)
    if found is None:
        return data
    place = found.start() + 5
    return data[:place] + struct.pack(">HH", _side(draw) % 2**16, _side(draw) % 2**16) + data[place + 4 :]


# --- the others ---


def _tiff_entry(draw: Random, data: bytes) -> bytes:
    order, big = "<" if data.startswith(b"II") else ">", data[2:3] == b"+"
    try:
        (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}L", data, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, start)
        size, offset = (20, 8) if big else (12, 2)
        place = start + offset + draw.randrange(max(1, count)) * size
        field = draw.choice((0, 2, 4, 4, size - (8 if big else 4), size - (8 if big else 4)))
        width = 2 if field < 4 else 4
        tags = (
            256,
            257,
            258,
            259,
            262,
            266,
            273,
            274,
            277,
            278,
            279,
            284,
            317,
            320,
            322,
            323,
            324,
            325,
            330,
            338,
            339,
            347,
            530,
            34665,
            34675,
        )
        value = (
            draw.choice(tags)
            if field == 0
            else draw.choice(range(1, 19))
            if field == 2
            else draw.choice((*MAGIC, _side(draw), 7, 8, 16, 32)) % 2**32
        )
        return (
            data[: place + field]
            + value.to_bytes(width, "little" if order == "<" else "big")
            + data[place + field + width :]
        )
    except (struct.error, ValueError):
        return data


def _header_number(draw: Random, data: bytes) -> bytes:
    """Sizes stand at known places of short headers, little-endian."""
    place = draw.choice(
        (6, 8)
        if data[:3] == b"GIF"
        else (14, 18, 22, 26, 28, 30, 34, 46)
        if data[:2] == b"BM"
        else (4, 16, 20, 24, 27, 30)
    )
    size = 2 if data[:3] == b"GIF" else 4
    return data[:place] + int(_side(draw) % 256**size).to_bytes(size, "little") + data[place + size :]


def _ppm_header(draw: Random, data: bytes) -> bytes:
    kind = draw.choice((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"Pf", b"PF", b"Py"))
    sizes = [str(draw.choice((_side(draw), 24, 16, -1, 10**30))).encode() for _ in range(2)]
    most = draw.choice((b"255", b"65535", b"1", b"0", b"65536", b"-1", b"1e9", b"9" * 6000))
    comment = b"#" + b"x" * draw.choice((0, 10, 10**6)) + b"\n" if draw.random() < 0.3 else b""
    return (
        kind
        + b"\n"
        + comment
        + sizes[0]
        + b" "
        + sizes[1]
        + b"\n"
        + most
        + b"\n"
        + data[-draw.choice((10, 1200, 10**6)) :]
    )


def _riff(draw: Random, data: bytes) -> bytes:
    chunk = draw.choice((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "))
    body = draw.choice(
        (draw.randbytes(10), struct.pack("<I", draw.choice((2, 16, 62))) + draw.randbytes(6), data[20:60], bytes(10**6))
    )
    inner = draw.choice((data[12:], b"")) + draw.choice((b"", data[12:]))
    inner = draw.choice(
        (chunk + struct.pack("<I", draw.choice((len(body), 0, 2**32 - 1))) + body + inner, inner + chunk + body)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"WEBP" + inner


Change = Callable[[Random, bytes], bytes]
_OWN: dict[str, tuple[tuple[str, Change], ...]] = {
    "PNG": (("header", _png_header), ("chunk", _png_chunk), ("chunk", _png_chunk)),
    "JPEG": (("segment", _jpeg_segment), ("segment", _jpeg_segment), ("size", _jpeg_size)),
    "TIFF": (("entry", _tiff_entry), ("entry", _tiff_entry), ("entry", _tiff_entry)),
    "GIF": (("header", _header_number),),
    "BMP": (("header", _header_number),),
    "DIB": (("header", _header_number),),
    "WEBP": (("header", _header_number), ("riff", _riff)),
    "PPM": (("header", _ppm_header),),
}


def _work(draw: Random) -> tuple[str, bytes]:
    """A few kilobytes that ask for much work, up to what is allowed and beyond."""
    how = draw.choice(("flat PNG", "flat WEBP", "flat GIF", "scans", "runs", "flat TIFF", "flat JPEG"))
    side = draw.choice((2000, 5000, 7000, 8900))
    if how == "scans":
        whole = photo_bytes(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
        last = whole[whole.rindex(b"\xff\xda") : -2]
        place = whole.index(b"\xff\xc2") + 5
        whole = whole[:place] + struct.pack(">HH", side, side) + whole[place + 4 :]
        return f"{how} {side}", whole[:-2] + last * draw.choice((10, 40, 2000)) + b"\xff\xd9"
    if how == "runs":
        body = draw.choice((b"\1\1\0\0", b"\0\0", b"\0\2\1\1")) * draw.choice((300, 100_000))
        header = struct.pack("<IiiHHIIiiII", 40, side * 8, 300, 1, 8, 1, len(body), 0, 0, 256, 0)
        return f"{how} {side}", b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + bytes(1024) + body
    buffer = io.BytesIO()
    kind = how.split()[1]
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    Image.new("L" if kind == "GIF" else "RGB", (side, side)).save(buffer, kind, **options)
    return f"{how} {side}", buffer.getvalue()
