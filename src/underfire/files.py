"""Files that are there whole or not at all, and their names as a person can read them."""

import os
from pathlib import Path

_SHOWN = 200  # characters of a hostile name that a message or a report repeats


def printable(name: str | os.PathLike[str]) -> str:
    r"""``name`` as valid UTF-8: bytes that are none, which POSIX allows, are spelt out as ``\udcXX``."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str) -> str:
    """``text``, printable and not longer than a report can show."""
    text = printable(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def quoted(name: str | os.PathLike[str]) -> str:
    """``name`` within quotes for a sentence, control characters escaped, not longer than a line or two."""
    return repr(shortened(os.fspath(name)))


def write_whole(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``, whole or not at all, replacing what was there; its folder is made.

    What is written is ``.NAME.PID.tmp`` until it is whole. It outlives a power cut, where the system lets a folder be
    opened.

    Raises:
        OSError: the disk refused.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the replacement is one rename.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` last."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
