"""Keeping two processes from doing the same part of a run.

One lock file per run directory, one byte of it per unit: POSIX record locks hold between processes and
machines that share a file system, overlap exactly where two shards do, and vanish with their process, however
it ends.
"""

import errno
import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from underfire.errors import InputError
from underfire.files import naming, open_regular_file, quoted

_TAKEN = (errno.EACCES, errno.EAGAIN)  # POSIX leaves the choice to the system
_IN_THE_WAY = (errno.EISDIR, errno.ENXIO, errno.ELOOP)  # a folder, a pipe or socket, links in a circle
_HEADER = 0  # the byte for run.json and the report; unit n has byte n + 1


@contextmanager
def holding(path: Path, units: Iterable[int]) -> Iterator[None]:
    """Holds the locks of ``units`` for the length of the block.

    Raises `InputError` if another process has one of them, OSError if the file system refuses. A process must
    not open ``path`` otherwise meanwhile: closing any descriptor of a file drops all its record locks.
    """
    with _opened(path) as file:
        for unit in units:
            try:
                with naming(path):
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, unit + 1)
            except OSError as error:
                if error.errno not in _TAKEN:  # as on a file system without locks
                    raise
                raise InputError(
                    f"another process is working on part {unit} in {quoted(path.parent)}; "
                    "wait for it to end, or give this one another --shard"
                ) from error
        yield


@contextmanager
def describing(path: Path) -> Iterator[None]:
    """Holds, after waiting for it, the right to write what describes the whole run."""
    with _opened(path) as file:
        with naming(path):
            fcntl.lockf(file, fcntl.LOCK_EX, 1, _HEADER)
        yield


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular_file(path, "ab")
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in _IN_THE_WAY:  # as on a disk that is read-only
            raise cause from None
        raise InputError(f"the lock {quoted(path)} cannot be used: {error}; delete it") from error
