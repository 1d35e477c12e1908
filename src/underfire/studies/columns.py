"""How a figure goes into a study's table: its value and its interval, in three columns."""

from collections.abc import Iterable

import pyarrow as pa

from underfire.metrics import Mean, Rate


def three(name: str, figure: Mean | Rate) -> dict[str, float | None]:
    """``figure`` by the columns ``name``, ``name``_low and ``name``_high."""
    return dict(zip(_names(name), (figure.value, figure.low, figure.high), strict=True))


def fields_of(names: Iterable[str]) -> list[pa.Field]:
    """The columns of the figures ``names``."""
    return [pa.field(column, pa.float64()) for name in names for column in _names(name)]


def _names(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"
