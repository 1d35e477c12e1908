"""Attacks on the map alone: the label stays, and the map is moved (Ghorbani et al. 2019) or led (Dombrowski 2019)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from underfire.attacks.goals import MAP_GOALS, Goal
from underfire.attacks.joint import Descent, Terms
from underfire.attacks.labels import TOLERANCE, KeptLabel
from underfire.attacks.nested import nested_setting
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.attacks.result import AttackResult
from underfire.attacks.target_maps import TargetMap, of_one_classifier
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.decisions import probability

Moved = Literal["topk", "center", "l1", "led"]


class LabelKept(Descent):
    """An attack on maps that keeps the label.

    Attributes:
        wanted: its goal.
    """

    wanted: Goal

    def __call__(
        self,
        x: Tensor,
        target: Tensor | None,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
        """Attack the maps of images ``x`` (N, C, H, W) in [0, 1] for their labels ``target`` (N,), which stay.

        Args:
            x: benign images.
            target: the labels, int64: the classes that the maps explain. An image that the classifier gives another
                class is attacked without success.
            target_map: for the goal ``led`` the maps (N, h, w) in [0, 1] to lead to, as for other attacks.
            label: not for this attack, which keeps ``target``.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: something doesn't fit, or maps are given to another goal than ``led``, or none to that.
            NonFiniteError: a loss or a map is not a number.
        """
        name = type(self).__name__
        if target is None:
            raise InputError(f"{name} keeps the labels of the images, and they are None; give classes (N,).")
        if label is not None:
            raise InputError(f"{name} keeps the label that it is given and takes no second one; leave out label=.")
        if (target_map is None) == (self.wanted.map == "led"):
            advice = "give target_map" if target_map is None else "leave target_map out"
            raise InputError(
                f"the goal '{self.wanted}' and target_map don't fit: only led maps have a target; {advice}."
            )
        own = target if target_map is None else None
        return super().__call__(x, target, target_map=target_map, label=own, keys=keys)

    def goal_of(self, *, led: bool) -> Goal:  # noqa: ARG002 - it was given
        """As it was made."""
        return self.wanted


class MapAttack(LabelKept):
    """Finds x* near x with the label of x, and about its probability, whose attribution maps are others.

    The loop of ADV², with another goal and on the maps from the first step on. Of the iterates at which the label
    stays, its probability within ``tolerance``, the one whose map is furthest on the way is kept. As there, a longer
    run of the same seed never ends worse.

    Args:
        interpreters: the interpreter under attack, or several of one classifier.
        goal: ``"topk"``, the top fifth of the benign map is no longer on top; ``"center"``, the centre of mass moves;
            ``"l1"``, the L1 distance grows; ``"led"``, the map comes near a given one.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if neither it nor a perturbation is given.
        steps: all of them; 300 if neither they nor passes are given.
        passes: in place of steps, how many forward and backward passes an image may cost.
        step_size: as for :class:`underfire.attacks.adv2.ADV2`.
        perturbation: another perturbation model, in place of ``eps``.
        tolerance: by so much the label's probability may change, in (0, 1].
        seed: of the random numbers that an interpreter draws.

    Raises:
        InputError: a number is out of range, the goal is unknown, or the interpreters don't belong together.
    """

    name = "map"
    title = "Map attack"
    summary = "the map of an interpreter, while the label stays"
    goals = (Goal("kept", "topk"), Goal("kept", "center"), Goal("kept", "l1"))
    version = 2

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        goal: Moved = "topk",
        eps: float | None = None,
        steps: int | None = None,
        passes: int | None = None,
        step_size: float | None = None,
        perturbation: Perturbation | None = None,
        tolerance: float = TOLERANCE,
        seed: int = 0,
    ) -> None:
        if not 0 < tolerance <= 1:
            raise InputError(f"tolerance {tolerance!r} is no change of a probability; give one above 0 and up to 1.")
        attacked = of_one_classifier(interpreters, "MapAttack")
        self.wanted, self.tolerance = Goal("kept", goal), tolerance
        setting = nested_setting(
            chosen(perturbation, eps),
            attacked,
            steps=steps,
            passes=passes,
            step_size=step_size,
            first=0,
            map_goal=MAP_GOALS[goal],
        )
        super().__init__(attacked[0].classifier, attacked, setting, seed=seed)

    @classmethod
    def planned(cls, _classifier: Classifier, interpreters: Sequence[Interpreter], terms: Terms) -> Self:
        """The attack on ``interpreters`` by the terms of a plan.

        Raises:
            InputError: its goal is none of the attack's, or the passes don't pay for a single step.
        """
        goal, effort = terms.goal or cls.goals[0], terms.effort
        for known in cls.goals:
            if known == goal:
                moved: Moved = known.map  # type: ignore[assignment]  # one of these, by what the attack can be made for
                return cls(
                    interpreters,
                    goal=moved,
                    perturbation=terms.perturbation,
                    steps=effort.steps,
                    passes=effort.passes,
                    seed=terms.seed,
                )
        raise InputError(f"the goal '{goal}' is none of the attack '{cls.name}': {', '.join(map(str, cls.goals))}.")

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch whose labels ``target`` (N,) stay."""
        with torch.no_grad():
            before = probability(self.classifier.decision, self.classifier(x), target)
        return self.descended(replace(self.setting, label=KeptLabel(before, self.tolerance)), x, target, goals, keys)
