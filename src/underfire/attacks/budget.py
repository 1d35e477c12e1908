"""From a budget of passes to a number of steps."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from numbers import Integral

from underfire.errors import InputError
from underfire.interpreters.base import Interpreter

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


def finalists_of(descent: int, interpreters: Sequence[Interpreter]) -> int:
    """How many iterates an attack of ``descent`` passes chooses from in the end, by maps taken afresh.

    None where the gap of every interpreter's aim is that of the iterate; else as many as cost no more than the
    descent, if these are at least two.
    """
    if not any(g.estimates for g in interpreters):
        return 0
    count = min(MOST_FINALISTS, descent // _maps_of(interpreters))
    return count if count > 1 else 0


def _maps_of(interpreters: Sequence[Interpreter]) -> int:
    return sum(g.passes_per_map for g in interpreters)


def descent_of(steps: int, interpreters: Sequence[Interpreter], *, warm: Callable[[int], int] = warm_steps) -> int:
    """Passes that an image pays for ``steps`` steps and the look at the last iterate; ``warm`` as below."""
    if not interpreters:
        return steps + 1
    looks = steps + 1 - warm(steps)
    return steps + 1 + sum(g.further_passes(looks) for g in interpreters)


def passes_of(steps: int, interpreters: Sequence[Interpreter], *, warm: Callable[[int], int] = warm_steps) -> int:
    """Forward and backward passes that an image pays for an attack of ``steps`` steps, finalists included.

    ``warm`` tells how many of the steps are spent on the prediction alone.
    """
    descent = descent_of(steps, interpreters, warm=warm)
    return descent + finalists_of(descent, interpreters) * _maps_of(interpreters)


def chosen_steps(
    steps: int | None,
    passes: int | None,
    interpreters: Sequence[Interpreter] = (),
    *,
    warm: Callable[[int], int] = warm_steps,
    default: int = STEPS,
) -> int:
    """The steps of an attack: as named, or as many as ``passes`` pay for, or the default.

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
    least = passes_of(1, interpreters, warm=warm)
    if passes < least:
        attack = f"an attack on {', '.join(g.name for g in interpreters)}" if interpreters else "this attack"
        raise InputError(f"passes is {passes}; one step of {attack} takes {least}, so give at least that many.")
    return bisect_right(range(1, passes + 1), passes, key=lambda n: passes_of(n, interpreters, warm=warm))
