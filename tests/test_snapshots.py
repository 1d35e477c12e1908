"""The snapshots' own rules."""

from pathlib import Path

import pytest

from support.snapshots import UPDATE, check_snapshot

WORDS = "# A title\n\n" + "word " * 60 + "\n\n| a | b |\n\nThe end."


def test_a_snapshot_is_written_when_asked_and_compared_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_file = str(tmp_path / "test_page.py")
    monkeypatch.delenv(UPDATE, raising=False)
    with pytest.raises(AssertionError, match="there is no snapshot"):
        check_snapshot(test_file, "page", WORDS)
    monkeypatch.setenv(UPDATE, "1")
    check_snapshot(test_file, "page", WORDS)
    monkeypatch.delenv(UPDATE)
    check_snapshot(test_file, "page", WORDS)
    with pytest.raises(AssertionError, match="other words"):
        check_snapshot(test_file, "page", WORDS.replace("The end", "An end"))
    lines = (tmp_path / "snapshots" / "page.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# A title"
    assert max(map(len, lines)) <= 120
