"""How the words and tables of studies write their numbers."""

from collections.abc import Mapping
from typing import Any

from underfire.auditing.rows import NO_SOURCE
from underfire.present.text import condition_title
from underfire.stats import Estimate

_NOTHING = "–"


def shown(table: Any) -> tuple[list[str], list[list[str]]]:
    """The columns' names and the rows of a study's pyarrow.Table as text.

    Columns NAME, NAME_low and NAME_high are shown as one, ``0.028 (0.020 to 0.036)``, and those without any value are
    left out.
    """
    names = list(table.column_names)
    ends = {
        name for name in names for end in ("_low", "_high") if name.removesuffix(end) in names and name.endswith(end)
    }
    kept = [name for name in names if name not in ends and table[name].null_count < len(table)]
    rows = [[_figure(row, name) for name in kept] for row in table.to_pylist()]
    return kept, rows


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


def mean(figure: Estimate, digits: int = 3) -> str:
    """``0.028 (0.020 to 0.036, n = 12)``, without an interval where there is none."""
    if figure.value is None:
        return f"{_NOTHING} (n = 0)"
    value = f"{figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return f"{value} (n = {figure.n})"
    return f"{value} ({figure.low:.{digits}f} to {figure.high:.{digits}f}, n = {figure.n})"


def title(condition: str) -> str:
    """``adv2-cam`` as ADV² on CAM."""
    attack, _, source = condition.partition("-")
    return condition_title(attack, source or NO_SOURCE)
