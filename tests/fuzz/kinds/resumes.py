"""Run directories as killed processes leave them: a model checker in miniature of going on with an audit.

Killed is at any change of the file system, the ones that clean up included, as by SIGKILL or a power cut; sizes,
shards
and stops are drawn. Now and then it is two processes of their own, one of them killed by the clock. What goes on from
there must end with the rows of an audit that nobody disturbed, and leave nothing else.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from click.testing import CliRunner

from fuzz.case import Case, Ended, Originals
from fuzz.kinds.originals import FAST, MANY, UNDISTURBED
from support.toy_photos import MODEL_OPTIONS, leftovers, rows_of
from underfire.cli import cli

_CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"})
_MOST_SECONDS = 60  # of the processor, after which a process that was forked ends itself
_STRANGER = 4_000_000  # beyond all numbers of processes


class Killed(BaseException):
    """What a killed process does not see."""


class _Killer:
    """An audit hook, of which there can be no fewer: after ``left`` changes below ``place`` every further one fails."""

    def __init__(self) -> None:
        self.place: str | None = None
        self.left = 0
        self.installed = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.place is None:
            return
        opened = event == "open" and arguments[1] is not None and set("wax+") & set(str(arguments[1]))
        if opened or event in _CHANGES:
            path = str(arguments[0])
            if os.path.isabs(path) and not path.startswith(self.place):  # noqa: PTH117 - of what may be no path
                return
            self.left -= 1
            if self.left < 0:
                raise Killed


_KILLER = _Killer()


@contextmanager
def _killed_after(changes: int, place: Path) -> Iterator[None]:
    if not _KILLER.installed:
        sys.addaudithook(_KILLER.hook)
        _KILLER.installed = True
    _KILLER.place, _KILLER.left = str(place), changes
    try:
        yield
    except Killed:
        pass
    finally:
        _KILLER.place = None


def resumes(draw: Random, home: Path, originals: Originals) -> Case:
    """A half-done audit, and the commands that go on with it, a shard each."""
    limit, batch, shards = draw.randint(1, 6), draw.choice((1, 2, 3, 8)), draw.choice((1, 1, 2, 3))

    def command(shard: int) -> tuple[str, ...]:
        options = (
            "--limit",
            str(limit),
            "--batch-size",
            str(batch),
            "--shard",
            f"{shard}/{shards}",
            "--out",
            str(home / "run"),
        )
        return ("audit", str(originals.path / MANY), *MODEL_OPTIONS, *FAST, *options)

    told = [f"{limit} photos, batches of {batch}, {shards} shards"]
    for _ in range(draw.choice((1, 1, 2, 3))):
        shard = draw.randint(1, shards)
        if draw.random() < 0.1:
            other = draw.randint(1, shards)
            told.append(f"shards {shard} and {other} together")
            _together([command(shard), command(other)], draw.choice((None, 0.05, 0.2, 0.5)))
        else:
            changes = int(2 ** draw.uniform(0, 6.5)) - 1
            told.append(f"shard {shard} killed at change {changes}")
            with _killed_after(changes, home):
                CliRunner().invoke(cli, command(shard))
            _as_of_another(draw, home / "run")
    commands = tuple(map(command, draw.sample(range(1, shards + 1), shards)))

    def wrong(_: tuple[Ended, ...]) -> str | None:
        photos = {row.image_id for row in rows_of(home / "run")}
        undisturbed = [row for row in rows_of(originals.path / UNDISTURBED) if row.image_id in photos]
        if rows_of(home / "run") != undisturbed or not 1 <= len(photos) <= limit:
            return "other rows than those of an undisturbed audit"
        left = leftovers(home / "run")
        return f"left over: {left}" if left else None

    return Case(", ".join(told), commands, wrong, (0,))


def _as_of_another(draw: Random, run: Path) -> None:
    """Files that were not whole are those of a process with another number, and may be cut."""
    for path in leftovers(run):
        if path.is_file():
            if draw.random() < 0.5:
                path.write_bytes(path.read_bytes()[: draw.randrange(100)])
            path.rename(path.with_name(path.name.replace(str(os.getpid()), str(_STRANGER))))


def _together(commands: Sequence[tuple[str, ...]], seconds: float | None) -> None:
    """Each in a process of its own, at once; after ``seconds`` the first is killed."""
    processes = []
    for command in commands:
        process = os.fork()
        if process == 0:
            signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
            CliRunner().invoke(cli, command)
            os._exit(0)
        processes.append(process)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(processes[0], signal.SIGKILL)
    for process in processes:
        os.waitpid(process, 0)
