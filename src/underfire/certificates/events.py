"""Goals of an attacker as events: what one draw of a randomised system may show."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.goals import OTHER_FREE, OTHER_KEPT, TARGET_FREE, TARGET_KEPT, Goal
from underfire.certificates.system import Shown
from underfire.errors import InputError


@dataclass(frozen=True)
class BenignImage:
    """One image, and all that goals are measured against.

    Attributes:
        key: its name.
        x: (C, H, W) in [0, 1].
        label: () its class.
        target: () the class that a goal may name.
        benign_map: (h, w) that is kept or moved away from.
        led_map: (h, w) that a goal may lead to.
    """

    key: str
    x: Tensor
    label: Tensor
    target: Tensor | None
    benign_map: Tensor
    led_map: Tensor | None


@dataclass(frozen=True)
class ImageGoals:
    """Goals on one image as events: what a draw may show. All that decides them is fixed before a draw counts.

    Attributes:
        goals: LABEL/MAP each. A label is kept where it is the right one, whatever its probability.
        image: theirs.
        iou: at least which IoU counts as kept or led, and at most which IoU of the top fifths as moved.
        shift: by how many diagonals a moved centre of mass is shifted.
    """

    goals: tuple[Goal, ...]
    image: BenignImage
    iou: float
    shift: float

    def count(self, shown: Shown) -> Tensor:
        """In how many of the draws each goal is met, int64 on the CPU."""
        return torch.stack([self.met(goal, shown).sum() for goal in self.goals]).cpu()

    def met(self, goal: Goal, shown: Shown) -> Tensor:
        """(B,) bool: the draw shows what ``goal`` wants of label and map."""
        found = self._label_met(goal, shown.labels)
        reference = self.image.led_map if goal.map == "led" else self.image.benign_map
        if goal.map == "free" or reference is None or not found.any():
            return found
        return found & goal.map_met(shown.maps, reference.expand_as(shown.maps), tau=self.tau(goal))

    def tau(self, goal: Goal) -> float:
        """Where the map's part of ``goal`` is met."""
        return self.shift if goal.map == "center" else self.iou

    def _label_met(self, goal: Goal, labels: Tensor) -> Tensor:
        if goal.label == "target" and self.image.target is not None:
            return labels == self.image.target
        return labels != self.image.label if goal.label == "other" else labels == self.image.label


def ask_for_maps(goals: Iterable[Goal]) -> bool:
    """Whether any of ``goals`` wants something of the map."""
    return any(goal.map != "free" for goal in goals)


def goals_of(asked: Sequence[str] | None, *, target: bool, led: bool) -> tuple[Goal, ...]:
    """The goals ``asked`` for, ``other/free`` before all others; by default all that make a different event.

    Args:
        asked: LABEL/MAP each.
        target: whether a target class is given.
        led: whether a map to be led to is given.

    Raises:
        InputError: there is no such goal, they are no list of texts, or one lacks the target class or the map that it
            asks for.
    """
    if asked is not None and (not _are_texts(asked)):
        raise InputError(f"goals are {asked!r}; give a list, such as ['other/kept'].")
    if asked is None:
        found = [OTHER_FREE, OTHER_KEPT, Goal("kept", "topk"), Goal("kept", "center")]
        found += [TARGET_FREE, TARGET_KEPT] if target else []
        found += [Goal("kept", "led")] if led else []
    else:
        found = [Goal.parse(goal) for goal in asked]
    for goal in found:
        if goal.label == "target" and not target:
            raise InputError(f"the goal '{goal}' names a class; give target=, one class for each image.")
        if goal.map == "led" and not led:
            raise InputError(f"the goal '{goal}' leads the map; give target_map=, one map for each image.")
    return tuple(dict.fromkeys((OTHER_FREE, *found)))


def _are_texts(found: object) -> bool:
    return isinstance(found, Collection) and not isinstance(found, str) and all(isinstance(text, str) for text in found)
