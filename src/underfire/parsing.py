"""Values that users write as text, as numbers; what is none is refused with an example of how it is written."""

import math
import re
from fractions import Fraction

from underfire.errors import InputError
from underfire.files import quoted

MOST = 10**9 - 1
"""The largest number of photos, passes or the like that is taken."""

SEEDS = range(-(2**63), 2**63)
"""The seeds that a row can hold."""

_DECIMAL = r"[+-]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][+-]?[0-9]{1,3})?"
_NUMBER = re.compile(rf"({_DECIMAL})(?:/({_DECIMAL}))?", re.ASCII)  # short: 1e99999999 takes for ever to work out


def number(text: str, example: str = "8/255 or 0.03") -> float:
    """A finite number: ``8/255``, ``0.03`` or ``3``; ``example`` shows how it is written."""
    found = _NUMBER.fullmatch(text.replace(" ", ""))
    try:
        value = math.nan if found is None else float(Fraction(found[1]) / Fraction(found[2] or 1))
    except (ZeroDivisionError, OverflowError):
        value = math.nan
    if math.isnan(value):
        raise InputError(f"{quoted(text)} is not a number; write it as {example}")
    return value


def numbers(text: str, example: str = "0.485,0.456,0.406") -> tuple[float, ...]:
    """Comma-separated numbers in the order given, such as one per channel."""
    return tuple(number(part, example) for part in text.split(","))


def budgets(text: str) -> tuple[float, ...]:
    """Comma-separated budgets, in the order given: ``2/255,4/255``."""
    return numbers(text, "2/255,4/255")


def positive(text: str) -> float:
    """A number above zero."""
    value = number(text)
    if value <= 0:
        raise InputError(f"{quoted(text)} is not a number above 0")
    return value


def names(text: str) -> tuple[str, ...]:
    """Names apart by commas, such as ``target/kept,kept/topk``; at least one.

    Raises:
        InputError: one is empty.
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise InputError(f"{text!r} is no list of names; write them apart by commas")
    return found


def size(text: str) -> tuple[int, int]:
    """(height, width) in pixels: ``224`` for a square, or ``224x160``."""
    parts = text.lower().split("x")
    try:
        height, width = map(count, parts * 2 if len(parts) == 1 else parts)
    except ValueError as error:
        raise InputError(f"{quoted(text)} is not a size; write it as 224 or 224x160 (height x width)") from error
    return height, width


def whole(text: str) -> int | None:
    """A whole number of at most 19 digits; None where ``text`` is none."""
    return int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", text, re.ASCII) else None


def count(text: str) -> int:
    """A whole number of at least 1."""
    value = whole(text)
    if value is None or not 1 <= value <= MOST:
        raise InputError(f"{quoted(text)} is not a whole number from 1 to {MOST}")
    return value


def counts(text: str) -> tuple[int, ...]:
    """Comma-separated numbers of passes: ``50,100``."""
    try:
        return tuple(map(count, text.split(",")))
    except InputError as error:
        raise InputError(f"{quoted(text)} is no list of numbers of passes; write it as 50,100") from error


def seed(text: str) -> int:
    """A seed: a whole number of 64 bits."""
    value = whole(text)
    if value is None or value not in SEEDS:
        raise InputError(f"{quoted(text)} is no seed; give a whole number from -2^63 to 2^63 - 1")
    return value
