"""Standard output and error, which must not decide how a command ends, and what is said there beside the results."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from underfire.errors import InputWarning


class _Steady(io.FileIO):
    """A stream's bytes; they go nowhere once its reader is gone, or once it was said that they cannot be written."""

    lost = False

    def write(self, data: Any) -> int:
        """Writes ``data``; raises OSError, which names the stream, where a disk is full."""
        try:
            return len(data) if self.lost else super().write(data)
        except OSError as error:
            self.lost = True
            if not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, "standard output") from error
            return len(data)


def steady_streams() -> None:
    """Makes stdout and stderr take any text, in any encoding, and bear that their reader goes away."""
    sys.stdout, sys.stderr = _steady(sys.stdout), _steady(sys.stderr)


def _steady(stream: TextIO) -> TextIO:
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):  # closed by the caller, or one that was put in its place
        return stream
    if os.name != "posix" or not isinstance(stream, io.TextIOWrapper):  # a console of Windows has bytes of its own
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Steady(descriptor, "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def flush() -> None:
    """Writes what was printed; raises OSError where that fails."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Each `InputWarning` in the block is a line on stderr, once."""
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, InputWarning):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in told:
            told.add(str(message))
            click.echo(f"Warning: {message}", err=True)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show  # which puts back what was there
        warnings.simplefilter("always", InputWarning)
        yield
