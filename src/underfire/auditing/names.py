"""From a name that a user typed to the part that it names."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from underfire import interpreters
from underfire.attacks.perturbations import L2, Flow, Linf, Perturbation
from underfire.attacks.registry import ATTACKS
from underfire.choices import pick
from underfire.errors import InputError, InputWarning
from underfire.interpreters import RTS, Interpreter, MaskingNetwork
from underfire.interpreters.base import check_together
from underfire.interpreters.registry import INTERPRETERS
from underfire.models.classifier import Classifier
from underfire.plugins import Parts

_ROUNDING = 1e-4  # of a grey level: what 0.0314 for 8/255 is off is more


def known_interpreters() -> dict[str, type[Interpreter]]:
    """Every interpreter that comes with the package, by the name that users type."""
    return {cls.name: cls for cls in interpreters.ALL}


def load_parts(interpreters: Iterable[str] = (), attacks: Iterable[str] = ()) -> None:
    """Import those that are written ``package.module:Name`` or ``file.py:Name``, as the user named them.

    Raises:
        InputError: one is unknown, cannot be imported, or is none.
    """
    for spec in interpreters:
        INTERPRETERS.load(spec)
    for spec in attacks:
        ATTACKS.load(spec)


def make_interpreters(
    names: Iterable[str],
    classifier: Classifier,
    *,
    rts: str | None = None,
    given: Mapping[str, Interpreter] = MappingProxyType({}),
) -> tuple[Interpreter, ...]:
    """The named interpreters in this order, RTS with the weights in the file ``rts``, or those of the package.

    Args:
        names: of built-in ones or of installed packages, or ``package.module:Name`` where the user has named it.
        classifier: that they explain.
        rts: the file of RTS's weights.
        given: interpreters that are made already, by their names, which go before all others.

    Raises:
        InputError: a name is unknown, or ``classifier`` or the weights do not suit.
    """

    def make(name: str) -> Interpreter:
        if name in given:
            return given[name]
        interpreter = INTERPRETERS.find(name)
        if issubclass(interpreter, RTS) and rts is not None:
            return interpreter(classifier, network=MaskingNetwork.load(rts, classifier))
        return interpreter(classifier)

    made = tuple(make(name) for name in names)
    if made:
        check_together(made)
    return made


def known_perturbations() -> dict[str, type[Linf] | type[L2] | type[Flow]]:
    """Every perturbation model by the name that users type."""
    return {cls.name: cls for cls in (Linf, L2, Flow)}


def make_perturbation(name: str, eps: float | None) -> Perturbation:
    """The named model with the budget ``eps``, in its unit, or its default, for images that are scored in 8 bit.

    Warns with an `InputWarning` where ``eps`` is no whole number of grey levels.

    Raises:
        InputError: for the name or the budget, also one below a grey level: each saved image would be the benign one.
    """
    cls = pick(name, known_perturbations(), "perturbation")
    model = cls() if eps is None else cls(eps)
    if isinstance(model, Linf):
        levels, whole = model.eps * 255, model.grey_levels
        if whole < 1:
            raise InputError(
                f"eps {model.eps:g} is {levels:.4g} of a grey level, and images are scored as saved in 8 bit, where it "
                "changes nothing; give at least 1/255"
            )
        if levels - whole > _ROUNDING:
            warnings.warn(
                f"eps {model.eps:g} is {levels:.4g} grey levels; images are scored as saved in 8 bit, so it counts as "
                f"{whole}: give {whole}/255 or {whole + 1}/255",
                InputWarning,
                stacklevel=2,
            )
    return model


def split_parts(text: str, parts: Parts[Any], *, besides: Sequence[str] = ()) -> tuple[str, ...]:
    """The names in a comma-separated ``text``, each that of one of ``parts``, or one of the words ``besides``.

    Raises:
        InputError: a name is unknown, or one of the user's own cannot be imported or is none.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in besides:
            parts.load(name)
    return names
