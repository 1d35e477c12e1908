"""From a name that a user typed to the part that it names."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import TypeVar

from underfire.attacks.perturbations import L2, Flow, Linf, Perturbation
from underfire.errors import InputError
from underfire.interpreters import ALL, RTS, Interpreter, MaskingNetwork
from underfire.models.classifier import Classifier

T = TypeVar("T")


def pick(name: str, known: Mapping[str, T], kind: str) -> T:
    """What ``name`` stands for among ``known``; raises `InputError` with the closest name if nothing does."""
    if name in known:
        return known[name]
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean '{close[0]}'? There" if close else "there"
    raise InputError(f"{kind} '{name}' is unknown; {hint} are: {', '.join(known)}")


def known_interpreters() -> dict[str, type[Interpreter]]:
    """Every interpreter by the name that users type."""
    return {cls.name: cls for cls in ALL}


def make_interpreters(
    names: Iterable[str],
    classifier: Classifier,
    *,
    rts: str | None = None,
    given: Mapping[str, Interpreter] = MappingProxyType({}),
) -> tuple[Interpreter, ...]:
    """The named interpreters, RTS with the weights in the file ``rts``, or those that come with the package.

    ``given`` are interpreters of the user's own by name; they come before others that bear the same.

    Raises:
        InputError: a name is unknown, or ``classifier`` or the weights do not suit.
    """
    known = known_interpreters()

    def make(name: str) -> Interpreter:
        if name in given:
            return given[name]
        interpreter = pick(name, known, "interpreter")
        if issubclass(interpreter, RTS) and rts is not None:
            return interpreter(classifier, network=MaskingNetwork.load(rts, classifier))
        return interpreter(classifier)

    return tuple(make(name) for name in names)


def known_perturbations() -> dict[str, type[Linf] | type[L2] | type[Flow]]:
    """Every perturbation model by the name that users type."""
    return {cls.name: cls for cls in (Linf, L2, Flow)}


def make_perturbation(name: str, eps: float | None) -> Perturbation:
    """The named model with the budget ``eps``, in its unit, or its default; raises `InputError` for either."""
    model = pick(name, known_perturbations(), "perturbation")
    return model() if eps is None else model(eps)


def split_names(text: str, known: Sequence[str], kind: str) -> tuple[str, ...]:
    """The names in a comma-separated ``text``, each of them known; raises `InputError` otherwise."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        pick(name, dict.fromkeys(known), kind)
    return names
