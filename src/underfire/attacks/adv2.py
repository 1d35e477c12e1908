"""ADV²: the attack on prediction and interpretation together (Zhang et al. 2020, USENIX Security)."""

from collections.abc import Sequence

from underfire.attacks.goals import OTHER_KEPT, TARGET_KEPT
from underfire.attacks.joint import Descent
from underfire.attacks.nested import nested_setting
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.attacks.target_maps import of_one_classifier
from underfire.interpreters.base import Interpreter


class ADV2(Descent):
    """Finds x* near x with f(x*) = c_t whose attribution maps look like the target maps.

    Each step goes in the direction that lowers the interpretation loss of every attacked interpreter, and that of the
    prediction as long as p_t is below 0.95; the first five, and up to ten until it is that, in the latter alone. The
    classifier sees every iterate as it would be saved, in whole grey levels. For each image by itself, of the iterates
    that have the label with p_t of at least 0.9 the one nearest the target maps is kept; if there is none, the one with
    the highest p_t. Where an interpreter only estimates how near they are, as IG does from gradients of former steps
    and MASK from a fit of its own, the maps of a few iterates, taken afresh, decide.

    The steps anneal in stages that end after fixed numbers of passes, 100 the first of them
    (:data:`underfire.attacks.budget.STAGES`), whatever there is in all: a longer run goes on where a shorter one of the
    same seed ends, and chooses from what that one chose from as well, so that it never ends worse. A run shorter than
    the first stage has a schedule of its own length.

    Args:
        interpreters: the interpreter under attack, or several of one classifier.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if neither it nor a perturbation is given.
        steps: all of them; 300 if neither they nor passes are given. Where maps taken afresh decide, those after the
            last stage that they complete are not taken.
        passes: in place of steps, how many forward and backward passes an image may cost.
        step_size: half of the first step's length, in the unit of the budget; an eighth of that by default. In every
            stage they fall to a tenth of it; the k-th stage, from 0, begins at the first step's length over 1 + 2k.
        perturbation: another perturbation model, in place of ``eps``.
        seed: of the random numbers that an interpreter draws (path points of IG).

    Raises:
        InputError: a number is out of range, or the interpreters don't belong together.
    """

    name = "adv2"
    title = "ADV²"
    goals = (TARGET_KEPT, OTHER_KEPT)
    summary = "the prediction and the map of an interpreter, together"
    version = 2

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
        setting = nested_setting(chosen(perturbation, eps), attacked, steps=steps, passes=passes, step_size=step_size)
        super().__init__(attacked[0].classifier, attacked, setting, seed=seed)
