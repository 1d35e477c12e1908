"""StAdv: pixels move (Xiao et al. 2018, Spatially Transformed Adversarial Examples)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from underfire.attacks.adv2 import ADV2
from underfire.attacks.perturbations import Flow
from underfire.attacks.pgd import PGD
from underfire.attacks.result import AttackResult
from underfire.attacks.target_maps import TargetMap, refuse_maps
from underfire.classifier import Classifier
from underfire.interpreters.base import Interpreter


class StAdv:
    """The loop of all attacks on a flow field: PGD on a classifier, or ADV² on interpreters, with :class:`Flow`.

    The original minimises the same sum of prediction loss and roughness with L-BFGS, the authors of ADV² with Adam,
    both without a bound on the displacements.

    Args:
        attacked: a classifier, whose prediction alone is attacked, or an interpreter or several of one classifier,
            whose maps are attacked with it.
        eps: largest displacement of a pixel, in pixels.
        tau: the price of roughness, see :class:`Flow`.
        steps: all of them, warm start included; 300 if neither they nor passes are given.
        passes: in place of steps, how many forward and backward passes an image may cost.
        step_size: length of a step in pixels, as in PGD and ADV²; an eighth of ``eps`` by default.
        seed: of the random numbers that an interpreter draws.

    Raises:
        InputError: a number is out of range, or the interpreters don't belong together.
    """

    name: ClassVar[str] = "stadv"

    def __init__(
        self,
        attacked: Classifier | Interpreter | Sequence[Interpreter],
        *,
        eps: float = Flow.eps,
        tau: float = Flow.tau,
        steps: int | None = None,
        passes: int | None = None,
        step_size: float | None = None,
        seed: int = 0,
    ) -> None:
        flow = Flow(eps, tau)
        self._attack: PGD | ADV2
        if isinstance(attacked, Classifier):
            self._attack = PGD(attacked, steps=steps, passes=passes, step_size=step_size, perturbation=flow)
            self.interpreters: tuple[Interpreter, ...] = ()
        else:
            self._attack = ADV2(attacked, steps=steps, passes=passes, step_size=step_size, perturbation=flow, seed=seed)
            self.interpreters = self._attack.interpreters
        self.classifier = self._attack.classifier
        self.setting = self._attack.setting

    def __call__(
        self,
        x: Tensor,
        target: Tensor,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
        """Attack images ``x`` (N, C, H, W) in [0, 1] towards the classes ``target`` (N,), and the target maps.

        The arguments are those of ADV²; ``target_map`` and ``label`` are for an attack on interpreters.

        Raises:
            InputError: something doesn't fit the classifier, the interpreters or the rest.
            NonFiniteError: a loss or a map is not a number.
        """
        if isinstance(self._attack, ADV2):
            result = self._attack(x, target, target_map=target_map, label=label, keys=keys)
        else:
            refuse_maps("StAdv", target_map, label)
            result = self._attack(x, target, keys=keys)
        return replace(result, attack=self.name)
