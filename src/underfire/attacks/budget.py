"""From a budget of passes to a number of steps."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from numbers import Integral, Real

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
"""The longest warm start of an attack that begins with one; a shorter attack spends a fifth of its steps."""

FIRST = 5
"""The steps on the prediction alone of a joint attack whose runs nest; each costs one pass, less than a joint one."""

STAGES = (100, 150, 300, 600)
"""Passes after which a joint attack has annealed, and so a stage ends; and ten, a hundred, … times as many."""


LONGER = 1.3
"""A stage that ends with finalists brings the passes of the descent to at least so many times what they were."""


def check_whole(what: str, number: object) -> None:
    """Raise InputError where ``number``, the argument ``what``, is no whole number."""
    if not isinstance(number, Integral):
        raise InputError(f"{what} is {number!r}; give a whole number.")


def check_number(what: str, number: object) -> None:
    """Raise InputError where ``number``, the argument ``what``, is no number."""
    if not isinstance(number, Real):
        raise InputError(f"{what} is {number!r}; give a number.")


def warm_steps(steps: int) -> int:
    """How many of ``steps`` an attack that has a warm start spends on the prediction alone."""
    return min(WARM, steps // 5)


def first_steps(steps: int, first: int = FIRST) -> int:
    """How many of ``steps`` an attack whose runs nest spends on the prediction alone: ``first``, or half of them."""
    return min(first, steps // 2)


def stage_ends(steps: int, interpreters: Sequence[Interpreter], first: int = FIRST) -> tuple[int, ...]:
    """The numbers of steps after which the stages of a joint attack of ``steps`` steps end; the last may lie beyond.

    They are those of every longer attack, so that this one is the beginning of that. An attack shorter than the first
    stage has one of its own length, and so is not. Where maps taken afresh decide among the ends of stages, a stage
    also pays for these, so that there are fewer. ``first`` steps are on the prediction alone.
    """
    ends: list[int] = []
    maps, spent = _finalist_of(interpreters), 0
    least = max(_joint_descent(2 * FIRST, interpreters, first), _joint_descent(1, interpreters, first) + maps)
    for passes in _stage_passes():
        descent = passes - (len(ends) + 1) * maps if ends else passes
        if descent < max(least, LONGER * spent):
            continue
        ends.append(_paid(descent, interpreters, first))
        spent = descent
        if ends[-1] >= steps:
            break
    return tuple(ends) if steps >= ends[0] else (steps,)


def _stage_passes() -> Iterator[int]:
    return (passes * 10**power for power in count() for passes in STAGES)


def final_looks(steps: int, interpreters: Sequence[Interpreter], first: int = FIRST) -> tuple[int, ...]:
    """The looks of a joint attack of ``steps`` steps after which maps taken afresh shall decide: ends of stages.

    None where every objective tells of an iterate what is true of it.
    """
    if not _finalist_of(interpreters):
        return ()
    return tuple(end for end in stage_ends(steps, interpreters, first) if end <= steps)


def _finalist_of(interpreters: Sequence[Interpreter]) -> int:
    """What the maps of a finalist cost; 0 where an attack on these interpreters has none."""
    return _maps_of(interpreters) if any(g.estimates or g.remembers for g in interpreters) else 0


def passes_for_finalists(finals: Sequence[object], interpreters: Sequence[Interpreter]) -> int:
    """What maps taken afresh of the finalists ``finals`` cost an image; a single one needs none."""
    return len(finals) * _maps_of(interpreters) if len(finals) > 1 else 0


def joint_steps(steps: int | None, passes: int | None, interpreters: Sequence[Interpreter], first: int = FIRST) -> int:
    """The steps of a joint attack whose runs nest: as named, or as many as ``passes`` pay for.

    Where maps taken afresh decide, those up to the end of a stage, and of the passes it pays for these as well.

    Raises:
        InputError: as :func:`chosen_steps`.
    """
    count = chosen_steps(steps, passes, interpreters, warm=lambda n: first_steps(n, first))
    finals = final_looks(count, interpreters, first)
    if passes is None:
        return finals[-1] if finals else count
    for number in range(len(finals), 1, -1):
        most = passes - passes_for_finalists(finals[:number], interpreters)
        if most >= _joint_descent(finals[number - 1], interpreters, first):
            return finals[number - 1]
    return finals[0] if finals else count


def _paid(passes: int, interpreters: Sequence[Interpreter], first: int) -> int:
    return bisect_right(range(1, passes + 1), passes, key=lambda n: _joint_descent(n, interpreters, first))


def _joint_descent(steps: int, interpreters: Sequence[Interpreter], first: int) -> int:
    return descent_of(steps, interpreters, warm=lambda n: first_steps(n, first))


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
    least = descent_of(1, interpreters, warm=warm)
    if passes < least:
        attack = f"an attack on {', '.join(g.name for g in interpreters)}" if interpreters else "this attack"
        raise InputError(f"passes is {passes}; one step of {attack} takes {least}, so give at least that many.")
    return bisect_right(range(1, passes + 1), passes, key=lambda n: descent_of(n, interpreters, warm=warm))
