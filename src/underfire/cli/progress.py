"""How work comes along, on stderr: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from underfire.auditing.plan import AuditPlan, Unit
from underfire.auditing.progress import Eta
from underfire.auditing.unit import Event
from underfire.present.text import plural

_SILENCE = 30.0  # seconds without a line that a reader of a log should not have to bear


class Display:
    """A console and, as long as it is needed, a live bar on it; a context manager, which takes the bar away."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


class ProgressDisplay(Display):
    """Shows the parts and the time that is left; a `Listener` of the runner."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._eta: Eta | None = None
        self._said = self._began
        self._parts = self._finished = 0

    def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:
        """Says how much there is to do."""
        self._eta = Eta(plan, todo)
        self._began = time.monotonic()
        self._parts, self._finished = len(todo) + finished, finished
        photos = sum(len(unit.photos) for unit in todo)
        before = f", {finished} of {self._parts} parts are there already" if finished else ""
        self._console.print(
            f"{plural(photos, 'photo')}, {plural(len(plan.conditions), 'condition')}, "
            f"{plural(len(plan.interpreters), 'interpreter')}{before}"
        )
        for reason in plan.left_out:
            self._console.print(f"Left out: {reason}")
        if self._console.is_terminal and todo:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.add_task(self._line(""), total=1.0)
            self._bar.start()

    def advanced(self, event: Event) -> None:
        """Moves the bar on, or prints a line when a part is finished and otherwise now and then."""
        if self._eta is None:
            return
        self._eta.advance(event)
        self._finished += event.condition is None
        if self._bar:
            doing = str(event.condition or "")
            self._bar.update(self._bar.task_ids[0], completed=self._eta.share, description=self._line(doing))
        elif event.condition is None or time.monotonic() - self._said >= _SILENCE:
            self._said = time.monotonic()
            self._console.print(self._line(str(event.condition or "")))

    def _line(self, last: str) -> str:
        elapsed = time.monotonic() - self._began
        remaining = self._eta.remaining(elapsed) if self._eta else None
        words = [f"part {self._finished}/{self._parts}", f"{clock(elapsed)} elapsed"]
        if remaining is not None:
            words.append(f"about {clock(remaining)} left")
        return ", ".join([*words, *([f"{last} done"] if last else [])])


class PhotosDisplay(Display):
    """Shows how many of ``count`` photos are done, and the time that is left.

    Args:
        console: to print on.
        count: photos in all, at least 1.

    Attributes:
        done: how many are.
    """

    def __init__(self, console: Console, count: int) -> None:
        super().__init__(console)
        self._count, self.done, self._said = count, 0, -_SILENCE  # the first estimate is said at once

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=self._console, transient=True)
            self._bar.add_task(f"photo 0/{self._count}", total=self._count)
            self._bar.start()
        return self

    def advanced(self, photos: int) -> None:
        """Moves the bar on by ``photos``, or prints a line for the first, for the last and otherwise now and then."""
        self.done += photos
        elapsed = time.monotonic() - self._began
        left = elapsed / self.done * (self._count - self.done)
        line = f"photo {self.done}/{self._count}, {clock(elapsed)} elapsed, about {clock(left)} left"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self.done, description=line)
        elif self.done == self._count or elapsed - self._said >= _SILENCE:
            self._said = elapsed
            self._console.print(line)


def clock(seconds: float) -> str:
    """``seconds`` as 1:05 or 2:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
