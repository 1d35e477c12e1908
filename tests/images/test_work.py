"""Files that ask for minutes of work or gigabytes are refused before they are decoded; photos are not."""

import errno
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from support.pictures import grey_ramp, photo_bytes, png_chunk, put
from underfire.errors import InputError, ShortageError
from underfire.images import Preprocessing, decode, load_photo, work

JPEG = photo_bytes(kind="JPEG")
PROGRESSIVE = photo_bytes(kind="JPEG", progressive=True)
SCANS = PROGRESSIVE.count(b"\xff\xda")
EOI = b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    """Of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def sized(jpeg: bytes, width: int, height: int) -> bytes:
    """``jpeg`` with another size in its header."""
    place = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def with_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive ``jpeg`` with its last scan as often as that it has ``count``."""
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * (count - SCANS) + EOI


def run_length_bmp(width: int, height: int) -> bytes:
    """A picture of ``height`` lines that end at once."""
    body = b"\1\1\0\0" * height
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + bytes(1024) + body


def tiff(entries: list[tuple[int, int, int, int]]) -> bytes:
    """A little-endian TIFF of 16 × 16 grey pixels with these (tag, type, count, value) besides."""
    plain = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    kept = [entry for entry in plain if entry[0] not in {tag for tag, *_ in entries}]
    table = b"".join(struct.pack("<HHLL", *entry) for entry in sorted([*kept, *entries]))
    return (
        b"II*\0" + struct.pack("<L", 264) + bytes(256) + struct.pack("<H", len(kept) + len(entries)) + table + bytes(4)
    )


TILED = tiff([(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 256)])
PNG = photo_bytes()

HOSTILE: dict[str, tuple[bytes, str]] = {
    "1000 scans": (with_scans(sized(PROGRESSIVE, 8000, 8000), 1000), "more than 62 scans of 64000000 pixels"),
    "arithmetic": (PROGRESSIVE.replace(b"\xff\xc2", b"\xff\xca", 1), "arithmetic coding"),
    "segments": (
        sized(JPEG, 8000, 8000)[:-2] + segment(0xFE, b"") * 100_000 + b"\xff\xda\0\2" * 99,
        "more than 100000 segments",
    ),
    "EXIF in pieces": (JPEG[:2] + segment(0xE1, b"Exif\0\0MM\0*") * 17 + JPEG[2:], "EXIF in too many pieces"),
    "long EXIF": (PNG[:33] + png_chunk(b"eXIf", b"MM\0*" + bytes(2**20)) + PNG[33:], "more EXIF than a photo has"),
    "P1": (b"P1\n#\n2 1\n0 1", "written as text"),
    "P2": (b"P2 2 1 9 0 1", "written as text"),
    "P3": (b"P3\t1 1 9 0 1 2", "written as text"),
    "run lengths": (run_length_bmp(250_000, 320), "8000000 pixels in a rare encoding"),
    "strips": (tiff([(273, 3, 2_000_000, 8)]), "has 2000000 numbers"),
    "orientation": (tiff([(274, 3, 10**8, 8)]), "has 100000000 numbers"),
    "tiles": (TILED, "tiles are of 60000 × 60000 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_long_is_refused_undecoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data, reason = HOSTILE[name]
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(InputError, match=reason):
        load_photo(put(tmp_path / "a.jpg", data), Preprocessing(resize=8, input_size=(8, 8)))


@pytest.mark.parametrize(
    "data",
    [
        b"P6 #" + b"x" * 5000 + b"\n1 1 255\n\0\0\0",
        b"P6 60 60 100\n" + bytes(3 * 60 * 60),
        PNG[:33] + png_chunk(b"teSt", b"") * 1000 + PNG[33:],
        JPEG[:2] + segment(0xFE, b"") * 1000 + JPEG[2:],
        JPEG[:2] + b"\xff\xe0\0\2" + b"\x11" * 5000 + JPEG[2:],
    ],
    ids=["comment", "pixels", "chunks", "segments", "junk"],
)  # fmt: skip
def test_a_file_is_read_in_so_many_pieces_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path = put(tmp_path / "a", data)
    load_photo(path, Preprocessing(resize=8, input_size=(8, 8)))
    monkeypatch.setattr(work, "MAX_READS", 1000)
    with pytest.raises(InputError, match="too many pieces"):
        load_photo(path, Preprocessing(resize=8, input_size=(8, 8)))


def opened(data: bytes) -> None:
    """What is judged of a photo before it is decoded."""
    work.check_before(data)
    with Image.open(work.MeteredBytes(data), formats=decode.FORMATS) as image:
        work.check_opened(image, data)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_large_photos_pass() -> None:
    opened(sized(JPEG, 10_000, 8_000))
    opened(sized(PROGRESSIVE, 10_000, 8_000))
    opened(with_scans(sized(PROGRESSIVE, 10_000, 8_000), 50))
    opened(photo_bytes(grey_ramp(200, 200).quantize(), "BMP"))
    opened(run_length_bmp(4000, 2000))
    opened(tiff([(37724, 7, 10**8, 8)]))  # layers of a photo, as bytes
    tiles = [(322, 4, 1, 256), (323, 4, 1, 256), (324, 4, 1, 8), (325, 4, 1, 256)]
    opened(tiff([(256, 4, 1, 9_900), (257, 4, 1, 8_000), *tiles]))
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        opened(photo_bytes(Image.new("RGB", (3000, 3000)), kind))


def test_a_webp_of_more_pixels_than_its_decoder_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MAX_WEBP_PIXELS", 24 * 16 - 1)
    for kind in ("PNG", "JPEG"):
        opened(photo_bytes(kind=kind))
    with pytest.raises(InputError, match="WebP of more than 383 pixels"):
        opened(photo_bytes(kind="WEBP"))


@pytest.mark.parametrize(
    "hidden",
    [
        lambda scans: PROGRESSIVE + scans,  # a film behind the picture, as phones put it there
        lambda scans: PROGRESSIVE[:2] + segment(0xE1, b"preview" + scans) + PROGRESSIVE[2:],
    ],
    ids=["behind", "preview"],
)
def test_scans_of_other_pictures_in_the_file_do_not_count(
    monkeypatch: pytest.MonkeyPatch, hidden: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(work, "MAX_SCANNED_PIXELS", SCANS * 24 * 16)
    opened(hidden(b"\xff\xda\0\2" * 100))
    with pytest.raises(InputError, match=f"more than {SCANS} scans"):
        opened(with_scans(PROGRESSIVE, SCANS + 1))


def test_reading_counts() -> None:
    file = work.MeteredBytes(bytes(10))
    assert (file.read(3), file.read(), file.reads) == (bytes(3), bytes(7), 2)
    assert isinstance(file, io.BytesIO)


def _no_memory(*_: object, **__: object) -> None:
    raise MemoryError


def _no_more_files(path: str, *_: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files", path)


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (ImageFile.ImageFile, "load", _no_memory),
        (decode, "prepared", _no_memory),
        (os, "open", _no_more_files),
    ],
)
def test_a_shortage_says_nothing_about_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, name: str, fault: Callable[..., None]
) -> None:
    path = put(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fault)
        with pytest.raises(ShortageError, match=f"'{path}' cannot be read for now"):
            load_photo(path, Preprocessing(resize=8, input_size=(8, 8)))
    load_photo(path, Preprocessing(resize=8, input_size=(8, 8)))


def test_a_decoder_that_calls_want_of_memory_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As libjpeg does."""
    path = put(tmp_path / "a.jpg", JPEG[:-100])
    with pytest.raises(InputError, match="cut short or damaged"):
        load_photo(path, Preprocessing(resize=8, input_size=(8, 8)))
    monkeypatch.setattr(decode, "_check_memory", _no_memory)
    with pytest.raises(ShortageError):
        load_photo(path, Preprocessing(resize=8, input_size=(8, 8)))
