"""Many inputs of each kind in child processes with limits, and the table of how they ended."""

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.case import HELD, Kinds, Originals, Outcome, Verdict
from fuzz.trial import try_input

_PATIENCE = 12  # times the limit on an input that making it may take
_BEAT = 1.0  # seconds between looks at a child that says nothing
_ROOM = 8 * 2**30  # bytes of addresses beyond those at the start
_LIMITS = (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU)


@dataclass(frozen=True)
class Campaign:
    """What is tried.

    Attributes:
        kinds: by name.
        seed: of all inputs.
        seconds: of the processor's time that an input may take.
        folder: where inputs are made, and those that failed stay.
        originals: what is valid.
        prepare: makes the originals, in a child.
        idle: seconds in which an input that is no hang uses some of the processor's time, however many others do.
    """

    kinds: Kinds
    seed: int
    seconds: float
    folder: Path
    originals: Originals
    prepare: Callable[[Originals], None]
    idle: float = 60.0

    def run(self, kind: str, numbers: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
        """Each input of ``numbers``, and what came of it. A child that dies takes the blame for its input alone."""
        left = list(numbers)
        while left:
            for number, outcome in self._in_a_child(kind, tuple(left)):
                left.remove(number)
                yield number, outcome

    def make_originals(self) -> None:
        """In a child, so that this process has no threads when it forks others."""
        process = multiprocessing.get_context("fork").Process(target=self.prepare, args=(self.originals,))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError("the originals could not be made")

    def place(self, kind: str, number: int) -> Path:
        """The folder of an input."""
        return self.folder / f"{kind}-{self.seed}-{number}"

    def _in_a_child(self, kind: str, numbers: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self._work, args=(kind, numbers, sender))
        process.start()
        sender.close()
        for number in numbers:
            _wait(receiver, process.pid or 0, self.idle)
            try:
                outcome: Outcome | None = receiver.recv()
            except EOFError:
                process.join()
                yield number, _death(process.exitcode or 0, self.place(kind, number))
                return
            assert outcome is not None
            yield number, outcome
        process.join()

    def _work(self, kind: str, numbers: Sequence[int], sender: Connection) -> None:
        """In the child."""
        sys.dont_write_bytecode = True
        warnings.simplefilter("ignore")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders written in C speak there
        _limit_addresses()
        for number in numbers:
            folder = self.place(kind, number)
            shutil.rmtree(folder, ignore_errors=True)
            _limit_time(_PATIENCE * self.seconds)  # to make it
            try:
                outcome = try_input(
                    self.kinds[kind],
                    kind,
                    self.seed,
                    number,
                    folder,
                    self.originals,
                    made=partial(_limit_time, self.seconds),
                )
            except BaseException as error:  # noqa: BLE001 - of the campaign itself, or of nobody's
                outcome = Outcome(Verdict.CRASH, "?", "".join(traceback.format_exception(error))[-3000:])
            _limit_time(0)
            if outcome.verdict in HELD:
                shutil.rmtree(folder, ignore_errors=True)
            sender.send(outcome)
        sender.close()
        os._exit(0)  # what waits at an exit is the parent's


def _limit_time(seconds: float) -> None:
    """From now on so many of the processor's; 0 for any."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _wait(receiver: Connection, process: int, idle: float) -> None:
    """Until the child has something to say. What waits for ever uses no time of the processor, and is ended."""
    used, since = -1, 0.0
    while not receiver.poll(_BEAT):
        family = _ticks(process)
        if sum(family.values()) != used:
            used, since = sum(family.values()), time.monotonic()
        elif time.monotonic() - since > idle:
            for member in family or (process,):
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGALRM)


def _ticks(process: int) -> dict[int, int]:
    """The processor's time of a process and of those that it began, as Linux tells it; empty elsewhere."""
    told = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            told[int(file.parent.name)] = file.read_text().rpartition(")")[2].split()
    family = {process}
    while more := {pid for pid, fields in told.items() if int(fields[1]) in family} - family:
        family |= more
    return {pid: sum(map(int, told[pid][11:15])) for pid in family if pid in told}


def _limit_addresses() -> None:
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM,) * 2)


def _death(code: int, folder: Path) -> Outcome:
    """What is said of the input in ``folder``, which ended its process."""
    note = folder / "case.txt"
    told = note.read_text(encoding="utf-8").partition("\n")[0] if note.exists() else "?"
    if -code in _LIMITS:
        return Outcome(Verdict.HANG, told, signal.Signals(-code).name)
    return Outcome(Verdict.CRASH, told, f"the process ended with {code}")


COLUMNS = (Verdict.REFUSED, Verdict.ACCEPTED, Verdict.CRASH, Verdict.HANG, Verdict.SILENT, Verdict.HARM, Verdict.LARGE)


def table(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Kinds of input, how many were tried, how they ended, and the most memory that one took, as Markdown."""
    lines = [
        f"| input | tried | {' | '.join(COLUMNS)} | most memory |",
        f"|---{'|---:' * (len(COLUMNS) + 2)}|",
    ]
    everything = [outcome for outcomes in found.values() for outcome in outcomes]
    for kind, outcomes in {**found, "all": everything}.items():
        count = Counter(outcome.verdict for outcome in outcomes)
        cells = [count.total(), *(count[verdict] for verdict in COLUMNS)]
        most = max((outcome.bytes for outcome in outcomes), default=0)
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} | {most / 2**30:.2f} GB |")
    return "\n".join(lines)
