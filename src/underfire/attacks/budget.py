"""From a budget of passes to a number of steps."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

from underfire.errors import InputError
from underfire.interpreters.base import Interpreter


@dataclass(frozen=True)
class Effort:
    """How long an attack may work on a photo: so many steps, or so many passes; the other is None."""

    steps: int | None = None
    passes: int | None = None


STEPS = 300
"""Steps of an attack whose caller names neither steps nor passes."""

WARM = 30
"""The longest warm start of a joint attack; a shorter attack spends a fifth of its steps."""


MOST_FINALISTS = 8
"""Late iterates whose maps are taken afresh, where the course of an attack does not tell which is best."""


def check_whole(what: str, number: object) -> None:
    """Raise InputError where ``number``, the argument ``what``, is no whole number."""
    if not isinstance(number, Integral):
        raise InputError(f"{what} is {number!r}; give a whole number.")


def warm_steps(steps: int) -> int:
    """How many of ``steps`` a joint attack spends on the prediction alone."""
    return min(WARM, steps // 5)


def finalists_of(passes: int, interpreters: Sequence[Interpreter]) -> int:
    """How many iterates an attack chooses from in the end, by maps taken afresh, where ``passes`` pay for these.

    None where the map distance of every interpreter's objective is that of the iterate, and where the passes pay for
    fewer than two.
    """
    if not any(g.estimates for g in interpreters):
        return 0
    count = min(MOST_FINALISTS, passes // _maps_of(interpreters))
    return count if count > 1 else 0


def chosen_finalists(steps: int, passes: int | None, interpreters: Sequence[Interpreter]) -> int:
    """The finalists of a joint attack of ``steps`` steps: half of its ``passes``, or as much as the steps, pays."""
    return finalists_of(descent_of(steps, interpreters) if passes is None else passes // 2, interpreters)


def _maps_of(interpreters: Sequence[Interpreter]) -> int:
    return sum(g.passes_per_map for g in interpreters)


def descent_of(steps: int, interpreters: Sequence[Interpreter], *, warm: Callable[[int], int] = warm_steps) -> int:
    """Forward and backward passes that an image pays for ``steps`` steps and the look at the last iterate.

    ``warm`` tells how many of them are spent on the prediction alone. Finalists come on top.
    """
    if not interpreters:
        return steps + 1
    looks = steps + 1 - warm(steps)
    return steps + 1 + sum(g.further_passes(looks) for g in interpreters)


def chosen_steps(
    steps: int | None,
    passes: int | None,
    interpreters: Sequence[Interpreter] = (),
    *,
    warm: Callable[[int], int] = warm_steps,
    default: int = STEPS,
) -> int:
    """The steps of an attack: as named, or as many as ``passes`` pay for beside its finalists, or the default.

    ``warm`` tells how many of a number of steps are spent on the prediction alone.

    Raises:
        InputError: both are named, one is no whole number, or the passes don't pay for a single step.
    """
    for what, number in (("steps", steps), ("passes", passes)):
        if number is not None:
            check_whole(what, number)
    if passes is None:
        return default if steps is None else steps
    if steps is not None:
        raise InputError(f"steps {steps} and passes {passes} are both given; give one of them.")
    least = descent_of(1, interpreters, warm=warm)
    if passes < least:
        attack = f"an attack on {', '.join(g.name for g in interpreters)}" if interpreters else "this attack"
        raise InputError(f"passes is {passes}; one step of {attack} takes {least}, so give at least that many.")
    left = passes - finalists_of(passes // 2, interpreters) * _maps_of(interpreters)
    return bisect_right(range(1, left + 1), left, key=lambda n: descent_of(n, interpreters, warm=warm))
