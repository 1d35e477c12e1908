"""Which perturbation model an attack's arguments mean."""

from underfire.attacks.perturbations.base import Perturbation
from underfire.attacks.perturbations.linf import Linf
from underfire.errors import InputError


def chosen(perturbation: Perturbation | None, eps: float | None) -> Perturbation:
    """The perturbation model of an attack's arguments: the one given, or the L∞ ball of size ``eps``, 8/255 by default.

    Raises:
        InputError: both are given, a class is given in place of a model, or ``eps`` is out of range.
    """
    if perturbation is None:
        return Linf() if eps is None else Linf(eps)
    if eps is not None:
        raise InputError(
            f"eps {eps:g} is given next to a perturbation, which has a budget of its own; give one of them."
        )
    if isinstance(perturbation, type):
        name = perturbation.__name__
        raise InputError(f"perturbation {name} is a class; write {name}() for its default budget, or {name}(eps).")
    return perturbation
