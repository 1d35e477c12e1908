"""From a name that a user typed to the part that it names."""

from collections.abc import Iterable

from underfire.attacks.perturbations import L2, Flow, Linf, Perturbation
from underfire.choices import pick
from underfire.interpreters import ALL, RTS, Interpreter, MaskingNetwork
from underfire.models.classifier import Classifier


def known_interpreters() -> dict[str, type[Interpreter]]:
    """Every interpreter by the name that users type."""
    return {cls.name: cls for cls in ALL}


def make_interpreters(
    names: Iterable[str], classifier: Classifier, *, rts: str | None = None
) -> tuple[Interpreter, ...]:
    """The named interpreters, RTS with the weights in the file ``rts``, or those that come with the package.

    Raises:
        InputError: a name is unknown, or ``classifier`` or the weights do not suit.
    """
    known = known_interpreters()

    def make(name: str) -> Interpreter:
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
