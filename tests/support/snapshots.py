"""Snapshots of words: one file per page, ``snapshots/NAME.md`` beside the test that asks for it.

With ``UPDATE_SNAPSHOTS=1`` in the environment they are written instead of compared; read what changed before you commit
it.
"""

import os
import re
import textwrap
from pathlib import Path

UPDATE = "UPDATE_SNAPSHOTS"
_WIDTH = 120


def check_snapshot(test_file: str, name: str, words: str, *, measured: bool = False) -> None:
    """Compares ``words`` with the snapshot ``name`` of the tests in the folder of ``test_file`` (their ``__file__``).

    The fractions and counts of words that tell what was ``measured`` by an attack are left out: they depend on the
    machine, and the tests assert the numbers themselves. Paragraphs are filled to the width of a line, so that a
    changed sentence is a small difference. Lines that are no prose (headings, lists, tables) stay as they are.

    Raises:
        AssertionError: the words are others than in the snapshot, or there is none.
    """
    path = Path(test_file).parent / "snapshots" / f"{name}.md"
    if measured:
        words = re.sub(r"-?\d+\.\d+|(?<!\w)\d+(?= of \d)|\d+–\d+(?= %)", "#", words)
    filled = "\n".join(map(_filled, words.split("\n"))).strip() + "\n"
    if os.environ.get(UPDATE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(filled, encoding="utf-8")
        return
    assert path.is_file(), f"there is no snapshot {path}; run the test with {UPDATE}=1 to write it"
    # Compared as a whole, so that pytest shows the difference.
    assert filled == path.read_text(encoding="utf-8"), f"other words than in {path}; see {UPDATE} in {__file__}"


def _filled(line: str) -> str:
    prose = bool(line) and line[0] not in "#|-*!>"
    return textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False) if prose else line
