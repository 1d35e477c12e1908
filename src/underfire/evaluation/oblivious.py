"""ADV² on all interpreters of a set at once, by one who does not know that a detector looks at their maps."""

from collections.abc import Sequence
from pathlib import Path

from underfire.attacks import ADV2
from underfire.auditing.condition import Condition
from underfire.auditing.plan import PlannedPhoto
from underfire.defenses.ensemble import EnsembleDetector
from underfire.evaluation.attackers import made_by, picture_in, strike
from underfire.evaluation.extra import Attacked
from underfire.evaluation.trials import Resources
from underfire.interpreters import Interpreter
from underfire.studies.kept import identity
from underfire.studies.source import Note, Run

_ATTACK = 1
"""Raised when :class:`ADV2` makes other images, so that old ones are not taken for its."""


def blind(
    run: Run,
    photos: Sequence[PlannedPhoto],
    interpreters: Sequence[Interpreter],
    resources: Resources,
    *,
    work: Path,
    note: Note,
) -> dict[str, dict[str, Attacked]]:
    """By condition, such as ``adv2-grad+cam``, and photo the images of that attack on ``interpreters``.

    Empty for a single one: that attack is the audit's. ``work`` keeps the images, photo by photo.

    Raises:
        InputError: the passes don't pay for a single step, a file is damaged, or a number is not finite.
    """
    if len(interpreters) < 2:
        return {}
    names = "+".join(g.name for g in interpreters)
    perturbation, passes, seed = resources.perturbation, resources.passes, run.plan.seed
    attack = ADV2(interpreters, perturbation=perturbation, passes=passes, seed=seed)
    settings = EnsembleDetector(interpreters).settings()["interpreters"]
    facts = (_ATTACK, attack.classifier.fingerprint(), settings, perturbation, passes, seed)
    folder = work / f"{names}-{identity(run, *facts)}"
    what = f"attack on all maps by one who knows no detector, {resources}"
    struck = strike(run, photos, attack.classifier, made_by(attack), perturbation, folder, what=what, note=note)
    found = {p.image_id: Attacked(picture_in(folder, p), one.reached) for p, one in struck.items()}
    return {str(Condition.on("adv2", *(g.name for g in interpreters))): found}
