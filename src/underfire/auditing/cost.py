"""What an audit takes, in passes, before it is begun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from underfire.attacks import Square
from underfire.attacks.budget import descent_of
from underfire.auditing.attackers import PlannedAttack
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.plan import PlannedPhoto
from underfire.interpreters import Interpreter


@dataclass(frozen=True)
class ConditionCost:
    """Forward and backward passes of one photo under a condition, at most.

    Attributes:
        condition: what is done to it.
        attack: passes of the attack; what it decides early it does not spend.
        maps: passes of the predictions and maps of the image, as computed and as saved.
        photos: how many photos are to be seen under it.
    """

    condition: Condition
    attack: int
    maps: int
    photos: int

    @property
    def total(self) -> int:
        """Passes of all its photos."""
        return (self.attack + self.maps) * self.photos


def costs_of(
    attacks: Mapping[Condition, PlannedAttack],
    conditions: Sequence[Condition],
    interpreters: Sequence[Interpreter],
    photos: Sequence[PlannedPhoto],
) -> tuple[ConditionCost, ...]:
    """What each of the ``conditions`` of an audit takes, in their order.

    Args:
        attacks: those of the conditions that attack.
        conditions: of the plan.
        interpreters: whose maps are taken under every condition.
        photos: of the audit; those that are excluded are seen once, untouched.
    """
    attackable = sum(photo.excluded is None for photo in photos)
    seen = 1 + sum(interpreter.passes_per_map for interpreter in interpreters)
    return tuple(
        ConditionCost(
            condition,
            passes_of(attacks[condition]) if condition in attacks else 0,
            seen if condition == NONE else 2 * seen,
            len(photos) if condition == NONE else attackable,
        )
        for condition in conditions
    )


def passes_of(attack: PlannedAttack) -> int:
    """Forward and backward passes that ``attack`` takes for one photo, at most; of Square, forward alone."""
    interpreters: Sequence[Interpreter] = getattr(attack, "interpreters", ())
    if isinstance(attack, Square):
        return attack.queries * (1 + sum(interpreter.passes_per_map for interpreter in interpreters))
    schedule = attack.setting.schedule
    descent = descent_of(schedule.steps, interpreters, warm=lambda _: schedule.warm)
    return descent + attack.setting.finalists * sum(interpreter.passes_per_map for interpreter in interpreters)
