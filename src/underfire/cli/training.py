"""How a training comes along, on stderr: a live bar on a terminal, and a line for each epoch."""

import time
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from underfire.cli.progress import Display, clock
from underfire.training.scores import Score


class TrainingDisplay(Display):
    """Shows epochs, their scores and the time that is left; a `Listener` of the training."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._epochs = 0

    def began(self, epochs: int, finished: int, steps: int) -> None:
        """Says how much there is to do."""
        self._epochs = epochs
        if finished:
            self._console.print(f"Going on after epoch {finished} of {epochs}")
        if self._console.is_terminal and finished < epochs:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("training", total=epochs * steps, completed=finished * steps)
            self._bar.start()

    def stepped(self) -> None:
        """Moves the bar on."""
        if self._bar:
            self._bar.advance(self._bar.task_ids[0])

    def scored(self, epoch: int, score: Score) -> None:
        """Prints the epoch's line."""
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in asdict(score).items())
        self._console.print(f"epoch {epoch}/{self._epochs}, {clock(time.monotonic() - self._began)}: {numbers}")
