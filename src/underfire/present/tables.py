"""Records as tables: for machines (Arrow) and for people (text)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from underfire.auditing.condition import Condition
from underfire.stats import Estimate

TEXT = "text"
"""In the metadata of a field whose column is the value's `str`."""

_NOTHING = "–"
_ENDS = ("_low", "_high")


def to_arrow(records: Iterable[Any], kind: type) -> pa.Table:
    """``records``, dataclasses of the type ``kind``, as a table with a column per field.

    A field that is an `Estimate` becomes NAME, NAME_low and NAME_high; a mapping whose metadata has ``columns``, the
    names of whole numbers, becomes these columns; a dataclass becomes the columns of its own fields, without values
    where there is None; a `Condition`, and a field whose metadata has `TEXT`, is written out; text, numbers and
    enumerations stay what they are.
    """
    rows = [dict(_cells(record)) for record in records]
    return pa.Table.from_pylist(rows, schema=pa.schema(_columns(kind)))


def _columns(kind: type, *, optional: bool = False) -> Iterator[pa.Field]:
    """The columns of the dataclass ``kind``; of an ``optional`` one all may lack values."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        kinds = _alternatives(hints[field.name])
        nullable = optional or NoneType in kinds
        nested = next((k for k in kinds if is_dataclass(k) and isinstance(k, type) and k is not Condition), None)
        if "columns" in field.metadata:
            yield from (pa.field(name, pa.int64(), nullable=optional) for name in field.metadata["columns"])
        elif TEXT in field.metadata:
            yield pa.field(field.name, pa.string(), nullable=nullable)
        elif nested is None:
            yield pa.field(field.name, _arrow(kinds), nullable=nullable)
        elif issubclass(nested, Estimate):
            yield from (pa.field(name, pa.float64()) for name in _names(field.name))
        else:
            yield from _columns(nested, optional=nullable)


def shown(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    """The columns' names and the rows of ``table`` as text.

    Columns NAME, NAME_low and NAME_high are shown as one, ``0.028 (0.020 to 0.036)``, and those without any value are
    left out.
    """
    names = list(table.column_names)
    ends = {f"{name}{end}" for name in names for end in _ENDS} & set(names)
    kept = [name for name in names if name not in ends and table[name].null_count < len(table)]
    rows = [[_figure(row, name) for name in kept] for row in table.to_pylist()]
    return kept, rows


def markdown(table: pa.Table) -> list[str]:
    """``table`` as the lines of a Markdown table."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in cells)} |"

    names, rows = shown(table)
    return [line(names), line(["---"] * len(names)), *map(line, rows)]


def _cells(record: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(record):
        value = getattr(record, field.name)
        match value:
            case Estimate():
                yield from zip(_names(field.name), (value.value, value.low, value.high), strict=True)
            case Mapping():
                yield from value.items()
            case Enum():
                yield field.name, value.value
            case _ if isinstance(value, Condition) or (TEXT in field.metadata and value is not None):
                yield field.name, str(value)
            case _ if is_dataclass(value):
                yield from _cells(value)
            case _:
                yield field.name, value


def _names(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _arrow(kinds: tuple[Any, ...]) -> pa.DataType:
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if kind in kinds:
            return arrow
    if any(k is str or get_origin(k) is Literal or _is_text(k) for k in kinds):
        return pa.string()
    raise TypeError(f"a column cannot hold {kinds}; give text, a number, an enumeration or an Estimate")


def _is_text(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum | str | Condition)


def _figure(row: Mapping[str, object], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    value = _cell(row[name])
    return value if low is None or high is None else f"{value} ({_cell(low)} to {_cell(high)})"


def _cell(value: object) -> str:
    """On one line: three digits of a number, a dash for None."""
    match value:
        case None:
            return _NOTHING
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}"
        case _:
            return " ".join(str(value).split())
