"""What an attack is: the one call that all of them share, and what a plan has to know of each."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from underfire.attacks.budget import Effort, descent_of, passes_for_finalists
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting, descend
from underfire.attacks.goals import OTHER_FREE, TARGET_FREE, TARGET_KEPT, Goal
from underfire.attacks.keepers import LAST
from underfire.attacks.labels import OtherLabel
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import ObjectiveOf, attack_and_score, own_objective
from underfire.attacks.target_maps import TargetMap, refuse_maps, wanted_maps
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.decisions import probability
from underfire.models.draws import refuse_random
from underfire.models.folded import prepared
from underfire.models.frozen import detached, ordinary
from underfire.seeding import owners

R_co = TypeVar("R_co", bound=AttackResult, covariant=True)


class _Runs(Protocol[R_co]):
    """What :meth:`JointAttack.__call__` needs of an attack, whose result is that of its ``run``."""

    classifier: Classifier
    interpreters: tuple[Interpreter, ...]

    def run(self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]) -> R_co: ...

    def goal_of(self, *, led: bool) -> Goal: ...

    def untargeted(
        self, x: Tensor, *, target_map: TargetMap | None, label: Tensor | None, keys: Sequence[str] | None
    ) -> Any: ...


@dataclass(frozen=True)
class Terms:
    """What a plan grants an attack: what it may do to an image, for how long, and the seed of its random numbers."""

    perturbation: Perturbation
    effort: Effort
    seed: int = 0
    goal: Goal | None = None
    """What label and map shall become; None for the attack's own goal."""


class JointAttack(ABC):
    """An attack on the prediction and, where it is made from interpreters, on their maps.

    A new attack gives :meth:`run`, the class attributes and, where its arguments are others than ``perturbation``,
    ``steps``, ``passes`` and ``seed``, :meth:`planned`; ``underfire.testing.check_attack`` tells whether it keeps the
    contract.

    Attributes:
        classifier: under attack.
        interpreters: those of it under attack; without any the attack is on the prediction alone.
        seed: of the attack's random numbers.
        name: what command lines and rows call it.
        title: the same as the literature writes it; the name, if empty.
        summary: in a few words, what it attacks and how.
        joint: a plan runs it on each of its interpreters in turn; else once, on the classifier alone.
        unit: what its budget counts.
        per_pass: how many of these a plan grants for each pass.
        perturbations: the names of those it can work within; None for any.
        goals: what it can be made for, its own goal first.
        asks_for_maps: it takes a map at every look, so that an interpreter whose every map is a fit, or looks under
            many masks, costs too much.
        version: raised whenever the same call makes other images, so that those kept before are not taken for them.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    joint: ClassVar[bool] = True
    unit: ClassVar[Literal["passes", "queries"]] = "passes"
    per_pass: ClassVar[int] = 1
    perturbations: ClassVar[tuple[str, ...] | None] = None
    goals: ClassVar[tuple[Goal, ...]] = (TARGET_KEPT,)
    asks_for_maps: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __init__(self, classifier: Classifier, interpreters: tuple[Interpreter, ...], *, seed: int) -> None:
        refuse_random(classifier)
        self.classifier = classifier
        self.interpreters = interpreters
        self.seed = seed

    @classmethod
    def planned(cls, classifier: Classifier, interpreters: Sequence[Interpreter], terms: Terms) -> Self:
        """The attack on ``interpreters``, or on ``classifier`` if it is no joint one, by the terms of a plan.

        Raises:
            InputError: they don't pay for a single step, or don't suit.
        """
        make: Callable[..., Self] = cls
        attacked: Any = interpreters if cls.joint else classifier
        effort = terms.effort
        return make(
            attacked, perturbation=terms.perturbation, steps=effort.steps, passes=effort.passes, seed=terms.seed
        )

    @classmethod
    def within(cls, planned: Perturbation) -> Perturbation:
        """What it may do to an image in a plan whose perturbation is ``planned``; that itself, by default."""
        return planned

    def __call__(
        self: _Runs[R_co],
        x: Tensor,
        target: Tensor | None,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> R_co:
        """Attack images ``x`` (N, C, H, W) in [0, 1] towards the classes ``target`` (N,) and the target maps.

        Args:
            x: benign images.
            target: target classes, int64; None for any class but ``label``.
            target_map: maps (N, h, w) in [0, 1] on the native grid: a tensor for one interpreter; for several a
                list in their order or a mapping by name. By default the benign maps for ``label``. Like ``label``
                for an attack on interpreters only.
            label: classes (N,) of the benign maps, by default the classifier's own predictions.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: something doesn't fit the classifier, the interpreters or the rest.
            NonFiniteError: a loss or a map is not a number.
        """
        self.classifier.check_images(x)
        if target is None:
            untargeted: R_co = self.untargeted(x, target_map=target_map, label=label, keys=keys)
            return untargeted
        self.classifier.check_classes(target, x.shape[0])
        if not self.interpreters:
            refuse_maps(type(self).__name__, target_map, label)
        names = owners(x, keys)
        with ordinary():
            goals = wanted_maps(self.interpreters, x, target_map, label=label, keys=names)
            goals = {g: detached(maps) for g, maps in goals.items()}
            result = self.run(detached(x), detached(target), goals, names)
        return replace(result, goal=self.goal_of(led=target_map is not None))

    def goal_of(self, *, led: bool) -> Goal:
        """What it wants of label and map; ``led``: target maps are given."""
        if not self.interpreters:
            return TARGET_FREE
        return Goal("target", "led") if led else TARGET_KEPT

    def untargeted(
        self,
        x: Tensor,  # noqa: ARG002
        *,
        target_map: TargetMap | None,  # noqa: ARG002
        label: Tensor | None,  # noqa: ARG002
        keys: Sequence[str] | None,  # noqa: ARG002
    ) -> AttackResult:
        """Attack checked images ``x`` towards any class but ``label``.

        Raises:
            InputError: the attack needs target classes.
        """
        raise InputError(f"target is None, and {type(self).__name__} attacks towards target classes; give some (N,).")

    def most_passes(self) -> int | None:
        """Forward and backward passes that it takes for one photo, at most; None where it does not say."""
        return None

    @abstractmethod
    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch towards ``target`` (N,) and the maps (N, h, w) by interpreter."""


SEARCH = 10
"""Steps on the prediction alone in which an attack towards any other class finds the class to go on with."""


def nearest_classes(
    classifier: Classifier, x: Tensor, label: Tensor, perturbation: Perturbation, steps: int, step_size: float
) -> Tensor:
    """The classes (N,) other than ``label`` to which a short attack on the prediction leads: ``steps`` + 1 passes."""
    setting = Setting(perturbation, Schedule.constant(steps, step_size), label=OtherLabel(), keep=LAST)
    outcome = descend(prepared(classifier), x, label, [], setting)
    with torch.no_grad():
        logits = classifier(outcome.x_adv)
    return OtherLabel().aim(classifier.decision, logits, label)


class Descent(JointAttack):
    """A joint attack by the loop of all attacks that follow gradients.

    Attributes:
        setting: of the loop.
    """

    def __init__(
        self,
        classifier: Classifier,
        interpreters: tuple[Interpreter, ...],
        setting: Setting,
        *,
        seed: int,
        objective_of: ObjectiveOf = own_objective,
    ) -> None:
        super().__init__(classifier, interpreters, seed=seed)
        self.setting = setting
        self._objective_of = objective_of

    def most_passes(self) -> int:
        """Those of its steps, and of its finalists."""
        schedule = self.setting.schedule
        descent = descent_of(schedule.steps, self.interpreters, warm=lambda _: schedule.warm)
        return descent + passes_for_finalists(self.setting.finals, self.interpreters)

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch and score what comes out."""
        return self.descended(self.setting, x, target, goals, keys)

    def untargeted(
        self, x: Tensor, *, target_map: TargetMap | None, label: Tensor | None, keys: Sequence[str] | None
    ) -> AttackResult:
        """Attack checked images ``x`` (N, C, H, W) towards any class but ``label`` (N,), by default the predictions.

        On interpreters a short attack on the prediction, paid for out of the same budget, finds for each image the
        class that is nearest; it is then the target. Success is that class.
        """
        names = owners(x, keys)
        with ordinary():
            x = detached(x)
            label = self.classifier.probabilities(x).argmax(dim=1) if label is None else detached(label)
            self.classifier.check_classes(label, x.shape[0])
            if not self.interpreters:
                refuse_maps(type(self).__name__, target_map, None)
                return self._anywhere(x, label, names)
            schedule = self.setting.schedule
            shortest = min((*schedule.ends[:1], schedule.steps))
            steps = min(SEARCH, max(1, shortest // 10))
            classes = nearest_classes(self.classifier, x, label, self.setting.perturbation, steps, schedule.first)
            steps += 1  # and a look at where they end
            goals = wanted_maps(self.interpreters, x, target_map, label=label, keys=names)
            goals = {g: detached(maps) for g, maps in goals.items()}
            result = self.descended(self.setting.without(steps), x, classes, goals, names)
        goal = Goal("other", "kept" if target_map is None else "led")
        return replace(result, passes=result.passes + steps, goal=goal)

    def _anywhere(self, x: Tensor, label: Tensor, keys: tuple[str, ...]) -> AttackResult:
        """The attack on the prediction alone; its targets are the classes that it ends at or comes nearest to."""
        result = self.descended(replace(self.setting, label=OtherLabel()), x, label, {}, keys)
        decision = self.classifier.decision
        with torch.no_grad():
            logits = self.classifier(result.x_adv)
        target = OtherLabel().aim(decision, logits, label)
        confidence = probability(decision, logits, target)
        return replace(result, target=target, confidence=confidence, goal=OTHER_FREE)

    def descended(
        self,
        setting: Setting,
        x: Tensor,
        target: Tensor,
        goals: Mapping[Interpreter, Tensor],
        keys: tuple[str, ...],
    ) -> AttackResult:
        """Attack a checked batch by ``setting`` and score what comes out."""
        return attack_and_score(
            self.name,
            self.classifier,
            x,
            target,
            goals,
            setting,
            keys=keys,
            seed=self.seed,
            objective_of=self._objective_of,
        )
