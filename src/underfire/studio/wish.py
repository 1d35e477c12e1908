"""What the page asks for, checked: nothing of it names a file or code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire import parsing
from underfire.attacks import ADV2, PGD, MapAttack
from underfire.attacks.goals import Goal
from underfire.attacks.joint import Descent
from underfire.attacks.perturbations import Linf
from underfire.auditing.names import known_perturbations, make_perturbation
from underfire.auditing.targets import class_index
from underfire.decoding import decoded, plain_json
from underfire.errors import InputError
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.text import amount, budget

DRAWN = 28
"""Cells on a side of the grid on which a target map is drawn."""

MOST_PASSES = 5000
"""Of one attack."""

MOST_INTERPRETERS = 4
"""Attacked at once."""

GOALS = (
    "target/kept", "target/led", "target/free", "other/kept", "other/led", "other/free",
    "kept/led", "kept/topk", "kept/center", "kept/l1",
)  # fmt: skip
"""The goals that the page offers, the first by default."""


_STEPS = 32  # budgets of each perturbation, in eighths of its default, which has a place among them so
_DEFAULT_STEP = 8


@dataclass(frozen=True)
class PerturbationChoice:
    """What an attack may change, for people to choose.

    Attributes:
        name: that command lines use.
        summary, unit: of the perturbation and its budget, in words.
        budgets: as a wish states them; ``shown`` as people read them.
        default: the place of the default budget among them.
    """

    name: str
    summary: str
    unit: str
    budgets: tuple[str, ...]
    shown: tuple[str, ...]
    default: int


def perturbation_choices() -> tuple[PerturbationChoice, ...]:
    """All that attacks take."""
    found = []
    for name, cls in known_perturbations().items():
        sizes = [cls.eps * step / _DEFAULT_STEP for step in range(1, _STEPS + 1)]
        written, shown = (tuple(say(size, name) for size in sizes) for say in (amount, budget))
        found.append(PerturbationChoice(name, cls.summary, cls.unit, written, shown, _DEFAULT_STEP - 1))
    return tuple(found)


@dataclass(frozen=True)
class Wish:
    """An attack as the page asks for it.

    Attributes:
        model: its place among those offered.
        photo: the place of a built-in one; None for the one that was dropped.
        interpreters: the names of those attacked.
        goal: LABEL/MAP.
        eps: the budget, as people write it, in the unit of ``perturbation``.
        target: the class to reach, by name or index; for goals of the label ``target``.
        target_map: the drawn map, `DRAWN` × `DRAWN` values from 0 to 255, row by row; for goals of the map ``led``.
        perturbation: what the attack may change, by its name.
    """

    model: int
    photo: int | None
    interpreters: tuple[str, ...]
    goal: str
    eps: str
    passes: int
    seed: int = 0
    target: str | None = None
    target_map: tuple[int, ...] | None = None
    perturbation: str = Linf.name

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise InputError(f"goal {self.goal!r} is not offered here; choose from {', '.join(GOALS)}.")
        if not 1 <= self.passes <= MOST_PASSES:
            raise InputError(f"passes is {self.passes}; give a number from 1 to {MOST_PASSES}.")
        if self.seed not in parsing.SEEDS:
            raise InputError(f"seed is {self.seed}; give a whole number of 64 bits.")
        if not 1 <= len(self.interpreters) <= MOST_INTERPRETERS or len(set(self.interpreters)) < len(self.interpreters):
            raise InputError(f"choose 1 to {MOST_INTERPRETERS} interpreters, each once.")

    @property
    def wanted(self) -> Goal:
        """What label and map shall become."""
        return Goal.parse(self.goal)

    def target_class(self, classifier: Classifier) -> int | None:
        """The class to reach, or None where the goal has none; raises `InputError` if there is no such class."""
        if self.wanted.label != "target":
            return None
        if not (self.target or "").strip():
            raise InputError("no target class is given; type the name of the class that the model shall see.")
        return class_index(self.target or "", classifier.class_names)

    def target_maps(self, interpreters: Sequence[Interpreter], classifier: Classifier) -> dict[str, Tensor] | None:
        """The drawn map (1, h, w) on the grid of each interpreter; None where the goal leads to none.

        Raises:
            InputError: there is no drawn map, or it is flat.
        """
        if self.wanted.map != "led":
            return None
        values = self.target_map or ()
        if len(values) != DRAWN**2 or not all(0 <= value <= 255 for value in values):
            raise InputError(f"the target map is not {DRAWN} × {DRAWN} values from 0 to 255; draw it on the page.")
        if len(set(values)) == 1:
            raise InputError("the target map is empty; draw on it where the map shall be bright.")
        drawn = torch.tensor(values, dtype=classifier.dtype).reshape(1, 1, DRAWN, DRAWN) / 255
        return {
            g.name: F.interpolate(drawn, g.grid, mode="bilinear", antialias=True).clamp(0, 1)[0] for g in interpreters
        }

    def attack(self, interpreters: Sequence[Interpreter], classifier: Classifier) -> Descent:
        """The attack for the goal.

        Raises:
            InputError: the perturbation is unknown, eps is out of its range, the passes don't pay for a step, or an
                interpreter cannot be attacked.
        """
        perturbation = make_perturbation(self.perturbation, parsing.number(self.eps))
        goal, passes = self.wanted, self.passes
        if goal.label == "kept":
            moved: Any = goal.map  # one of those that the attack takes, by GOALS
            return MapAttack(interpreters, goal=moved, perturbation=perturbation, passes=passes, seed=self.seed)
        if goal.map == "free":
            return PGD(classifier, perturbation=perturbation, passes=passes)
        return ADV2(interpreters, perturbation=perturbation, passes=passes, seed=self.seed)


def wish_of(data: bytes) -> Wish:
    """The wish that the JSON ``data`` states.

    Raises:
        InputError: it states none.
    """
    try:
        content = plain_json(data)
    except InputError as error:
        raise InputError(f"the request cannot be read: {error}.") from error
    try:
        return decoded(Wish, content, "the request")
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{error}.") from error
