"""Nothing that lies in a folder or stands in a manifest stops a run, and nothing is dropped silently."""

import contextlib
import io
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.pictures import CLASSES, grey_ramp, photo_bytes, png_chunk, png_with_header, put
from underfire.errors import InputError
from underfire.images import Preprocessing, Skipped, find_photos, load_photo, work
from underfire.images import decode as decode_module
from underfire.images import manifest as manifest_module

Build = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """A pipe that is waited for ends the test, not the day."""
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good photo, beside a secret outside of it."""
    put(tmp_path / "secret.png")
    put(tmp_path / "photos" / "good.png")
    return tmp_path / "photos"


def run(*sources: Path | str) -> tuple[list[str], dict[str, str]]:
    """What an audit does with ``sources``: the photos that load, and all that is skipped with its reason."""
    found = find_photos(sources, class_names=CLASSES)
    loaded: list[str] = []
    skipped = list(found.skipped)
    for photo in found.photos:
        try:
            assert load_photo(photo.path, Preprocessing(resize=18, input_size=(16, 16))).pixels.shape == (3, 16, 16)
        except InputError as error:
            skipped.append(Skipped(photo.image_id, str(error)))
        else:
            loaded.append(photo.image_id)
    for item in skipped:
        (item.name + item.reason).encode()
        assert "\n" not in item.reason
        assert len(item.reason) < 700
    assert len({item.name for item in skipped}) == len(skipped)
    return loaded, {item.name: item.reason for item in skipped}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # From within: a socket's path is limited to some hundred bytes.
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def _link(target: str) -> Build:
    return lambda path: path.symlink_to(target)


def _file(data: bytes) -> Build:
    return lambda path: path.write_bytes(data)


def _folder_with(name: str) -> Build:
    return lambda path: put(path / name)


JPEG = photo_bytes(kind="JPEG")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
PNG = photo_bytes(NOISE)
FLOAT_TIFF = photo_bytes(Image.new("F", (20, 20), 0.5), "TIFF")
INT32_TIFF = photo_bytes(Image.new("I", (20, 20), 70000), "TIFF")
LAB_TIFF = photo_bytes(Image.new("LAB", (20, 20)), "TIFF")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PNG_WITHOUT_PIXELS = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", PNG[16:29]) + png_chunk(b"IEND", b"")
# An ordinary photo but for one figure of its header.
BOMB_GIF = (lambda gif: gif[:6] + b"\xff\xff\xff\xff" + gif[10:])(photo_bytes(grey_ramp(), "GIF"))

IN_A_FOLDER: list[tuple[str, Build, str]] = [
    ("empty.jpg", _file(b""), "empty"),
    ("text.jpg", _file(b"I am not a photo.\n" * 50), "not an image"),
    ("page.png", _file(b"<html><body>404</body></html>"), "not an image"),
    ("vector.png", _file(SVG), "not an image"),
    ("postscript.jpg", _file(POSTSCRIPT), "not an image"),
    ("pickle.png", _file(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "not an image"),
    ("half.jpg", _file(JPEG[: len(JPEG) // 2]), "cut short or damaged"),
    ("half.png", _file(PNG[: len(PNG) // 2]), "cut short or damaged"),
    ("half.webp", _file(photo_bytes(NOISE, "WEBP")[:-100]), "cut short or damaged"),
    ("half.gif", _file(photo_bytes(NOISE, "GIF")[:-500]), "cut short or damaged"),
    ("half.tif", _file(photo_bytes(NOISE, "TIFF")[:-500]), "cut short or damaged"),
    ("half.bmp", _file(photo_bytes(NOISE, "BMP")[:-500]), "cut short or damaged"),
    ("half.ppm", _file(photo_bytes(NOISE, "PPM")[:-500]), "cut short or damaged"),
    ("header-only.jpg", _file(JPEG[:4]), "not an image"),
    ("signature-only.png", _file(PNG[:8]), "not an image"),
    ("no-pixels.png", _file(PNG_WITHOUT_PIXELS), "cut short or damaged"),
    ("flipped.png", _file(PNG[:60] + bytes(255 - b for b in PNG[60:900]) + PNG[900:]), "damaged"),
    ("bomb.png", _file(png_with_header(50_000, 50_000)), "far more pixels, the limit being 80000000"),
    ("small-bomb.png", _file(png_with_header(9_000, 9_000)), "9000 × 9000 pixels"),
    ("strip-bomb.png", _file(png_with_header(1, 2**31 - 1)), "far more pixels"),
    ("strip.png", _file(png_with_header(1, 250_001)), "1 × 250001 pixels"),
    ("bomb.gif", _file(BOMB_GIF), "far more pixels"),
    ("no-width.png", _file(png_with_header(0, 10)), "not an image"),
    ("float.tif", _file(FLOAT_TIFF), "mode F"),
    ("int32.tif", _file(INT32_TIFF), "mode I"),
    ("lab.tif", _file(LAB_TIFF), "mode LAB"),
    ("folder.jpg", _folder_with("inside.png"), "folder, not a file"),
    ("pipe.jpg", _fifo, "pipe, a socket or a device"),
    ("socket.jpg", _socket, "pipe, a socket or a device"),
    ("device.jpg", _link("/dev/zero"), "leaves the folder"),
    ("process.jpg", _link("/proc/self/environ"), "leaves the folder"),
    ("nowhere.jpg", _link("missing.jpg"), "cannot be opened"),
    ("itself.jpg", _link("itself.jpg"), "cannot be opened"),
    ("outside.png", _link("../secret.png"), "leaves the folder"),
    ("round-about.png", _link("../photos/../secret.png"), "leaves the folder"),
    ("up", _link(".."), "link to a folder"),
    ("here", _link("."), "link to a folder"),
    ("twice.png", _link("good.png"), "same file as 'good.png'"),
    ("circle", _link("circle"), "cannot be opened"),
    ("readme.txt", _file(b"hello"), "does not end as a photo's does"),
    ("Thumbs.db", _file(b"\xd0\xcf\x11\xe0"), "does not end as a photo's does"),
    ("photo", _file(PNG), "does not end as a photo's does"),
    ("new\nline\x1b[31m.jpg", _file(b"x"), "not an image"),
    ("<script>alert('1')</script>.txt".replace("/", "∕"), _file(b"x"), "does not end"),
    ("x" * 250 + ".jpg", _file(b"x"), "not an image"),
]


@pytest.mark.parametrize(("name", "build", "reason"), IN_A_FOLDER, ids=[repr(row[0])[:30] for row in IN_A_FOLDER])
def test_what_lies_in_a_folder(folder: Path, name: str, build: Build, reason: str) -> None:
    build(folder / name)
    loaded, skipped = run(folder)
    assert loaded == ["good.png"]
    assert list(skipped) == [name]
    assert reason in next(iter(skipped.values()))


def test_all_of_it_at_once(folder: Path) -> None:
    for name, build, _ in IN_A_FOLDER:
        build(folder / name)
    loaded, skipped = run(folder)
    assert loaded == ["good.png"]
    assert len(skipped) == len(IN_A_FOLDER)


def test_names_that_are_not_utf8(folder: Path) -> None:
    bad, good = folder / os.fsdecode(b"bad-\xff.jpg"), folder / os.fsdecode(b"good-\xfe.png")
    put(bad, b"x")
    put(good)
    put(folder / r"good-\udcfe.png")  # reads as the other one's escape
    loaded, skipped = run(folder)
    assert set(loaded) == {"good.png", r"good-\udcfe.png", r"photos/good-\udcfe.png"}
    assert list(skipped) == [r"bad-\udcff.jpg"]


def test_hidden_names_are_ignored_quietly(folder: Path) -> None:
    put(folder / "._good.png", b"Mac OS")
    put(folder / ".DS_Store", b"Mac OS")
    put(folder / ".git" / "object.png")
    (folder / ".pipe.png").symlink_to("/dev/zero")
    assert run(folder) == (["good.png"], {})


def test_a_link_to_a_hidden_object_inside_counts(folder: Path) -> None:
    """As git-annex and DVC store large files."""
    put(folder / ".annex" / "9f86d081")
    (folder / "linked.png").symlink_to(".annex/9f86d081")
    assert run(folder) == (["good.png", "linked.png"], {})


def test_what_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a planted error: root, whom tests often run as, may read everything."""
    put(folder / "closed.png")
    put(folder / "cell" / "inmate.png")
    scandir, os_open = os.scandir, os.open

    def no_scandir(path: Path) -> object:
        if "cell" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def no_open(path: str, flags: int, *rest: int) -> int:
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return os_open(path, flags, *rest)

    monkeypatch.setattr(os, "scandir", no_scandir)
    monkeypatch.setattr(os, "open", no_open)
    loaded, skipped = run(folder)
    assert loaded == ["good.png"]
    assert set(skipped) == {"closed.png", "cell/"}
    assert all("Permission denied" in reason for reason in skipped.values())


def test_a_photo_that_becomes_a_pipe_does_not_hang(folder: Path) -> None:
    (found,) = find_photos([folder], class_names=CLASSES).photos
    found.path.unlink()
    os.mkfifo(found.path)
    with pytest.raises(InputError, match="pipe, a socket or a device"):
        load_photo(found.path, Preprocessing(resize=18, input_size=(16, 16)))


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/null", "/proc/self/status", "/", "/nowhere/at/all.jpg", "nul\0.jpg", "x" * 5000]
)
def test_load_photo_refuses_what_is_no_file(path: str) -> None:
    with pytest.raises(InputError, match="is not a usable photo"):
        load_photo(path, Preprocessing(resize=18, input_size=(16, 16)))


def test_a_file_above_the_limit_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_FILE_BYTES", 2**20)
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    _, skipped = run(folder)
    assert "larger than 1 MiB" in skipped["sparse.png"]


def test_the_pixel_limit_is_exact(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "good.png", photo_bytes(grey_ramp(24, 16)))
    monkeypatch.setattr(work, "MAX_PIXELS", 24 * 16)
    assert run(folder) == (["good.png"], {})
    monkeypatch.setattr(work, "MAX_PIXELS", 24 * 16 - 1)
    assert "24 × 16 pixels" in run(folder)[1]["good.png"]


def test_every_cut_of_a_jpeg_ends_well(folder: Path) -> None:
    """Whatever Pillow raises, and it raises many things, comes out as one sentence."""
    whole = photo_bytes(kind="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    for cut in range(1, len(whole), 7):
        put(folder / "cut.jpg", whole[:cut])
        loaded, skipped = run(folder)
        assert ("cut.jpg" in loaded) != ("cut.jpg" in skipped)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_flipped_bytes_end_well(folder: Path, kind: str) -> None:
    whole = photo_bytes(kind=kind)
    rng = np.random.default_rng(1)
    for _ in range(40):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        put(folder / "flipped.png", bytes(data))
        loaded, skipped = run(folder)
        assert ("flipped.png" in loaded) != ("flipped.png" in skipped)


# --- manifests ---------------------------------------------------------------------------------------------------

LONG = "y" * 200_000
CSV_LINES: list[tuple[str, str, str]] = [
    ("../secret.png,0", "../secret.png", "leaves the manifest's folder"),
    ("sub/../good.png,0", "sub/../good.png", "leaves the manifest's folder"),
    ("{root}/secret.png,0", "{root}/secret.png", "leaves the manifest's folder"),
    ("/dev/zero,0", "/dev/zero", "leaves the manifest's folder"),
    ("outside.png,0", "outside.png", "leaves the folder"),
    ("outside/secret.png,0", "outside/secret.png", "leaves the folder"),
    ("missing.png,0", "missing.png", "cannot be opened (No such file or directory)"),
    ("sub,0", "sub", "folder, not a file"),
    (".,0", ".", "folder, not a file"),
    ("pipe.png,0", "pipe.png", "pipe, a socket or a device"),
    ("empty.png,0", "empty.png", "empty"),
    ("nul\0.png,0", "nul\0.png", "cannot be the name of a file"),
    (",0", "labels.csv, line 3", "names no file"),
    ("other.png", "labels.csv, line 3", "1 cells where the header has 2"),
    ("other.png,0,1", "labels.csv, line 3", "3 cells where the header has 2"),
    ("other.png,5", "other.png", "class '5' is out of range: the classes are 0 to 4"),
    ("other.png,-1", "other.png", "class '-1' is out of range"),
    ("other.png," + "9" * 5000, "other.png", "is out of range"),
    ("other.png,1.5", "other.png", "no class named '1.5'"),
    ("other.png,unicorn", "other.png", "no class named 'unicorn'"),
    ("other.png,crane", "other.png", "any of the classes 2, 3"),
    ("other.png,١", "other.png", "no class named"),
    ("good.png,1", "good.png", "same file as 'good.png'"),
    ("./good.png,0", "good.png", "same file as 'good.png'"),
    ("link.png,0", "link.png", "same file as 'good.png'"),
    (f"{LONG},0", "labels.csv, line 3", "field larger than field limit"),
    (f"{LONG[:9000]}.png,0", LONG[:199] + "…", "File name too long"),
    ('"other.png"x,0', "labels.csv, line 3", "not CSV"),
    ('"other.png,0', "labels.csv, line 3", "not CSV"),
    ("<b>&amp;.png,0", "<b>&amp;.png", "cannot be opened"),
]


@pytest.fixture
def listed(folder: Path) -> Path:
    put(folder / "other.png")
    (folder / "sub").mkdir()
    (folder / "outside").symlink_to("..")
    (folder / "outside.png").symlink_to("../secret.png")
    (folder / "link.png").symlink_to("good.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "empty.png").touch()
    return folder


@pytest.mark.parametrize(("line", "name", "reason"), CSV_LINES, ids=[repr(row[0])[:30] for row in CSV_LINES])
def test_lines_of_a_csv_manifest(listed: Path, line: str, name: str, reason: str) -> None:
    root = str(listed.parent)
    (listed / "labels.csv").write_text(
        f"file_name,label\ngood.png,0\n{line.replace('{root}', root)}\n", encoding="utf-8"
    )
    loaded, skipped = run(listed)
    assert loaded == ["good.png"]
    assert list(skipped) == [name.replace("{root}", root)]
    assert reason in next(iter(skipped.values()))


JSON_LINES: list[tuple[str, str]] = [
    ("not json", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ("null", "not a JSON object"),
    ("[" * 100_000, "not JSON"),
    ('{"file_name": "other.png", "label": ' + "9" * 6000 + "}", "not JSON"),
    ('{"label": 0}', "no 'file_name'"),
    ('{"file_name": "other.png"}', "no 'label'"),
    ('{"file_name": 7, "label": 0}', "names no file"),
    ('{"file_name": "other.png", "label": true}', "neither a class index nor a class name"),
    ('{"file_name": "other.png", "label": 1.5}', "neither a class index nor a class name"),
    ('{"file_name": "other.png", "label": NaN}', "neither a class index nor a class name"),
    ('{"file_name": "other.png", "label": Infinity}', "neither a class index nor a class name"),
    ('{"file_name": "other.png", "label": [0]}', "neither a class index nor a class name"),
    ('{"file_name": "other.png", "label": 5}', "out of range"),
    ('{"file_name": "other.png", "label": -1}', "out of range"),
    ('{"file_name": "other.png", "label": 0, "target": 99}', "out of range"),
    ('{"file_name": "other.png", "label": 0, "target": "unicorn"}', "no class named"),
    (r'{"file_name": "a\u0000.png", "label": 0}', "cannot be the name of a file"),
    (r'{"file_name": "\ud800.png", "label": 0}', "cannot be the name of a file"),
]


@pytest.mark.parametrize(("line", "reason"), JSON_LINES, ids=[row[0][:60] for row in JSON_LINES])
def test_lines_of_a_json_manifest(listed: Path, line: str, reason: str) -> None:
    good = json.dumps({"file_name": "good.png", "label": 0})
    put(listed / "metadata.jsonl", f"{good}\n\n{line}\n".encode())
    loaded, skipped = run(listed)
    assert loaded == ["good.png"]
    assert len(skipped) == 1
    assert reason in next(iter(skipped.values()))
    assert "(line 3 of the manifest)" in next(iter(skipped.values()))


MANIFESTS: list[tuple[str, bytes, str]] = [
    ("labels.csv", b"", "file is empty"),
    ("labels.csv", b"\xff\xfef\0i\0l\0e\0", "not UTF-8"),
    ("labels.csv", "file_name,label\ngöd.png,0\n".encode("latin-1"), "not UTF-8"),
    ("labels.csv", b"file_name,label\n", "lists no photos"),
    ("labels.csv", b"file_name,text\ngood.png,nice\n", "one column label"),
    ("labels.csv", b"good.png,0\n", "begins with 'good.png,0'"),
    ("labels.csv", b"file_name,label,label\ngood.png,0,1\n", "one column label"),
    ("labels.csv", b"file_name;label\ngood.png;0\n", "begins with 'file_name;label'"),
    ("labels.csv", b"\n\n", "begins with"),
    ("labels.csv", PNG, "not UTF-8"),
    ("labels.csv", b"z" * 200_000, "not CSV"),
    ("metadata.jsonl", b"file_name,label\ngood.png,0\n", "lists no photos"),
    ("metadata.jsonl", b"\n\n", "lists no photos"),
]


@pytest.mark.parametrize(("name", "data", "reason"), MANIFESTS)
def test_manifests_that_are_none(folder: Path, name: str, data: bytes, reason: str) -> None:
    put(folder / name, data)
    for source in (folder, folder / name):
        with pytest.raises(InputError, match=name) as caught:
            find_photos([source], class_names=CLASSES)
        assert reason in str(caught.value)


def test_two_manifests_are_one_too_many(folder: Path) -> None:
    put(folder / "labels.csv", b"file_name,label\ngood.png,0\n")
    put(folder / "metadata.jsonl", b'{"file_name": "good.png", "label": 1}')
    with pytest.raises(InputError, match=r"labels\.csv and metadata\.jsonl"):
        find_photos([folder], class_names=CLASSES)
    assert find_photos([folder / "metadata.jsonl"], class_names=CLASSES).photos[0].label == 1


def test_a_manifest_above_the_limit_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "MAX_MANIFEST_BYTES", 2**20)
    with (folder / "labels.csv").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="larger than 1 MiB"):
        find_photos([folder], class_names=CLASSES)


@pytest.mark.parametrize("build", [_link("/etc/hostname"), _link("nowhere"), _fifo])
def test_a_manifest_that_is_a_trap(folder: Path, build: Build) -> None:
    build(folder / "labels.csv")
    with pytest.raises(InputError, match=r"labels\.csv"):
        find_photos([folder], class_names=CLASSES)


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere/a.jpg", "nul\0", "x" * 5000])
def test_sources_that_are_none(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"\.$"):
        find_photos([source], class_names=CLASSES)


def test_a_pipe_or_a_device_as_the_source_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    loaded, skipped = run(tmp_path / "pipe.csv", "/dev/zero")
    assert not loaded
    assert set(skipped) == {"pipe.csv", "zero"}
    assert stat.S_ISFIFO((tmp_path / "pipe.csv").stat().st_mode)


def test_a_deep_tree_does_not_end_the_run(folder: Path) -> None:
    with contextlib.chdir(folder):
        for _ in range(30):  # a path of 6000 characters, more than a system call takes
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
    loaded, skipped = run(folder)
    assert loaded == ["good.png"]
    assert len(skipped) == 1
    assert "File name too long" in next(iter(skipped.values()))


def test_global_state_of_pillow_is_left_alone(folder: Path) -> None:
    limit, warn = Image.MAX_IMAGE_PIXELS, io.BytesIO(png_with_header(9_500, 9_500))
    load_photo(folder / "good.png", Preprocessing(resize=18, input_size=(16, 16)))
    assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(warn)
