"""What a user chooses by name. Plain values: a command line reads them before anything large is imported."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, TypeVar

from underfire.errors import InputError

T = TypeVar("T")

EVERY = "all"
"""Stands for all interpreters that suit."""

PERTURBATIONS = ("linf", "l2", "flow")

EngineName = Literal["local", "ray"]

Keep = Literal["all", "adversarial", "none"]
"""Which images and maps of its photos an audit leaves: all, the images of attacks alone, or none."""

Outputs = Literal["logits", "probabilities", "sigmoid"]
"""What a model returns: logits of classes that exclude each other, their probabilities, or labels of their own each."""

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""How pixels are resized."""

Crop = Literal["center", "squash", "letterbox"]
"""What of a photo is seen where it has another shape than the input."""


def pick(name: str, known: Mapping[str, T], kind: str) -> T:
    """What ``name`` stands for among ``known``; raises `InputError` with the closest name if nothing does."""
    if name in known:
        return known[name]
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean '{close[0]}'? There" if close else "there"
    raise InputError(f"{kind} '{name}' is unknown; {hint} are: {', '.join(known)}")


def split_names(text: str, known: Sequence[str], kind: str) -> tuple[str, ...]:
    """The names in a comma-separated ``text``, each of them known; raises `InputError` otherwise."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        pick(name, dict.fromkeys(known), kind)
    return names
