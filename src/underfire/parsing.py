"""Values that users write as text, as numbers; what is none is refused with an example of how it is written."""

from fractions import Fraction

from underfire.errors import InputError

_DIGITS = 9  # of a whole number


def budget(text: str) -> float:
    """A budget: ``8/255``, ``0.03`` or ``3``."""
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"'{text}' is not a number; write it as 8/255 or 0.03") from error


def budgets(text: str) -> tuple[float, ...]:
    """Comma-separated budgets, in the order given: ``2/255,4/255``."""
    return tuple(map(budget, text.split(",")))


def numbers(text: str) -> tuple[float, ...]:
    """Comma-separated numbers, one per channel: ``0.485,0.456,0.406``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"'{text}' is not a list of numbers; write it as 0.485,0.456,0.406") from error


def size(text: str) -> tuple[int, int]:
    """(height, width) in pixels: ``224`` for a square, or ``224x160``."""
    parts = text.lower().split("x")
    try:
        height, width = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError as error:
        raise InputError(f"'{text}' is not a size; write it as 224 or 224x160 (height x width)") from error
    return height, width


def positive(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"'{text}' is not a number above 0")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    digits = text.strip().lstrip("0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS):
        raise InputError(f"'{text}' is not a whole number of at least 1")
    return int(digits)


def counts(text: str) -> tuple[int, ...]:
    """Comma-separated numbers of passes: ``50,100``."""
    try:
        return tuple(map(count, text.split(",")))
    except InputError as error:
        raise InputError(f"'{text}' is no list of numbers of passes; write it as 50,100") from error
