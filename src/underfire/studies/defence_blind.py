"""ADV² on all interpreters of a set at once, by one who does not know that a detector looks at their maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from underfire.attacks import ADV2
from underfire.audit.plan import Condition, PlannedPhoto
from underfire.defenses.ensemble import EnsembleDetector
from underfire.interpreters import Interpreter
from underfire.studies.defence_also import Attacked
from underfire.studies.defence_strike import strike
from underfire.studies.defence_trials import Resources
from underfire.studies.kept import identity, kept_together
from underfire.studies.source import Note, Run


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
    classifier, names = interpreters[0].classifier, [g.name for g in interpreters]
    perturbation, passes, seed = resources.perturbation, resources.passes, run.plan.seed
    attack = ADV2(interpreters, perturbation=perturbation, passes=passes, seed=seed)
    settings = EnsembleDetector(interpreters).settings()["interpreters"]
    facts = (classifier.fingerprint(), settings, perturbation, passes, seed)
    folder = work / f"{'+'.join(names)}-{identity(run, *facts)}"

    def measure(some: Sequence[PlannedPhoto]) -> list[Mapping[str, Any]]:
        struck = strike(run, some, attack, folder)
        return [{"reached": reached} for reached in struck.reached]

    pieces = kept_together(
        photos,
        folder,
        key=lambda photo: photo.key,
        size=run.plan.batch_size,
        measure=measure,
        read=lambda content: bool(content["reached"]),
        what=f"attack on all maps by one who knows no detector, {resources}",
        note=note,
    )
    found = {photo.image_id: Attacked(folder / f"{photo.key}.png", reached) for photo, reached in pieces}
    return {Condition("adv2", "+".join(names)).key: found}
