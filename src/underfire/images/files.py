"""Names and bytes of untrusted files."""

import os
import stat
from pathlib import Path

from underfire.errors import InputError

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


def read_regular_file(path: Path, *, limit: int) -> bytes:
    """The bytes of a regular file; links are followed.

    A FIFO or a device is opened without waiting for its other end, recognised and left alone, so that no file
    can hang a run.

    Raises:
        InputError: ``path`` is not a readable regular file of 1 to ``limit`` bytes. The message is the reason
            alone, a clause for the caller's sentence.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(kind_problem(status.st_mode))
            if status.st_size > limit:
                raise InputError(f"the file is larger than {limit // 2**20} MiB")
            data = file.read(status.st_size + 1)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(os_problem(error)) from error
    if not data:
        raise InputError("the file is empty")
    if len(data) != status.st_size:  # it grows while it is read, or is made up by the system, as in /proc
        raise InputError("the file does not have the size that it states")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def kind_problem(mode: int) -> str:
    """Why something that is not a regular file (``mode`` of its ``stat``) cannot be read."""
    if stat.S_ISDIR(mode):
        return "it is a folder, not a file"
    return "it is a pipe, a socket or a device, not a file"


def os_problem(error: OSError | ValueError) -> str:
    """Why a path could not be opened, in a clause without the path."""
    if isinstance(error, OSError):
        return f"it cannot be opened ({error.strerror or type(error).__name__})"
    return "its name cannot be the name of a file"  # a NUL, or a character the file system has no bytes for
