"""JSON that others wrote, as values of declared types: a class says once what its file holds."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from underfire.errors import InputError
from underfire.files import parsed_json, quoted, shortened

T = TypeVar("T")

_DEEPEST = 16  # lists and objects within each other
_WHOLE = 2**63  # whole numbers are below, as in Parquet
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def plain_json(data: bytes) -> Any:
    """The JSON in ``data``: its numbers finite and its whole numbers of 64 bits, nested a few levels deep.

    Raises:
        InputError: it is something else. The message is the reason alone, a clause for the caller's sentence.
    """
    found = parsed_json(data)
    level, depth = [found], 0
    while level:
        if depth > _DEEPEST:
            raise InputError("it is nested too deeply")
        for value in level:
            if isinstance(value, int | float) and isinstance(told_number(value), str):
                raise InputError(f"it holds the number {shortened(str(value))}, which is too large or none")
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level, depth = [item for items in inner for item in items], depth + 1
    return found


def told_number(value: float) -> float | str:
    """``value`` as `plain_json` reads it: as text where it is not finite, or whole and none of 64 bits."""
    usable = -_WHOLE <= value < _WHOLE if isinstance(value, int) else math.isfinite(value)
    return value if usable else str(value)


def decoded(kind: type[T], value: Any, place: str = "it") -> T:
    """``value``, plain values from JSON, as ``kind``.

    Args:
        kind: a dataclass, or text, a number, a flag, None, a tuple, a mapping by text, a literal, an enumeration of
            texts, or a union of these. Types are taken as they are declared; a whole number serves as a number.
        value: to be read.
        place: what messages call it.

    Raises:
        ValueError: it is none; the message, a clause, names the place. Also what the classes raise for their fields.
    """
    found: T = _decoded(kind, value, place)
    return found


def _decoded(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _fields(kind, value, place)
    if origin in (Union, UnionType):
        return _first(arguments, value, place)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise ValueError(f"{place} is {_shown(value)}, not one of {', '.join(map(str, arguments))}")
    if origin is tuple:
        return _items(arguments, value, place)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"{place} is {_shown(value)}, not an object")
        return {key: _decoded(arguments[1], item, f"{place}[{quoted(key)}]") for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if issubclass(kind, StrEnum) and isinstance(value, str):
        return kind(value)
    if type(value) is not kind:
        raise ValueError(f"{place} is {_shown(value)}, not {_NAMES.get(kind, kind.__name__)}")
    return value


def _fields(kind: type[Any], value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is {_shown(value)}, not an object")
    declared = {field.name: field for field in fields(kind) if field.init}
    stranger = next((name for name in value if name not in declared), None)
    if stranger is not None:
        raise ValueError(f"{place} has {quoted(stranger)}, which is not known here")
    needed = (n for n, f in declared.items() if f.default is MISSING and f.default_factory is MISSING)
    missing = next((name for name in needed if name not in value), None)
    if missing is not None:
        raise ValueError(f"{place} has no {missing!r}")
    hints = get_type_hints(kind)
    return kind(**{name: _decoded(hints[name], item, f"{place}.{name}") for name, item in value.items()})


def _first(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """``value`` as the first of ``kinds`` that takes it."""
    problems = []
    for kind in kinds:
        try:
            return _decoded(kind, value, place)
        except ValueError as error:
            problems.append(error)
    tried = [(kind, error) for kind, error in zip(kinds, problems, strict=True) if kind is not NoneType]
    classes = [error for kind, error in tried if is_dataclass(kind) and isinstance(value, dict)]
    wanted = classes or [error for _, error in tried]
    raise wanted[0] if len(wanted) == 1 else ValueError(f"{place} is {_shown(value)}, which is no setting")


def _items(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{place} is {_shown(value)}, not a list")
    every = (kinds[0],) * len(value) if kinds[-1] is Ellipsis else kinds
    if len(every) != len(value):
        raise ValueError(f"{place} has {len(value)} entries, not {len(every)}")
    return tuple(_decoded(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(zip(every, value, strict=True)))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else json.dumps(value)
