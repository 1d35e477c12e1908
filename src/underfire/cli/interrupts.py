"""Being stopped from outside is being stopped by hand."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Inside the block SIGTERM does what Ctrl-C does, so that unfinished files are removed."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible(left: str) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block alike, and the message says what is ``left``."""
    try:
        with sigterm_as_interrupt():
            yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"Interrupted. {left}") from stop
