import json
import os
from pathlib import Path

import pytest

from underfire.errors import InputError
from underfire.models.class_names import MAX_FILE_BYTES, imagenet_names, read_class_names


def test_imagenet_names_are_in_the_order_of_sorted_synsets() -> None:
    names = imagenet_names()
    assert len(names) == 1000
    planted = {
        0: "tench",
        243: "bull mastiff",
        281: "tabby",
        340: "zebra",
        954: "banana",
        999: "toilet tissue",
    }
    assert {index: names[index] for index in planted} == planted


def test_imagenet_names_differ_even_where_letter_case_does_not_count() -> None:
    names = imagenet_names()
    assert len({name.casefold() for name in names}) == 1000
    assert (names[134], names[517]) == ("crane bird", "construction crane")
    assert (names[638], names[639]) == ("maillot", "maillot, tank suit")


@pytest.mark.parametrize(
    "text",
    [
        "dog\ncat\nold mouse\n",
        "dog\r\ncat\r\nold mouse\r\n\r\n",
        "\ufeffdog\ncat\nold mouse",
        '["dog", "cat", "old mouse"]',
        '\n {"2": "old mouse", "0": "dog", "1": "cat"}',
        '{"0": ["n02084071", "dog"], "1": ["n02121808", "cat"], "2": ["n02330245", "old mouse"]}',
        '{"old mouse": 2, "dog": 0, "cat": 1}',
        '{"classes": ["a"], "class_to_idx": {"dog": 0, "cat": 1, "old mouse": 2}}',
        '{"label2id": {"x": 0}, "hidden_size": 3, "id2label": {"0": "dog", "1": "cat", "2": "old mouse"}}',
    ],
    ids=[
        *("lines", "windows", "byte order mark", "list", "object", "imagenet_class_index", "class_to_idx"),
        *("of a checkpoint", "config.json"),
    ],
)
def test_the_same_names_from_every_form_of_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(text.encode())
    assert read_class_names(file) == ("dog", "cat", "old mouse")
    assert read_class_names(str(file)) == ("dog", "cat", "old mouse")


def test_names_may_be_given_without_a_file() -> None:
    assert read_class_names(["dog", " cat "]) == ("dog", "cat")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\n", "no name in there"),
        (b"[]", "no name in there"),
        (b"dog\n\ncat\n", "the name of class 1 is ''"),
        (b'["dog", 7]', "the name of class 1 is a int"),
        (b'["dog", ' + b"[" * 900 + b"]" * 901, "the name of class 1 is a list"),
        (b'{"0": "dog", "1": {"2": "cat"}}', "the name of class 1 is a dict"),
        (b'{"dog": 0, "cat": 0}', "two names have the same index"),
        (b'{"dog": 0, "cat": 10000000000000000000000}', "none for index 1"),
        (b'{"id2label": ' * 900 + b"{}" + b"}" * 900, "the name of class|none for index 0"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "thousands of digits"),
        (b'{"0": "dog", "2": "cat"}', "none for index 1"),
        (b'["dog", ', "it is no JSON"),
        (b"caf\xe9\n", "not UTF-8"),
    ],
)
def test_unusable_files_are_refused_in_a_sentence_with_their_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_class_names(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt' cannot be used: it cannot be opened \(No such file"):
        read_class_names(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match=r"Is a directory|it is a folder, not a file"):
        read_class_names(tmp_path)


def test_a_pipe_a_device_and_a_huge_file_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    for path, says in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path / "huge", "64 MiB")):
        with pytest.raises(InputError, match=says):
            read_class_names(path)


def test_json_round_trip_of_imagenet(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps(imagenet_names()), encoding="utf-8")
    assert read_class_names(file) == imagenet_names()
