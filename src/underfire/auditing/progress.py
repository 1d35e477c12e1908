"""How long an audit will still take."""

import time
from collections import Counter
from collections.abc import Sequence

from underfire.auditing.condition import NONE, Condition
from underfire.auditing.plan import AuditPlan, Unit
from underfire.auditing.unit import Event
from underfire.display import NotebookBar
from underfire.interpreters.registry import passes_per_map, passes_per_step


class Eta:
    """Estimates the rest from what is done: a condition costs per photo what it has cost so far.

    A condition that has not been seen yet costs its passes, those of maps included, at the mean price of a pass: of
    attacks on the same interpreters, or else of all attacks, or else of all that was done. How many units are worked on
    at once does not matter: prices only weigh the work, and the clock tells the speed.
    """

    def __init__(self, plan: AuditPlan, todo: Sequence[Unit]) -> None:
        self._plan = plan
        self._left: Counter[Condition] = Counter()
        for unit in todo:
            self._left[NONE] += len(unit.photos)
            for condition in plan.conditions[1:]:
                self._left[condition] += sum(photo.excluded is None for photo in unit.photos)
        self._done: Counter[Condition] = Counter()
        self._seconds: dict[Condition, float] = {}

    def advance(self, event: Event) -> None:
        """Takes note of work that is done."""
        if event.condition is None:
            return
        self._left[event.condition] -= event.photos
        self._done[event.condition] += event.photos
        self._seconds[event.condition] = self._seconds.get(event.condition, 0.0) + event.seconds

    @property
    def share(self) -> float:
        """How much of the work is done, from 0 to 1."""
        done, left = self._weight(self._done), self._weight(self._left)
        return done / (done + left) if done + left else 1.0

    def remaining(self, elapsed: float) -> float | None:
        """Seconds still to go after ``elapsed`` seconds; None while nothing is known."""
        share = self.share
        return elapsed * (1 - share) / share if share else None

    def _weight(self, photos: Counter[Condition]) -> float:
        return sum(count * self._price(condition) for condition, count in photos.items())

    def _price(self, condition: Condition) -> float:
        if self._done[condition]:
            return self._seconds[condition] / self._done[condition]
        done = [known for known, count in self._done.items() if count]
        attacks = [known for known in done if not known.is_control]
        alike = [known for known in attacks if known.sources == condition.sources]
        rated = alike or attacks or done
        passes = sum(_passes(self._plan, known) * self._done[known] for known in rated)
        seconds = sum(self._seconds[known] for known in rated)
        return _passes(self._plan, condition) * (seconds / passes if passes else 1.0)


def _passes(plan: AuditPlan, condition: Condition) -> int:
    """About how many passes a photo takes under ``condition``: steps count as if all of them minded the map."""
    seen = 1 + sum(passes_per_map(name) or 1 for name in plan.interpreters)
    maps = seen if condition == NONE else 2 * seen  # of the image as computed and as saved
    effort = plan.effort_of(condition)
    if effort.passes is not None:
        return effort.passes + maps
    return (effort.steps or 0) * (passes_per_step(condition.source) or 1) + maps


class NotebookProgress:
    """An audit's progress bar in a notebook; an `AuditListener`."""

    def __init__(self) -> None:
        self._bar = NotebookBar()
        self._begun = time.monotonic()

    def started(self, plan: AuditPlan, todo: Sequence[Unit], _finished: int) -> None:
        """The run begins with the units ``todo``."""
        self._eta = Eta(plan, todo)

    def advanced(self, event: Event) -> None:
        """A piece of work is done."""
        self._eta.advance(event)
        elapsed = time.monotonic() - self._begun
        left = self._eta.remaining(elapsed)
        self._bar.show(self._eta.share, f"{left:.0f} s left" if left else f"{elapsed:.0f} s")
