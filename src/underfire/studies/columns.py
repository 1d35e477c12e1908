"""How lines and figures go into a study's table: a figure is its value and its interval, in three columns."""

from collections.abc import Iterable
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from underfire.stats import Estimate


def three(name: str, figure: Estimate) -> dict[str, Any]:
    """``figure`` by the columns ``name``, ``name``_low and ``name``_high, each a float or None."""
    return dict(zip(_names(name), (figure.value, figure.low, figure.high), strict=True))


def fields_of(names: Iterable[str]) -> list[pa.Field]:
    """The columns of the figures ``names``."""
    return [pa.field(column, pa.float64()) for name in names for column in _names(name)]


def fields_of_line(line: type, *, without: Iterable[str] = ()) -> list[pa.Field]:
    """The columns of a dataclass whose fields are numbers or text: whole numbers, floats, and text for the rest."""
    arrow = {int: pa.int64(), float: pa.float64()}
    columns = []
    for name, hint in get_type_hints(line).items():
        if name not in without:
            kinds = (hint, *get_args(hint))
            kind = next((arrow[k] for k in kinds if k in arrow), pa.string())
            columns.append(pa.field(name, kind, nullable=NoneType in kinds))
    return columns


def _names(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"
