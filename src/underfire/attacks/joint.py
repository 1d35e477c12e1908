"""What an attack is: the one call that all of them share, and what a plan has to know of each."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from torch import Tensor

from underfire.attacks.budget import Effort, descent_of
from underfire.attacks.engine import Setting
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import ObjectiveOf, attack_and_score, own_objective
from underfire.attacks.target_maps import TargetMap, refuse_maps, wanted_maps
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.frozen import detached, ordinary
from underfire.seeding import owners

R_co = TypeVar("R_co", bound=AttackResult, covariant=True)


class _Runs(Protocol[R_co]):
    """What :meth:`JointAttack.__call__` needs of an attack, whose result is that of its ``run``."""

    classifier: Classifier
    interpreters: tuple[Interpreter, ...]

    def run(self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]) -> R_co: ...


@dataclass(frozen=True)
class Terms:
    """What a plan grants an attack: what it may do to an image, for how long, and the seed of its random numbers."""

    perturbation: Perturbation
    effort: Effort
    seed: int = 0


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
    asks_for_maps: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __init__(self, classifier: Classifier, interpreters: tuple[Interpreter, ...], *, seed: int) -> None:
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
        target: Tensor,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> R_co:
        """Attack images ``x`` (N, C, H, W) in [0, 1] towards the classes ``target`` (N,) and the target maps.

        Args:
            x: benign images.
            target: target classes, int64.
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
        self.classifier.check_classes(target, x.shape[0])
        if not self.interpreters:
            refuse_maps(type(self).__name__, target_map, label)
        names = owners(x, keys)
        with ordinary():
            goals = wanted_maps(self.interpreters, x, target_map, label=label, keys=names)
            goals = {g: detached(maps) for g, maps in goals.items()}
            return self.run(detached(x), detached(target), goals, names)

    def most_passes(self) -> int | None:
        """Forward and backward passes that it takes for one photo, at most; None where it does not say."""
        return None

    @abstractmethod
    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch towards ``target`` (N,) and the maps (N, h, w) by interpreter."""


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
        return descent + self.setting.finalists * sum(g.passes_per_map for g in self.interpreters)

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch and score what comes out."""
        return attack_and_score(
            self.name,
            self.classifier,
            x,
            target,
            goals,
            self.setting,
            keys=keys,
            seed=self.seed,
            objective_of=self._objective_of,
        )
