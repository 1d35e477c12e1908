"""What values show of themselves in a notebook: tables, pictures, plots and a progress bar, without widgets.

matplotlib and IPython are imported when something is shown.
"""

import base64
import io
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

COLORMAP = "inferno"
"""Of maps. Perceptually uniform, dark for 0, bright for 1: equal steps look equally large, also in grey."""


def text(value: object) -> str:
    """A cell: three digits of a number, yes or no, anything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(title: str, rows: Sequence[Mapping[str, object]], *, note: str = "") -> str:
    """``rows`` with the same keys as an HTML table; of more than `ROWS` the first ones, with a line that says so."""
    left = len(rows) - ROWS
    notes = [note] if note else []
    notes += [f"{left} more rows are not shown."] if left > 0 else []
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0]) if rows else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text(value))}</td>" for value in row.values()) + "</tr>" for row in rows[:ROWS]
    )
    below = "".join(f"<p>{escape(line)}</p>" for line in notes)
    return (
        f"<p><strong>{escape(title)}</strong></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
    )


def picture(figure: "Figure", *, alt: str) -> str:
    """``figure`` as an HTML image that holds its own data."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, which belongs to no window and needs none."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid(rows: Sequence[Sequence[tuple[str, "Tensor"]]]) -> "Figure":
    """Titled pictures in rows of equal length: images (C, H, W) in [0, 1], or maps (h, w) in [0, 1]."""
    shape = (max(1, len(rows)), max(1, max(map(len, rows), default=1)))
    drawn = figure(2.1 * shape[1], 2.3 * shape[0])
    places = drawn.subplots(*shape, squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    for line, pictures in zip(places, rows, strict=False):
        for axes, (title, values) in zip(line, pictures, strict=False):
            axes.set_title(title, fontsize=8)
            if values.ndim == 2:
                axes.imshow(values.detach().cpu().numpy(), cmap=COLORMAP, vmin=0, vmax=1)
            else:
                seen = values.detach().cpu().clamp(0, 1).movedim(0, -1).numpy()
                axes.imshow(seen.squeeze(-1) if seen.shape[-1] == 1 else seen[..., :3], cmap="gray", vmin=0, vmax=1)
    return drawn


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
