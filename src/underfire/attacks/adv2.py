"""ADV²: the attack on prediction and interpretation together (Zhang et al. 2020, USENIX Security)."""

from collections.abc import Sequence

from underfire.attacks.budget import chosen_finalists, chosen_steps, warm_steps
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting
from underfire.attacks.goals import OTHER_KEPT, TARGET_KEPT
from underfire.attacks.joint import Descent
from underfire.attacks.keepers import BEST, LATEST
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.attacks.target_maps import of_one_classifier
from underfire.interpreters.base import Interpreter


class ADV2(Descent):
    """Finds x* near x with f(x*) = c_t whose attribution maps look like the target maps.

    A PGD warm start, then joint steps: the direction that lowers the interpretation loss of every attacked
    interpreter, and that of the prediction as long as p_t is below 0.95. For each image by itself, of the iterates
    that have the label with p_t of at least 0.9 the one nearest the target maps is kept; if there is none, the one
    with the highest p_t. Where an interpreter only estimates how near they are, as MASK does from its own fit under
    way, late iterates are kept in whole grey levels, and their maps taken afresh decide.

    Args:
        interpreters: the interpreter under attack, or several of one classifier.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if neither it nor a perturbation is given.
        steps: all of them, warm start included; 300 if neither they nor passes are given.
        passes: in place of steps, how many forward and backward passes an image may cost.
        step_size: length of a warm-start step, in the unit of the budget, an eighth of it by default; joint steps
            decay from twice to a tenth of it.
        perturbation: another perturbation model, in place of ``eps``.
        seed: of the random numbers that an interpreter draws (path points of IG).

    Raises:
        InputError: a number is out of range, or the interpreters don't belong together.
    """

    name = "adv2"
    title = "ADV²"
    goals = (TARGET_KEPT, OTHER_KEPT)
    summary = "the prediction and the map of an interpreter, together"
    version = 1

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        eps: float | None = None,
        steps: int | None = None,
        passes: int | None = None,
        step_size: float | None = None,
        perturbation: Perturbation | None = None,
        seed: int = 0,
    ) -> None:
        attacked = of_one_classifier(interpreters, "ADV2")
        model = chosen(perturbation, eps)
        size = model.eps / 8 if step_size is None else step_size
        count = chosen_steps(steps, passes, attacked)
        schedule = Schedule(count, warm=warm_steps(count), first=size, peak=2 * size, last=size / 10)
        finalists = chosen_finalists(count, passes, attacked)
        keep = LATEST if any(g.estimates for g in attacked) else BEST
        setting = Setting(model, schedule, keep=keep, finalists=finalists)
        super().__init__(attacked[0].classifier, attacked, setting, seed=seed)
