"""Interpreters that are used together."""

from collections.abc import Sequence

from underfire.errors import InputError
from underfire.interpreters.base import Interpreter


def check_together(interpreters: Sequence[Interpreter]) -> None:
    """Refuse ``interpreters`` of which two share a name, or that explain different classifiers.

    Raises:
        InputError: they do.
    """
    names = [g.name for g in interpreters]
    if len(set(names)) < len(names):
        raise InputError(f"the interpreters {', '.join(names)} share a name; give each one once.")
    if any(g.classifier is not interpreters[0].classifier for g in interpreters):
        raise InputError(f"the interpreters {', '.join(names)} explain different classifiers; make them from one.")
