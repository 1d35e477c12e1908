"""An attack on the prediction and the maps together, whatever its setting."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from underfire.attacks.engine import Setting
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import AimOf, attack_and_score, own_aim
from underfire.attacks.target_maps import TargetMap, wanted_maps
from underfire.interpreters.base import Interpreter
from underfire.seeding import owners


class JointAttack:
    """The call of a joint attack: what its users may leave out is filled in, what they give is checked.

    Attributes:
        interpreters: those under attack, all of ``classifier``.
        setting: what the loop is told.
        seed: of the random numbers that an interpreter draws.
    """

    name: ClassVar[str]

    def __init__(
        self, interpreters: tuple[Interpreter, ...], setting: Setting, *, seed: int, aim_of: AimOf = own_aim
    ) -> None:
        self.interpreters = interpreters
        self.classifier = interpreters[0].classifier
        self.setting = setting
        self.seed = seed
        self._aim_of = aim_of

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
                list in their order or a mapping by name. By default the benign maps for ``label``.
            label: classes (N,) of the benign maps, by default the classifier's own predictions.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: something doesn't fit the classifier, the interpreters or the rest.
            NonFiniteError: a loss or a map is not a number.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(target, x.shape[0])
        names = owners(x, keys)
        pairs = wanted_maps(self.interpreters, x, target_map, label=label, keys=names)
        return attack_and_score(
            self.name,
            self.classifier,
            x,
            target,
            pairs,
            self.setting,
            keys=names,
            seed=self.seed,
            aim_of=self._aim_of,
        )
