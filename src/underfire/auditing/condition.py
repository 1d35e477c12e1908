"""What was done to a photo before its maps were taken: nothing, noise, or an attack on some interpreters.

The only place that knows how a condition is written; everybody else asks a `Condition`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # titles and goals alone need what is large
    from underfire.attacks.goals import Goal

_NO_SOURCE = "-"
_BETWEEN_SOURCES = "+"
_BEFORE_SOURCES = "-"
_BEFORE_GOAL = "@"

_CONTROLS = {"none": "No attack", "noise": "Harmless noise"}


@dataclass(frozen=True)
class Condition:
    """One way in which every photo is seen: untouched, under noise, or attacked.

    Attributes:
        attack: its name, as in the rows' column ``attack``; "none" and "noise" attack nothing.
        goal: what label and map shall become, as LABEL/MAP; None for the attack's own goal.
        sources: the names of the interpreters under attack; none for an attack on the label alone.

    Raises:
        ValueError: a name is empty, or holds a character that separates names in a condition.
    """

    attack: str
    goal: str | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.attack or _BEFORE_SOURCES in self.attack or _BEFORE_GOAL in self.attack:
            raise ValueError(f"'{self.attack}' cannot be the name of an attack")
        for name in self.sources:
            if not name or name == _NO_SOURCE or _BETWEEN_SOURCES in name or _BEFORE_GOAL in name:
                raise ValueError(f"'{name}' cannot be the name of an interpreter under attack")
        if self.goal is not None and (not self.goal or _BEFORE_GOAL in self.goal):
            raise ValueError(f"'{self.goal}' cannot be a goal")

    @classmethod
    def on(cls, attack: str, *sources: str) -> Condition:
        """``attack`` on the interpreters ``sources``, with the attack's own goal."""
        return cls(attack, sources=sources)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition that ``str`` writes as ``text``; raises `ValueError` if there is none."""
        named, at, goal = text.partition(_BEFORE_GOAL)
        attack, dash, sources = named.partition(_BEFORE_SOURCES)
        return cls(attack, goal if at else None, tuple(sources.split(_BETWEEN_SOURCES)) if dash else ())

    @classmethod
    def of_columns(cls, attack: str, source: str, goal: str | None = None) -> Condition:
        """The condition of a row with these values in its columns ``attack``, ``source`` and ``goal``."""
        return cls(attack, goal, () if source == _NO_SOURCE else tuple(source.split(_BETWEEN_SOURCES)))

    def __str__(self) -> str:
        """As in the summary: none, noise, pgd, adv2-cam, adv2-cam+grad, map-cam@kept/center."""
        named = f"{self.attack}{_BEFORE_SOURCES}{self.source}" if self.sources else self.attack
        return named if self.goal is None else f"{named}{_BEFORE_GOAL}{self.goal}"

    @property
    def source(self) -> str:
        """The rows' column ``source``: the interpreters under attack joined with ``+``, or ``-`` for none."""
        return _BETWEEN_SOURCES.join(self.sources) or _NO_SOURCE

    @property
    def file_name(self) -> str:
        """As in the names of artifacts: like ``str``, without the stroke of a goal."""
        return str(self).replace("/", "-")

    @property
    def title(self) -> str:
        """As a heading: ``ADV² on CAM + GRAD``, ``PGD``, ``No attack``, ``Map attack on CAM, goal kept/topk``."""
        attack = attack_title(self.attack)
        on = f"{attack} on {interpreters_title(self.sources)}" if self.sources else attack
        return on if self.goal is None and self.chases_target else f"{on}, goal {self.wanted}"

    @property
    def wanted(self) -> Goal | None:
        """What label and map shall become; None where nothing is attacked."""
        from underfire.attacks.goals import Goal
        from underfire.attacks.registry import goals_of

        if self.is_control:
            return None
        return goals_of(self.attack)[0] if self.goal is None else Goal.parse(self.goal)

    @property
    def chases_target(self) -> bool:
        """Whether the attack leads to the photo's target class; True of controls, which stand beside such attacks."""
        return self.wanted is None or self.wanted.label == "target"

    @property
    def is_control(self) -> bool:
        """Whether nothing is attacked: the benign input, or harmless noise of the size of an attack."""
        return self.attack in (NONE.attack, NOISE.attack)

    @property
    def is_joint(self) -> bool:
        """Whether maps are attacked along with the label."""
        return bool(self.sources)

    def is_own(self, interpreter: str) -> bool:
        """Whether ``interpreter`` is among those under attack."""
        return interpreter in self.sources


NONE: Final = Condition("none")
NOISE: Final = Condition("noise")
PGD: Final = Condition("pgd")


def attack_title(name: str) -> str:
    """An attack as the literature writes it: ``adv2`` is ADV²; an unknown one keeps its name."""
    from underfire.attacks import registry

    return _CONTROLS.get(name) or registry.attack_title(name)


def has_title(attack: str) -> bool:
    """Whether the attack is one that the literature has a name for."""
    return attack_title(attack) != attack


def interpreters_title(names: tuple[str, ...]) -> str:
    """Several interpreters at once: ``CAM + GRAD``."""
    from underfire.interpreters.registry import interpreter_title

    return " + ".join(map(interpreter_title, names))
