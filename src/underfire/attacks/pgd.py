"""PGD: the attack on the prediction alone (Madry et al. 2018)."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting
from underfire.attacks.perturbations import Linf
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import attack_and_score
from underfire.classifier import Classifier
from underfire.errors import InputError
from underfire.seeding import owners

Keep = Literal["best", "last"]


class PGD:
    """Targeted projected gradient descent in the L∞ ball: the joint loop with no interpreter.

    Args:
        classifier: the classifier under attack.
        eps: budget, in pixel values of [0, 1].
        steps: number of steps.
        step_size: length of each step in pixel values.
        keep: ``"best"`` returns, for each image, the iterate with the highest p_t among those with the label;
            ``"last"`` the last one, as the original algorithm does.

    Raises:
        InputError: a number is out of range.
    """

    name = "pgd"

    def __init__(
        self,
        classifier: Classifier,
        *,
        eps: float = 8 / 255,
        steps: int = 300,
        step_size: float = 1 / 255,
        keep: Keep = "best",
    ) -> None:
        if keep not in ("best", "last"):
            raise InputError(f"keep {keep!r} is unknown; give 'best' or 'last'.")
        self.classifier = classifier
        self.setting = Setting(Linf(eps), Schedule.constant(steps, step_size), keep_best=keep == "best")

    def __call__(self, x: Tensor, target: Tensor, *, keys: Sequence[str] | None = None) -> AttackResult:
        """Attack images ``x`` (N, C, H, W) in [0, 1] towards the classes ``target`` (N,), int64.

        ``keys`` names the images in the result; by default by their content.

        Raises:
            InputError: ``x``, ``target`` or ``keys`` don't fit the classifier or each other.
            NonFiniteError: a loss is not a number.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(target, x.shape[0])
        return attack_and_score(self.name, self.classifier, x, target, {}, self.setting, keys=owners(x, keys), seed=0)
