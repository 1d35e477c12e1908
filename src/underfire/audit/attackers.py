"""The joint attack that a preset means."""

from collections.abc import Sequence

from underfire.attacks import ADV2, AuthorsADV2, StAdv
from underfire.attacks.perturbations import Perturbation
from underfire.audit.plan import Attack, Preset
from underfire.errors import InputError
from underfire.interpreters import Interpreter


def joint_attack(
    attack: Attack,
    preset: Preset,
    interpreters: Sequence[Interpreter],
    *,
    perturbation: Perturbation,
    steps: int,
    seed: int,
) -> ADV2 | AuthorsADV2 | StAdv:
    """The attack on prediction and maps: StAdv, ADV², or for that with the preset ``authors`` the one of its authors.

    Raises:
        InputError: the authors have no schedule for several interpreters, or for this one.
    """
    if attack == "stadv":
        return StAdv(interpreters, eps=perturbation.eps, steps=steps, seed=seed)
    if preset != "authors":
        return ADV2(interpreters, perturbation=perturbation, steps=steps, seed=seed)
    if len(interpreters) != 1:
        names = ", ".join(g.name for g in interpreters)
        raise InputError(f"the preset 'authors' attacks one interpreter, not {names} at once; name one of them")
    return AuthorsADV2(interpreters[0], eps=perturbation.eps, steps=steps, seed=seed)
