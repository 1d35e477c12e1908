import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from support.pictures import grey_ramp, photo_bytes, png_with_header, put
from underfire.errors import InputError
from underfire.images import read_png, save_png
from underfire.images.png import read_pixels, read_pngs, read_shown

PER_TEST_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@PER_TEST_FOLDER
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_multiples_of_1_255_come_back_to_the_bit(tmp_path: Path, height: int, width: int, seed: int) -> None:
    values = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed))
    for dtype in (torch.float32, torch.float64):
        save_png(values.to(dtype) / 255, tmp_path / "a.png")
        assert torch.equal(read_png(tmp_path / "a.png"), values.float() / 255)


@PER_TEST_FOLDER
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_others_move_by_half_a_level_once(tmp_path: Path, height: int, width: int, seed: int) -> None:
    image = noise(height, width, seed)
    save_png(image, tmp_path / "a.png")
    once = read_png(tmp_path / "a.png")
    assert (once - image).abs().max() <= 0.5 / 255 + 1e-7
    save_png(once, tmp_path / "a.png")
    assert torch.equal(read_png(tmp_path / "a.png"), once)


def test_all_256_levels(tmp_path: Path) -> None:
    levels = (torch.arange(256) / 255).expand(3, 1, 256)
    save_png(levels, tmp_path / "levels.png")
    assert torch.equal(read_png(tmp_path / "levels.png"), levels)
    assert read_png(tmp_path / "levels.png").dtype == torch.float32


def test_channels_and_axes(tmp_path: Path) -> None:
    image = torch.zeros(3, 2, 3)
    image[0, 0, 2] = 1
    save_png(image.requires_grad_(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as png:
        assert png.format == "PNG"
        assert png.mode == "RGB"
        assert png.size == (3, 2)
        assert png.getpixel((2, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (torch.full((3, 2, 2), float("nan")), "go from nan to nan"),
        (torch.tensor([0.5, float("nan"), 0.5] * 4).reshape(3, 2, 2), "nan"),
        (torch.full((3, 2, 2), float("inf")), "go from inf to inf"),
        (torch.full((3, 2, 2), 1.0001), "1.0001|1 to 1"),
        (torch.full((3, 2, 2), -1e-6), "-1e-06"),
        (torch.full((3, 2, 2), 255.0), "255"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 3, 2, 2), r"\(1, 3, 2, 2\)"),
        (torch.zeros(2, 2, 3), r"\(2, 2, 3\)"),
        (torch.zeros(4, 2, 2), r"\(4, 2, 2\)"),
        (torch.zeros(3, 0, 2), r"\(3, 0, 2\)"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: Tensor, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        save_png(image, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save_png(noise(4, 4), path)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_png(noise(4, 4, seed=1), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_the_file_is_readable_as_the_umask_says(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        save_png(noise(4, 4), tmp_path / "a.png")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o644


@pytest.mark.parametrize("name", ["x" * 251 + ".png", '<b>&\n".png', "ä.png", "plain"])
def test_file_names_are_data(tmp_path: Path, name: str) -> None:
    save_png(torch.ones(3, 2, 2), tmp_path / name)
    assert torch.equal(read_png(tmp_path / name), torch.ones(3, 2, 2))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"text", "does not begin as one"),
        (photo_bytes(kind="JPEG"), "does not begin as one"),
        (photo_bytes(grey_ramp().convert("LA")), "colour type 4"),
        (photo_bytes(grey_ramp().convert("RGBA")), "colour type 6"),
        (photo_bytes(Image.fromarray(np.zeros((9, 9), np.uint16))), "bit depth 16 and colour type 0"),
        (photo_bytes(Image.effect_noise((64, 64), 90).convert("RGB"))[:-500], "truncated"),
        (png_with_header(9_000, 9_000), "9000 × 9000"),
        (png_with_header(90_000, 90_000), "90000 × 90000"),
    ],
)
def test_read_png_refuses_what_save_png_does_not_write(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=f"is not an 8-bit RGB or grey PNG that can be read: .*{problem}"):
        read_png(put(tmp_path / "a.png", data))


def test_read_png_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_png(tmp_path / "missing.png")


def test_pixels_of_another_size_are_refused_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.png", photo_bytes(grey_ramp(24, 16)))
    assert read_pixels(path, (3, 16, 24)).shape == (16, 24, 3)
    monkeypatch.setattr(Image, "open", None)  # no decoder sees the file
    with pytest.raises(InputError, match="24 × 16 pixels where 16 × 24 are expected"):
        read_pixels(path, (3, 24, 16))
    with pytest.raises(InputError, match="13000 × 13000 pixels"):
        read_pixels(put(tmp_path / "bomb.png", png_with_header(13_000, 13_000)), (3, 224, 224))
    with pytest.raises(InputError, match="does not begin as one"):
        read_pixels(put(tmp_path / "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop"), (3, 224, 224))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_pixels(put(tmp_path / "long.png", photo_bytes(grey_ramp(24, 16)) + bytes(2**20)), (3, 16, 24))


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "a.png", photo_bytes(grey_ramp(24, 16)))
    (tmp_path / "link.png").symlink_to("a.png")
    with pytest.raises(InputError, match="it is a link"):
        read_pixels(tmp_path / "link.png", (3, 16, 24))


def test_grey_pictures(tmp_path: Path) -> None:
    levels = torch.arange(256).reshape(1, 16, 16) / 255
    path = tmp_path / "grey.png"
    save_png(levels, path)
    with Image.open(path) as image:
        assert image.mode == "L"
    assert torch.equal(read_png(path), levels)
    assert read_pixels(path, (1, 16, 16)).shape == (16, 16, 1)
    assert np.array_equal(read_shown(path, (1, 16, 16)), np.arange(256).reshape(16, 16, 1).repeat(3, axis=2))
    expected = torch.arange(256, dtype=torch.float64).reshape(1, 1, 16, 16).expand(2, 1, 16, 16) / 255
    assert torch.equal(read_pngs([path, path], (1, 16, 16), torch.float64), expected)


def test_pictures_of_other_colours_are_refused_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey, colored = (put(tmp_path / f"{mode}.png", photo_bytes(grey_ramp().convert(mode))) for mode in ("L", "RGB"))
    monkeypatch.setattr(Image, "open", None)  # no decoder sees the file
    with pytest.raises(InputError, match=r"is not an 8-bit RGB PNG .* colour type 0 where 8 and 2 are expected"):
        read_pixels(grey, (3, 16, 16))
    with pytest.raises(InputError, match=r"is not an 8-bit grey PNG .* colour type 2 where 8 and 0 are expected"):
        read_pixels(colored, (1, 16, 16))
    for mode in ("1", "P"):
        with pytest.raises(InputError, match="it has bit depth"):
            read_png(put(tmp_path / "odd.png", photo_bytes(grey_ramp().convert(mode))))


def test_a_second_header_decides_nothing(tmp_path: Path) -> None:
    """Which Pillow would believe."""
    data = photo_bytes(grey_ramp(24, 16).convert("L"))
    second = photo_bytes(grey_ramp(24, 16))[8:33]
    with pytest.raises(InputError, match=r"it has two headers|cannot identify"):
        read_pixels(put(tmp_path / "two.png", data[:33] + second + data[33:]), (1, 16, 24))
