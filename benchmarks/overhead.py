"""``python -m benchmarks.overhead``: what of an audit is no pass of the model, and whether its memory stays flat.

The time of a pass is what the model's own forward pass takes and what :func:`torch.autograd.grad` takes. All else is
overhead: reading and writing files, the loop's arithmetic between passes, the report. Seconds are of the CPU, so that
what else the machine does has little part in them. With ``--profile`` the functions that took longest are listed.
"""

import cProfile
import pstats
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import click
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import underfire as uf
from benchmarks.header import header
from benchmarks.memory import resident
from benchmarks.tables import Table
from underfire import Classifier, load_classifier
from underfire.auditing.plan import AuditPlan, Unit
from underfire.auditing.unit import Event

LIMIT = 0.05
"""The share of all seconds that overhead may take."""

FLAT = 1.05
"""Memory is flat if its median in the last quarter is at most so many times that in the second."""

FEWEST = 8
"""Parts, for this to be told."""

_MEBIBYTE = 2**20


class Passes:
    """Seconds within the model's passes, while `counted`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth, self._since = 0, 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside the block what modules and derivatives take is added up, on a device that does not run ahead."""
        derivative = torch.autograd.grad

        def grad(*args: Any, **options: Any) -> Any:
            self._enter()
            try:
                return derivative(*args, **options)
            finally:
                self._leave()

        # always_call: a pass that fails must not leave the clock running
        handles = [
            register_module_forward_pre_hook(lambda *_: self._enter()),
            register_module_forward_hook(lambda *_: self._leave(), always_call=True),
        ]
        try:
            with patch.object(torch.autograd, "grad", grad):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self) -> None:
        if not self._depth:
            self._since = time.process_time()
        self._depth += 1

    def _leave(self) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += time.process_time() - self._since


class Memory:
    """The resident memory in bytes at the end of every part: a listener of `underfire.audit`."""

    def __init__(self) -> None:
        self.parts: list[int] = []

    def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:
        """The parts are all still to do."""

    def advanced(self, event: Event) -> None:
        """A part's file is written."""
        if event.condition is None:
            self.parts.append(resident("VmRSS"))

    @property
    def growth(self) -> float:
        """The median of the last quarter of the parts over that of the second quarter; the first warms up."""
        quarter = len(self.parts) // 4
        early, late = self.parts[quarter : 2 * quarter], self.parts[-quarter:]
        return median(late) / median(early)


@dataclass(frozen=True)
class Measured:
    """What an audit took.

    Attributes:
        photos: how many were attacked.
        seconds: of the CPU, in all.
        passes: of these, within passes of the model.
        wall: seconds by the clock.
        memory: at the end of each part.
    """

    photos: int
    seconds: float
    passes: float
    wall: float
    memory: Memory

    @property
    def share(self) -> float:
        """Of the seconds, what is overhead."""
        return 1 - self.passes / self.seconds


def measured(classifier: Classifier, photos: Path | None, settings: Mapping[str, Any]) -> Measured:
    """Audit ``photos`` with ``settings`` and write the report."""
    passes, memory = Passes(), Memory()
    with tempfile.TemporaryDirectory() as made:
        wall, began = time.perf_counter(), time.process_time()
        with passes.counted():
            run = uf.audit(classifier, photos, out=Path(made) / "run", listener=memory, **settings)
            run.report()
        took = time.process_time() - began, passes.seconds, time.perf_counter() - wall
        return Measured(len(run.attacked), *took, memory)


def table(title: str, seen: Measured) -> Table:
    """What was ``seen``, with the verdicts."""
    share, overhead = seen.share, seen.seconds - seen.passes
    rows = [
        ("overhead, share of the seconds", f"{share:.3f}", f"at most {LIMIT}", _met(share <= LIMIT)),
        ("overhead, seconds a photo", f"{overhead / seen.photos:.3f}", "", ""),
        ("seconds of the CPU, by the clock", f"{seen.seconds:.0f}, {seen.wall:.0f}", "", ""),
    ]
    if len(seen.memory.parts) >= FEWEST:
        grown = seen.memory.growth
        rows += [
            ("memory, last quarter / second quarter", f"{grown:.3f}", f"at most {FLAT}", _met(grown <= FLAT)),
            ("memory at the end, MiB", f"{seen.memory.parts[-1] / _MEBIBYTE:.0f}", "", ""),
        ]
    note = "Overhead is what is spent neither in the model's forward pass nor in torch.autograd.grad, report included."
    return Table(title, ("", "found", "wanted", "target"), rows, [note])


def _met(yes: bool) -> str:
    return "met" if yes else "missed"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="efficientnet-lite0", show_default=True, help="As for `underfire audit`.")
@click.option("--input-size", type=click.IntRange(1), help="Of a model that does not tell.")
@click.option("--interpreters", default="cam", show_default=True, help="Comma-separated.")
@click.option("--passes", type=click.IntRange(1), help="Of every attack; by default the preset quick's.")
@click.option("--limit", type=click.IntRange(1), help="At most so many photos.")
@click.option("--batch-size", type=click.IntRange(1), default=4, show_default=True, help="Photos in a part.")
@click.option("--profile", "wanted", is_flag=True, help="List where the seconds are spent; profiling adds to them.")
def main(
    photos: Path | None,
    model: str,
    input_size: int | None,
    interpreters: str,
    passes: int | None,
    limit: int | None,
    batch_size: int,
    wanted: bool,
) -> None:
    """Audit PHOTOS, the built-in ones by default, and print the shares."""
    click.echo(header())
    classifier = load_classifier(model, input_size=input_size)
    settings = {"interpreters": interpreters.split(","), "passes": passes, "limit": limit, "batch_size": batch_size}
    profile = cProfile.Profile()
    with profile if wanted else nullcontext():
        seen = measured(classifier, photos, settings)
    click.echo(table(f"Overhead of an audit ({model}, {interpreters}, {seen.photos} photos attacked)", seen))
    if wanted:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
