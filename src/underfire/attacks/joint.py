"""An attack on the prediction and the maps together, however it is done."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from underfire.attacks.engine import Setting
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import ObjectiveOf, attack_and_score, own_objective
from underfire.attacks.target_maps import TargetMap, refuse_maps, wanted_maps
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.seeding import owners


class JointAttack(ABC):
    """The call of an attack that may aim at maps: what its users leave out is filled in, what they give is checked.

    Attributes:
        classifier: under attack.
        interpreters: those of it under attack; without any the attack is on the prediction alone.
        seed: of the attack's random numbers.
    """

    name: ClassVar[str]

    def __init__(self, classifier: Classifier, interpreters: tuple[Interpreter, ...], *, seed: int) -> None:
        self.classifier = classifier
        self.interpreters = interpreters
        self.seed = seed

    def __call__(
        self,
        x: Tensor,
        target: Tensor,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
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
        goals = wanted_maps(self.interpreters, x, target_map, label=label, keys=names)
        return self.run(x.detach(), target, goals, names)

    @abstractmethod
    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch towards ``target`` (N,) and the maps (N, h, w) by interpreter."""


class Descent(JointAttack):
    """A joint attack by the loop of all attacks that follow gradients.

    Attributes:
        setting: what the loop is told.
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
