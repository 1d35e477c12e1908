"""What values show of themselves in a notebook: tables, pictures, plots and a progress bar, without widgets.

matplotlib and IPython are imported when something is shown.
"""

import base64
import sys
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

SHOWN = 4
"""Of how many images a result shows pictures."""
ROWS = 20
"""Of how many images it shows rows."""


def text(value: object) -> str:
    """A cell: three digits of a number, yes or no, anything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plural(count: int, noun: str) -> str:
    """``1 photo``, ``2 photos``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def agreeing(count: float, one: str, many: str) -> str:
    """What is said of ``count``: ``is`` or ``are``, ``abstains`` or ``abstain``."""
    return one if count == 1 else many


def table(title: str, rows: Sequence[Mapping[str, object]], *, note: str = "") -> str:
    """``rows`` with the same keys as an HTML table; of more than `ROWS` the first ones, with a line that says so."""
    left = len(rows) - ROWS
    notes = [note] if note else []
    notes += [f"{plural(left, 'more row')} {agreeing(left, 'is', 'are')} not shown."] if left > 0 else []
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0]) if rows else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text(value))}</td>" for value in row.values()) + "</tr>" for row in rows[:ROWS]
    )
    below = "".join(f"<p>{escape(line)}</p>" for line in notes)
    return (
        f"<p><strong>{escape(title)}</strong></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
    )


def grid(rows: "Sequence[Sequence[tuple[str, Tensor]]]") -> "Figure":
    """Titled pictures in rows: images (C, H, W) in [0, 1], or maps (h, w) in [0, 1]."""
    from underfire.display.figures import drawn_grid

    return drawn_grid(rows)


def figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, which belongs to no window and shows itself in a notebook."""
    from underfire.display.figures import NotebookFigure

    return NotebookFigure(figsize=(width, height), layout="constrained")


def picture(drawn: "Figure", *, alt: str) -> str:
    """``drawn`` as an HTML image that holds its own data."""
    from underfire.display.figures import jpeg

    data = base64.b64encode(jpeg(drawn)).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


class NotebookBar:
    """A progress bar in the output of a notebook's cell."""

    def __init__(self) -> None:
        shown: Any = import_module("IPython.display")
        self._html = shown.HTML
        self._handle = shown.display(shown.HTML(""), display_id=True)

    def show(self, share: float, note: str) -> None:
        """Draws the bar at ``share`` from 0 to 1, with a note behind."""
        self._handle.update(self._html(f'<progress value="{share:.4f}" max="1"></progress> {escape(note)}'))
