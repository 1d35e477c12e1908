"""Files of somebody else's, read without waiting and without a traceback."""

import os
from pathlib import Path

import pytest

from underfire.errors import InputError
from underfire.files import parsed_json, read_regular_file


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
