import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from support.pictures import photo_bytes, put
from underfire.images import Preprocessing, load_photo

SIZE = 8
RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def pixels(path: Path, data: bytes) -> Tensor:
    """``data`` decoded at its own size of 8×8, where resizing changes nothing."""
    return load_photo(put(path, data), Preprocessing(resize=SIZE, input_size=(SIZE, SIZE))).pixels


def rgb(red: int, green: int, blue: int) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8)[:, None, None].expand(3, SIZE, SIZE)


def within(actual: Tensor, expected: Tensor, levels: int) -> bool:
    return bool((actual.int() - expected.int()).abs().max() <= levels)


def test_what_comes_out(tmp_path: Path) -> None:
    data = photo_bytes(Image.fromarray(NOISE))
    loaded = load_photo(put(tmp_path / "a.png", data), Preprocessing(resize=SIZE, input_size=(SIZE, SIZE)))
    assert loaded.pixels.dtype == torch.uint8
    assert loaded.pixels.is_contiguous()
    assert torch.equal(loaded.pixels, torch.from_numpy(NOISE).permute(2, 0, 1))
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    assert loaded.original_size == (SIZE, SIZE)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_the_suffix_does_not_matter(tmp_path: Path, kind: str) -> None:
    data = photo_bytes(Image.fromarray(NOISE), kind)
    assert torch.equal(pixels(tmp_path / "a.jpg", data), torch.from_numpy(NOISE).permute(2, 0, 1))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats(tmp_path: Path, kind: str) -> None:
    data = photo_bytes(Image.new("RGB", (SIZE, SIZE), (200, 100, 50)), kind)
    assert within(pixels(tmp_path / "a", data), rgb(200, 100, 50), 6)


# Where the upright picture's pixel (row, column) lies in the stored one of n rows and m columns (EXIF 2.3, 4.6.4 A).
STORED_AT: dict[int, Callable[[int, int, int, int], tuple[int, int]]] = {
    1: lambda row, column, n, m: (row, column),
    2: lambda row, column, n, m: (row, m - 1 - column),
    3: lambda row, column, n, m: (n - 1 - row, m - 1 - column),
    4: lambda row, column, n, m: (n - 1 - row, column),
    5: lambda row, column, n, m: (column, row),
    6: lambda row, column, n, m: (n - 1 - column, row),
    7: lambda row, column, n, m: (n - 1 - column, m - 1 - row),
    8: lambda row, column, n, m: (column, m - 1 - row),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    path = put(tmp_path / "a.png", photo_bytes(Image.fromarray(stored), kind, exif=exif, **options))
    height, width = (6, 10) if orientation < 5 else (10, 6)
    loaded = load_photo(path, Preprocessing(resize=6, input_size=(height, width)))
    assert loaded.original_size == (width, height)
    place = STORED_AT[orientation]
    expected = [[stored[place(row, column, 6, 10)] for column in range(width)] for row in range(height)]
    assert np.array_equal(loaded.pixels.permute(1, 2, 0).numpy(), np.array(expected))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = photo_bytes(Image.fromarray(NOISE), exif=exif)
    assert torch.equal(pixels(tmp_path / "a.png", data), torch.from_numpy(NOISE).permute(2, 0, 1))


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_takes_nothing_from_the_picture(tmp_path: Path, exif: bytes) -> None:
    data = photo_bytes(Image.new("RGB", (SIZE, SIZE), (200, 100, 50)), "JPEG", exif=exif)
    assert within(pixels(tmp_path / "a.jpg", data), rgb(200, 100, 50), 3)


@pytest.mark.parametrize("alpha", [0, 1, 77, 128, 254, 255])
def test_transparency_is_laid_on_white(tmp_path: Path, alpha: int) -> None:
    def laid(value: int) -> int:
        return round((value * alpha + 255 * (255 - alpha)) / 255)

    data = photo_bytes(Image.new("RGBA", (SIZE, SIZE), (200, 100, 0, alpha)))
    assert torch.equal(pixels(tmp_path / "rgba.png", data), rgb(laid(200), laid(100), laid(0)))
    data = photo_bytes(Image.new("LA", (SIZE, SIZE), (90, alpha)))
    assert torch.equal(pixels(tmp_path / "la.png", data), rgb(laid(90), laid(90), laid(90)))


def test_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([0, 0, 0, 10, 20, 30, 250, 240, 230])
    assert torch.equal(pixels(tmp_path / "p.png", photo_bytes(image)), rgb(10, 20, 30))
    assert torch.equal(pixels(tmp_path / "p.gif", photo_bytes(image, "GIF")), rgb(10, 20, 30))
    one = photo_bytes(image, transparency=1)
    assert torch.equal(pixels(tmp_path / "p1.png", one), rgb(255, 255, 255))
    each = photo_bytes(image, transparency=bytes([255, 51, 255]))  # a fifth of the colour, four of white
    assert torch.equal(pixels(tmp_path / "p2.png", each), rgb(206, 208, 210))


@pytest.mark.parametrize(
    ("mode", "color", "transparency"), [("RGB", (9, 8, 7), (9, 8, 7)), ("L", 9, 9), ("1", 1, 1), ("I;16", 9, 9)]
)
def test_one_transparent_color(
    tmp_path: Path, mode: str, color: int | tuple[int, ...], transparency: int | tuple[int, ...]
) -> None:
    image = Image.new(mode, (SIZE, SIZE), color)
    assert torch.equal(pixels(tmp_path / "a.png", photo_bytes(image, transparency=transparency)), rgb(255, 255, 255))


def test_grey_and_two_colors(tmp_path: Path) -> None:
    assert torch.equal(pixels(tmp_path / "l.png", photo_bytes(Image.new("L", (SIZE, SIZE), 9))), rgb(9, 9, 9))
    checks = Image.fromarray(np.indices((SIZE, SIZE)).sum(0) % 2 == 0)
    assert checks.mode == "1"
    expected = torch.from_numpy(np.array(checks)).to(torch.uint8).mul(255).expand(3, SIZE, SIZE)
    for kind in ("PNG", "TIFF", "PPM", "BMP"):
        assert torch.equal(pixels(tmp_path / "1.png", photo_bytes(checks, kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(tmp_path: Path, kind: str) -> None:
    values = np.concatenate([[0, 127, 128, 129, 255, 256, 257, 65534, 65535], RNG.integers(0, 65536, 55)])
    image = Image.fromarray(values.astype(np.uint16).reshape(SIZE, SIZE))
    expected = torch.from_numpy((values / 65535 * 255).round().reshape(SIZE, SIZE)).to(torch.uint8)
    assert torch.equal(pixels(tmp_path / "a.png", photo_bytes(image, kind)), expected.expand(3, SIZE, SIZE))


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (255, 0, 0, 0), (10, 60, 110, 0), (10, 60, 110, 90), (0, 0, 0, 255)])
def test_cmyk_without_a_profile(tmp_path: Path, ink: tuple[int, int, int, int]) -> None:
    *inks, black = ink
    expected = rgb(*(round((255 - each) * (255 - black) / 255) for each in inks))
    image = Image.new("CMYK", (SIZE, SIZE), ink)
    assert within(pixels(tmp_path / "a.tif", photo_bytes(image, "TIFF")), expected, 1)
    assert within(pixels(tmp_path / "a.jpg", photo_bytes(image, "JPEG", quality=100)), expected, 4)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
        data = photo_bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
        assert torch.equal(pixels(tmp_path / "a", data), rgb(255, 0, 0))


def test_a_phone_that_stores_two_pictures_in_one(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (SIZE, SIZE), color) for color in ((200, 0, 0), (0, 0, 200)))
    data = photo_bytes(first, "MPO", save_all=True, append_images=[second])
    assert within(pixels(tmp_path / "a.jpg", data), rgb(200, 0, 0), 3)


def _linear_grey_profile() -> bytes:
    """A profile whose grey 128 is half of white's light: sRGB 188 (IEC 61966-2-1: 1.055·0.502^(1/2.4) − 0.055)."""
    return _profile(b"GRAY", [(b"kTRC", b"curv\0\0\0\0\0\0\0\0"), (b"wtpt", _xyz(0.9642, 1.0, 0.8249))])


def _swapped_profile() -> bytes:
    """Adobe's way to test a viewer: a profile of sRGB in which red and green change places."""
    red, green, blue = _xyz(0.4360, 0.2225, 0.0139), _xyz(0.3851, 0.7169, 0.0971), _xyz(0.1431, 0.0606, 0.7141)
    curve = b"curv\0\0\0\0\0\0\0\x01\x02\x33\0\0"  # gamma 2.2
    tags = [(b"rXYZ", green), (b"gXYZ", red), (b"bXYZ", blue), (b"wtpt", _xyz(0.9642, 1.0, 0.8249))]
    return _profile(b"RGB ", tags + [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")])


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(round(value * 65536).to_bytes(4, "big") for value in values)


def _profile(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    """An ICC 2.4 display profile (ICC.1:2001-04, 6.1 and 6.2)."""
    name = b"swap\0"
    tags = [*tags, (b"desc", b"desc\0\0\0\0" + len(name).to_bytes(4, "big") + name + bytes(78))]
    place = 128 + 4 + 12 * len(tags)
    table, body = len(tags).to_bytes(4, "big"), b""
    for tag, value in tags:
        value += bytes(-len(value) % 4)
        table += tag + (place + len(body)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        body += value
    header = bytearray(128)
    header[0:4] = (place + len(body)).to_bytes(4, "big")
    header[8:12] = b"\x02\x40\0\0"
    header[12:24] = b"mntr" + space + b"XYZ "
    header[36:40] = b"acsp"
    header[68:80] = _xyz(0.9642, 1.0, 0.8249)[8:]
    return bytes(header) + table + body


def test_color_profiles(tmp_path: Path) -> None:
    photo = Image.new("RGB", (SIZE, SIZE), (250, 100, 130))
    data = photo_bytes(photo, icc_profile=_swapped_profile())
    assert within(pixels(tmp_path / "rgb.png", data), rgb(100, 250, 130), 4)
    grey = photo_bytes(Image.new("L", (SIZE, SIZE), 128), icc_profile=_linear_grey_profile())
    assert within(pixels(tmp_path / "l.png", grey), rgb(188, 188, 188), 2)


def test_a_color_profile_below_transparency(tmp_path: Path) -> None:
    photo = Image.new("RGBA", (SIZE, SIZE), (250, 20, 130, 51))
    data = photo_bytes(photo, icc_profile=_swapped_profile())
    assert within(pixels(tmp_path / "rgba.png", data), rgb(208, 254, 230), 2)


@pytest.mark.parametrize(
    "profile",
    [
        b"not a profile",
        _linear_grey_profile(),
        _swapped_profile()[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["rubbish", "for grey", "cut short", "sRGB"],
)
def test_profiles_that_change_nothing(tmp_path: Path, profile: bytes) -> None:
    data = photo_bytes(Image.fromarray(NOISE), icc_profile=profile)
    assert torch.equal(pixels(tmp_path / "a.png", data), torch.from_numpy(NOISE).permute(2, 0, 1))
