"""Files of somebody else's, read without waiting and without a traceback."""

import os
import socket
from pathlib import Path

import pytest

from underfire.errors import InputError
from underfire.files import check_tree, open_regular_file, parsed_json, read_regular_file, write_whole


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"^it is a pipe, a socket or a device, not a file$"):
        read_regular_file(tmp_path / "pipe", limit=10)


def test_a_file_within_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert read_regular_file(path, limit=10) == b"0123456789"
    with pytest.raises(InputError, match="larger than"):
        read_regular_file(path, limit=9)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "it is not UTF-8 text"),
        (b"{,}", "it is no JSON: "),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "it holds a number of thousands of digits"),
    ],
)
def test_json_that_nobody_can_read_is_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed_json(data)
    assert str(caught.value).startswith(reason)


def test_json_may_begin_with_a_byte_order_mark() -> None:
    assert parsed_json(b'\xef\xbb\xbf{"a": [1, null]}') == parsed_json('{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("mode", ["rb", "ab"])
def test_what_is_no_file_is_neither_waited_for_nor_opened(tmp_path: Path, mode: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"it is a pipe|it cannot be opened"):
        open_regular_file(tmp_path / "pipe", mode)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="it is a pipe, a socket or a device"):
        open_regular_file(Path(os.devnull), mode)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"it is a folder|Is a directory"):
        open_regular_file(tmp_path, mode)  # type: ignore[arg-type]


def test_bytes_are_those_of_a_file_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular_file(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(InputError, match="larger"):
        read_regular_file(tmp_path / "file", limit=4)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular_file(tmp_path / "link", limit=5) == b"12345"
    with pytest.raises(InputError, match="it is a link"):
        read_regular_file(tmp_path / "link", limit=5, follow_links=False)


def test_a_tree_of_files_and_folders_alone_is_accepted(tmp_path: Path) -> None:
    inner = tmp_path / "run" / "artifacts" / "00000-abcdef01"
    inner.mkdir(parents=True)
    (inner / "benign.png").write_bytes(b"x")
    (tmp_path / "here").symlink_to(tmp_path / "run")
    check_tree(tmp_path / "here")  # the user's own link, not one in what it leads to
    check_tree(tmp_path / "nowhere")
    (inner / "out.png").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"out\.png' cannot be used: it is a link"):
        check_tree(tmp_path / "run")
    (inner / "out.png").unlink()
    os.mkfifo(inner / "pipe\x1b[31m")
    with pytest.raises(InputError, match=r"pipe\\x1b\[31m' cannot be used: it is a pipe"):
        check_tree(tmp_path / "run")
    (inner / "pipe\x1b[31m").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inner / "s"))
        with pytest.raises(InputError, match="cannot be used: it is a pipe, a socket"):
            check_tree(tmp_path / "run")


def test_a_link_in_the_place_of_an_unfinished_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"theirs")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "file", b"ours")
    assert (tmp_path / "victim").read_bytes() == b"theirs"
    assert (tmp_path / "file").read_bytes() == b"ours"
