"""Every goal against every interpreter: how often an attacker reaches both halves of it."""

from dataclasses import dataclass

from underfire.attacks.goals import Goal, MapWord
from underfire.auditing.condition import attack_title
from underfire.auditing.summary import GoalFigures, RateAt, Summary
from underfire.present.text import interpreter_title, interval, of


@dataclass(frozen=True)
class GoalEntry:
    """A joint success rate in its table: the headline's, its interval, those at milder and harder τ, and noise's."""

    jsr: str
    interval: str
    sweep: str
    noise: str
    shade: float


@dataclass(frozen=True)
class GoalLine:
    """An attack with its goal, and an entry for each interpreter, None where it was not attacked."""

    goal: str
    attack: str
    tau: str
    entries: tuple[GoalEntry | None, ...]


@dataclass(frozen=True)
class GoalTable:
    """Goals in lines, interpreters in columns."""

    columns: tuple[str, ...]
    lines: tuple[GoalLine, ...]


_DARKEST = 0.5  # of the shading colour: any more and the number on it loses its contrast

_CONDITION_ON_TAU: dict[MapWord, str] = {
    "kept": "IoU ≥ {:g}",
    "topk": "IoU of top fifths ≤ {:g}",
    "l1": "IoU of top fifths ≤ {:g}",
    "center": "shift ≥ {:g} diagonals",
}


def goal_table(summary: Summary) -> GoalTable:
    """The joint success rates of every attack on one interpreter."""
    alone = [figures for figures in summary.goals if len(figures.condition.sources) == 1 and figures.rates]
    lines = {(figures.goal, figures.condition.attack): figures for figures in alone}
    return GoalTable(
        tuple(map(interpreter_title, summary.interpreters)),
        tuple(_line(first, alone, summary.interpreters) for first in lines.values()),
    )


def _line(first: GoalFigures, alone: list[GoalFigures], interpreters: tuple[str, ...]) -> GoalLine:
    goal, attack = first.goal, first.condition.attack
    found = {g.interpreter: g for g in alone if (g.goal, g.condition.attack) == (goal, attack)}
    told = _CONDITION_ON_TAU[Goal.parse(goal).map].format(first.rates[len(first.rates) // 2].tau)
    entries = tuple(_entry(found[name]) if name in found else None for name in interpreters)
    return GoalLine(goal, attack_title(attack), told, entries)


def _entry(figures: GoalFigures) -> GoalEntry | None:
    rate = figures.headline
    if rate is None or rate.jsr.value is None:
        return None
    sweep = " · ".join(f"{other.tau:g}: {of(other.jsr)}" for other in figures.rates if other is not rate)
    return GoalEntry(of(rate.jsr), interval(rate.jsr), sweep, _noise(rate), round(_DARKEST * rate.jsr.value, 3))


def _noise(rate: RateAt) -> str:
    return of(rate.noise) if rate.noise.n else "not measured"
