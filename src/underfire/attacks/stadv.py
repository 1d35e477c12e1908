"""StAdv: pixels move (Xiao et al. 2018, Spatially Transformed Adversarial Examples)."""

from collections.abc import Sequence
from typing import Self

from underfire.attacks.adv2 import ADV2
from underfire.attacks.joint import Descent, Terms
from underfire.attacks.perturbations import Flow, Perturbation
from underfire.attacks.pgd import PGD
from underfire.attacks.target_maps import classifier_and_interpreters
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier


class StAdv(Descent):
    """The loop of all attacks on a flow field: PGD on a classifier, or ADV² on interpreters, with :class:`Flow`.

    The original minimises the same sum of prediction loss and roughness with L-BFGS, the authors of ADV² with Adam,
    both without a bound on the displacements.

    Args:
        attacked: a classifier, whose prediction alone is attacked, or an interpreter or several of one classifier,
            whose maps are attacked with it.
        eps: largest displacement of a pixel, in pixels.
        tau: the price of roughness, see :class:`Flow`.
        steps: all of them; 300 if neither they nor passes are given.
        passes: in place of steps, how many forward and backward passes an image may cost.
        step_size: in pixels, as in PGD and ADV²; an eighth of ``eps`` by default.
        seed: of the random numbers that an interpreter draws.

    Raises:
        InputError: a number is out of range, or the interpreters don't belong together.
    """

    name = "stadv"
    title = "StAdv"
    summary = "the same by moving pixels, whatever --perturbation says"
    version = 2

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
        classifier, interpreters = classifier_and_interpreters(attacked, "StAdv")
        loop = (
            ADV2(interpreters, steps=steps, passes=passes, step_size=step_size, perturbation=flow)
            if interpreters
            else PGD(classifier, steps=steps, passes=passes, step_size=step_size, perturbation=flow)
        )
        super().__init__(classifier, interpreters, loop.setting, seed=seed)

    @classmethod
    def planned(cls, _classifier: Classifier, interpreters: Sequence[Interpreter], terms: Terms) -> Self:
        """The attack on ``interpreters`` by the terms of a plan."""
        effort = terms.effort
        return cls(interpreters, eps=terms.perturbation.eps, steps=effort.steps, passes=effort.passes, seed=terms.seed)

    @classmethod
    def within(cls, planned: Perturbation) -> Perturbation:
        """A flow field: the planned one, if it is one, or that of the default budget."""
        return planned if planned.name == Flow.name else Flow()
