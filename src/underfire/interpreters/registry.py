"""The interpreters that there are, by name: built-in ones, those of installed packages, and the user's own."""

from underfire import interpreters
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.plugins import Parts

INTERPRETERS: Parts[Interpreter] = Parts(
    "interpreter", "underfire.interpreters", Interpreter, lambda: {cls.name: cls for cls in interpreters.ALL}
)
"""All classes of interpreters by name."""


def interpreter_title(name: str) -> str:
    """An interpreter as the literature writes it: ``cam`` is CAM; one without a title is its name in capitals."""
    try:
        return INTERPRETERS.find(name).title or name.upper()
    except InputError:
        return name.upper()


def passes_per_step(name: str) -> int | None:
    """Forward and backward passes of a joint step on the interpreter; None where it is not known."""
    try:
        return INTERPRETERS.find(name).passes_per_step
    except InputError:
        return None


def passes_per_map(name: str) -> int | None:
    """Forward and backward passes of a map of the interpreter; None where it is not known."""
    try:
        return INTERPRETERS.find(name).passes_per_map
    except InputError:
        return None
