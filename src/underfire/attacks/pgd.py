"""PGD: the attack on the prediction alone (Madry et al. 2018)."""

from collections.abc import Sequence

from torch import Tensor

from underfire.attacks.budget import chosen_steps
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Keep, Setting
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import attack_and_score
from underfire.errors import InputError
from underfire.models.classifier import Classifier
from underfire.seeding import owners


class PGD:
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
        if keep not in ("best", "last"):
            raise InputError(f"keep {keep!r} is unknown; give 'best' or 'last'.")
        self.classifier = classifier
        model = chosen(perturbation, eps)
        schedule = Schedule.constant(chosen_steps(steps, passes), model.eps / 8 if step_size is None else step_size)
        self.setting = Setting(model, schedule, keep=keep)

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
