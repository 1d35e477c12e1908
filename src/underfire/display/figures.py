"""Figures of a notebook."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from torch import Tensor

COLORMAP = "inferno"
"""Of maps. Perceptually uniform, dark for 0, bright for 1: equal steps of the map look equally large, also in grey."""

_DPI = 80


class NotebookFigure(Figure):
    """A figure that belongs to no window, and shows itself in a notebook whatever its backend."""

    def _repr_jpeg_(self) -> bytes:
        return jpeg(self)


def jpeg(figure: Figure) -> bytes:
    """``figure`` as a JPEG: it holds photos, and a notebook keeps it as text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=_DPI, facecolor="white", pil_kwargs={"quality": 88})
    return buffer.getvalue()


def drawn_grid(rows: "Sequence[Sequence[tuple[str, Tensor]]]") -> Figure:
    """Titled pictures in rows: images (C, H, W) in [0, 1], or maps (h, w) in [0, 1]."""
    shape = (max(1, len(rows)), max(1, max(map(len, rows), default=1)))
    drawn = NotebookFigure(figsize=(2.1 * shape[1], 2.3 * shape[0]), layout="constrained")
    places = drawn.subplots(*shape, squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    for line, pictures in zip(places, rows, strict=False):
        for axes, (title, values) in zip(line, pictures, strict=False):
            axes.set_title(title, fontsize=8)
            seen = values.detach().cpu()
            if seen.ndim == 2:
                axes.imshow(seen.numpy(), cmap=COLORMAP, vmin=0, vmax=1)
            else:
                axes.imshow(seen.clamp(0, 1).movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
    return drawn
