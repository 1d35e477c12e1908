"""PGD: the attack on the prediction alone (Madry et al. 2018)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, Self

from underfire.attacks.budget import chosen_steps
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting
from underfire.attacks.goals import OTHER_FREE, TARGET_FREE
from underfire.attacks.joint import Descent, Terms
from underfire.attacks.keepers import BEST, LAST, Keeper
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier

Keep = Literal["best", "last"]

_KEEPERS: Mapping[str, Keeper] = MappingProxyType({"best": BEST, "last": LAST})


class PGD(Descent):
    """Targeted projected gradient descent: the joint loop with no interpreter.

    Args:
        classifier: the classifier under attack.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if neither it nor a perturbation is given.
        steps: number of steps; 300 if neither they nor passes are given.
        passes: in place of steps, how many forward and backward passes an image may cost.
        step_size: length of each step, in the unit of the budget; an eighth of it by default.
        perturbation: another perturbation model, in place of ``eps``.
        keep: ``"best"`` returns, for each image, the iterate with the highest p_t among those with the label;
            ``"last"`` the last one, as the original algorithm does.

    Raises:
        InputError: a number is out of range.
    """

    name = "pgd"
    title = "PGD"
    summary = "the prediction alone, whatever the explanation shows"
    joint = False
    goals = (TARGET_FREE, OTHER_FREE)
    version = 1

    def __init__(
        self,
        classifier: Classifier,
        *,
        eps: float | None = None,
        steps: int | None = None,
        passes: int | None = None,
        step_size: float | None = None,
        perturbation: Perturbation | None = None,
        keep: Keep = "best",
    ) -> None:
        if keep not in _KEEPERS:
            raise InputError(f"keep {keep!r} is unknown; give 'best' or 'last'.")
        model = chosen(perturbation, eps)
        schedule = Schedule.constant(chosen_steps(steps, passes), model.eps / 8 if step_size is None else step_size)
        super().__init__(classifier, (), Setting(model, schedule, keep=_KEEPERS[keep]), seed=0)

    @classmethod
    def planned(cls, classifier: Classifier, _interpreters: Sequence[Interpreter], terms: Terms) -> Self:
        """The attack on ``classifier`` by the terms of a plan."""
        effort = terms.effort
        return cls(classifier, perturbation=terms.perturbation, steps=effort.steps, passes=effort.passes)
