"""The attacks that a plan means."""

from collections.abc import Sequence

from underfire.attacks import ADV2, PGD, AuthorsADV2, Square, StAdv
from underfire.attacks.perturbations import Perturbation
from underfire.auditing.condition import Condition
from underfire.auditing.plan import AuditPlan, Effort, Preset
from underfire.errors import InputError
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier


def attack_of(
    plan: AuditPlan, condition: Condition, classifier: Classifier, interpreters: Sequence[Interpreter]
) -> PGD | ADV2 | AuthorsADV2 | Square | StAdv:
    """The attack of ``condition`` on ``classifier`` and on the one of the ``interpreters`` that it names, if any.

    Raises:
        InputError: the plan's passes don't pay for a single step, or the authors have no schedule for the interpreter.
    """
    perturbation, effort = plan.perturbation_of(condition), plan.effort_of(condition)
    if condition.attack == "pgd":
        return PGD(classifier, perturbation=perturbation, steps=effort.steps, passes=effort.passes)
    attacked = [g for g in interpreters if condition.is_own(g.name)]
    return joint_attack(
        condition.attack, plan.preset, attacked, perturbation=perturbation, effort=effort, seed=plan.seed
    )


def joint_attack(
    attack: str,
    preset: Preset,
    interpreters: Sequence[Interpreter],
    *,
    perturbation: Perturbation,
    effort: Effort,
    seed: int,
) -> ADV2 | AuthorsADV2 | Square | StAdv:
    """The attack on prediction and maps: StAdv, Square, ADV², or with the preset ``authors`` that of its authors.

    Square takes as many queries as its effort has passes or steps.

    Raises:
        InputError: the passes don't pay for a single step, or the authors have no schedule for several interpreters,
            or for this one.
    """
    if attack == "stadv":
        return StAdv(interpreters, eps=perturbation.eps, steps=effort.steps, passes=effort.passes, seed=seed)
    if attack == "square":
        return Square(interpreters, eps=perturbation.eps, queries=effort.passes or effort.steps or 0, seed=seed)
    if preset != "authors":
        return ADV2(interpreters, perturbation=perturbation, steps=effort.steps, passes=effort.passes, seed=seed)
    if len(interpreters) != 1:
        names = ", ".join(g.name for g in interpreters)
        raise InputError(f"the preset 'authors' attacks one interpreter, not {names} at once; name one of them")
    return AuthorsADV2(interpreters[0], eps=perturbation.eps, steps=effort.steps, passes=effort.passes, seed=seed)
