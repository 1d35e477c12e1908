"""Joint attacks whose longer runs go on where shorter ones end, so that more passes never hurt."""

from collections.abc import Sequence

from underfire.attacks.budget import FIRST, final_looks, first_steps, joint_steps, stage_ends
from underfire.attacks.control import Balance, Schedule
from underfire.attacks.engine import Setting
from underfire.attacks.keepers import LATEST, KeepBest
from underfire.attacks.perturbations import Perturbation
from underfire.interpreters.base import Interpreter
from underfire.interpreters.map_goals import NEAR, MapGoal

ALONE = 10
"""The steps that an image begins with on its prediction alone, at most; of a short first stage a third."""

MARGIN = 1e-5
"""What is nearer by less may not be so on the original classifier: there map distances are others by up to 5e-6, seen
with InputXGradient on EfficientNet-Lite0: the sums of the copy that the loop works on are rounded in another order."""


def nested_setting(
    model: Perturbation,
    interpreters: Sequence[Interpreter],
    *,
    steps: int | None,
    passes: int | None,
    step_size: float | None,
    first: int = FIRST,
    map_goal: MapGoal = NEAR,
) -> Setting:
    """The setting of a joint attack in which, from the first stage on, nothing depends on how many steps there are.

    Steps anneal in stages. The classifier sees every iterate as it would be saved, and of these images the best is
    kept; where an interpreter only estimates what their maps are, maps taken afresh decide among the ends of stages.
    So of one seed a longer run chooses from all that a shorter one chose from.

    Args:
        model: what may be done to an image.
        interpreters: under attack.
        steps, passes: the effort, as for :class:`underfire.attacks.adv2.ADV2`.
        step_size: half of the first step's length, an eighth of the budget by default; the steps of every
            stage fall to a tenth of it.
        first: the steps on the prediction alone; 0 where that is to stay.
        map_goal: what is wanted of the maps.

    Raises:
        InputError: a number is out of range.
    """
    size = model.eps / 8 if step_size is None else step_size
    count = joint_steps(steps, passes, interpreters, first)
    ends, finals = stage_ends(count, interpreters, first), final_looks(count, interpreters, first)
    return Setting(
        model,
        Schedule(count, warm=first_steps(count, first), first=size, peak=2 * size, last=size / 10, ends=ends),
        map_goal=map_goal,
        mix=Balance(alone=min(ALONE, ends[0] // 3) if first else 0),
        keep=LATEST if finals else KeepBest(MARGIN),
        rounds=True,
        finals=finals,
    )
