"""Files: written whole or not at all, read as a stranger's, and named as a person can read them."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from underfire.errors import InputError

_SHORTAGE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
RUN_FILE = "run.json"
"""What describes an audit in its directory."""

OUTPUT_MARK = ".underfire"
"""Marks a folder of pictures that underfire made."""

_RUN_HEAD = 2**22  # bytes of a run.json until its version comes: the command line before it may name many photos
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


def open_regular_file(path: Path, mode: Literal["rb", "ab"] = "rb") -> BinaryIO:
    """Opens a regular file; links are followed, see `check_tree`.

    A FIFO or a device is opened without waiting for its other end, recognised and left alone, so that no file
    can hang a run.

    Raises:
        InputError: ``path`` cannot be opened, or is something else. The message is the reason alone, a clause for the
            caller's sentence.
    """
    try:
        file = open(path, mode, opener=_open_without_waiting)  # noqa: SIM115 - the caller's to close
    except (OSError, ValueError) as error:
        raise InputError(os_problem(error)) from error
    kind = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(kind):
        file.close()
        raise InputError(kind_problem(kind))
    return file


def read_regular_file(path: Path, *, limit: int, follow_links: bool = True) -> bytes:
    """The bytes of a regular file, opened as `open_regular_file` does.

    Raises:
        InputError: ``path`` is not a readable regular file of 1 to ``limit`` bytes, or a link and ``follow_links`` is
            false. The message is the reason alone, a clause for the caller's sentence.
    """
    if not follow_links and path.is_symlink():
        raise InputError("it is a link")
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise InputError(f"the file is larger than {limit // 2**20} MiB")
        try:
            data = file.read(size + 1)
        except OSError as error:
            raise InputError(os_problem(error)) from error
    if not data:
        raise InputError("the file is empty")
    if len(data) != size:  # it grows while it is read, or is made up by the system, as in /proc
        raise InputError("the file does not have the size that it states")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def kind_problem(mode: int) -> str:
    """Why something that is not a regular file (``mode`` of its ``stat``) cannot be read."""
    if stat.S_ISDIR(mode):
        return "it is a folder, not a file"
    if stat.S_ISLNK(mode):
        return "it is a link"
    return "it is a pipe, a socket or a device, not a file"


def is_shortage(error: BaseException) -> bool:
    """Whether ``error`` is for want of memory or open files: it says nothing about the file that was read."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGE)


def os_problem(error: OSError | ValueError) -> str:
    """Why a path could not be opened, in a clause without the path; raises a shortage again."""
    if is_shortage(error):
        raise error
    if isinstance(error, OSError):
        return f"it cannot be opened ({error.strerror or type(error).__name__})"
    return "its name cannot be the name of a file"  # a NUL, or a character the file system has no bytes for


def check_tree(folder: Path) -> None:
    """Refuses ``folder``, which others may have filled, if anything in it is neither a file nor a folder.

    What is written to, or deleted in, a folder without links stays in it. The folder itself may be a link, and need
    not exist.

    Raises:
        InputError: it holds a link, a pipe, a socket or a device, or a folder of it cannot be listed.
    """
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        problem = kind_problem(entry.stat(follow_symlinks=False).st_mode)
                        raise InputError(
                            f"{quoted(entry.path)} cannot be used: {problem}; delete it, or put a copy in its place"
                        )
        except FileNotFoundError:
            continue  # a folder that another process, at work in it, has just finished or swept
        except OSError as error:
            raise InputError(f"{quoted(error.filename)} cannot be listed ({error.strerror})") from error


def parsed_json(data: bytes | str) -> Any:
    """What the JSON text ``data``, UTF-8 with or without a byte order mark, says; whatever it is.

    Raises:
        InputError: it is no JSON, or nested deeper or with longer numbers than can be read. The message is the reason
            alone, a clause for the caller's sentence.
    """
    try:
        return json.loads(data.decode("utf-8-sig") if isinstance(data, bytes) else data)
    except UnicodeDecodeError as error:
        raise InputError("it is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise InputError(f"it is no JSON: {error}") from error
    except ValueError as error:
        raise InputError("it holds a number of thousands of digits") from error
    except RecursionError as error:
        raise InputError("it is nested too deeply") from error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refused(error: OSError) -> str:
    """The sentence for what a file system, or a stream, refused: the file, why, and what to do."""
    if error.errno is None:  # not the system's own: its words are all there is
        return str(error) or type(error).__name__
    where = "a file" if error.filename is None else quoted(error.filename)
    why = error.strerror
    if error.errno in _FULL:
        return f"{where} cannot be written ({why}); free some space, then give the same command again: it goes on"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where} cannot be opened or written ({why}); give another place, or the right to it"
    return f"{where} cannot be used ({why}); mend that, then give the same command again"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError in the block names ``path``: one of a write names no file, one of an unfinished file another."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # the system's own
            error.filename = str(path)
        raise


def make_output(folder: Path) -> None:
    """Makes ``folder``, for pictures of ours; if it holds nothing else, a hidden file marks it as no photos.

    Raises:
        OSError: the disk refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / OUTPUT_MARK).write_text("What lies here was made by underfire, which never takes it for photos.\n")


def is_output(folder: Path) -> bool:
    """Whether underfire wrote ``folder``: it is marked as `make_output` does, or the directory of an audit."""
    if (folder / OUTPUT_MARK).is_file():
        return True
    try:
        with open_regular_file(folder / RUN_FILE) as file:
            return b'"underfire_version":' in file.read(_RUN_HEAD)
    except InputError:
        return False


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
        with naming(path):
            unfinished.unlink(missing_ok=True)  # of a process that had the same number
            with unfinished.open("xb") as file:
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
