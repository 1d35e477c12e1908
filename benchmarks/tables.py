"""Tables that read well in a terminal and are Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timing import Ratio
from underfire.stats import Estimate


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of as many cells, and remarks below.

    Raises:
        ValueError: a row has another number of cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {row} has not {len(self.columns)} cells")

    def __str__(self) -> str:
        """Markdown, the columns aligned: the first to the left, numbers to the right."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
        lines = [f"### {self.title}", "", _line(self.columns, widths), f"|{rule}|"]
        lines += [_line(row, widths) for row in self.rows]
        lines += ["", *self.notes, ""] if self.notes else [""]
        return "\n".join(lines)


def at_most(found: Ratio, limit: float) -> str:
    """Whether ``found`` keeps to ``limit``, in a word or two."""
    if found.value <= limit:
        return "met"
    return "missed, within the interval" if found.low <= limit else "missed"


def at_least(found: Ratio, limit: float) -> str:
    """Whether ``found`` reaches ``limit``, in a word or two."""
    if found.value >= limit:
        return "met"
    return "missed, within the interval" if found.high >= limit else "missed"


def interval(found: Estimate, *, signed: bool = False, digits: int = 3) -> str:
    """A mean or share with its interval, as ``0.512 [0.431, 0.590]``."""
    form = f"{'+' if signed else ''}.{digits}f"
    if found.value is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:{form}}"
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"
