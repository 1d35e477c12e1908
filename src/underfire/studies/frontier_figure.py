"""The figure of the frontier: one column per interpreter, confidence against L1 and against IoU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from underfire.present.svg import ADV2, INK, LINE, MUTED, PAPER, PGD, inline
from underfire.stats import Estimate

_ROLES = {"adv2": (ADV2, "ADV²"), "pgd": (PGD, "PGD")}
_COLUMN_IN, _ROW_IN = 2.3, 2.1
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN, _BETWEEN_IN = 0.62, 0.15, 0.6, 0.55, 0.22, 0.62
_MARGIN, _LABEL = 0.04, 0.08  # of an axis: beyond the last spot, and for the label above it


@dataclass(frozen=True)
class Spot:
    """One point of a frontier: means over the photos whose label was reached.

    Attributes:
        label: what was allowed there, ``8/255``.
        confidence, l1, iou: with their intervals; without a value where no label was reached.
        of: how many photos were attacked.
    """

    label: str
    confidence: Estimate
    l1: Estimate
    iou: Estimate
    of: int


@dataclass(frozen=True)
class Line:
    """The spots of one attack in rising order; ``role`` is "adv2" or "pgd"."""

    role: str
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Panel:
    """One interpreter."""

    title: str
    lines: tuple[Line, ...]


def frontier_figure(panels: Sequence[Panel], *, grows: str) -> str:
    """An SVG of ``panels`` side by side on common axes; hollow spots reached the label on less than half of the photos.

    Whiskers are the intervals. The first and the last spot of ADV² bear their labels. ``grows`` names what they are.
    """
    width = _LEFT_IN + _RIGHT_IN + len(panels) * _COLUMN_IN + (len(panels) - 1) * _GAP_IN
    height = _TOP_IN + _BOTTOM_IN + 2 * _ROW_IN + _BETWEEN_IN
    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0)
    spots = [spot for panel in panels for line in panel.lines for spot in line.spots]
    rows: tuple[tuple[str, Callable[[Spot], Estimate]], ...] = (
        ("L1 to the benign map", lambda spot: spot.l1),
        ("IoU with the benign map", lambda spot: spot.iou),
    )
    upright = _limits([spot.confidence for spot in spots])
    for row, (label, measure) in enumerate(rows):
        limits = _limits([measure(spot) for spot in spots])
        for column, panel in enumerate(panels):
            left = _LEFT_IN + column * (_COLUMN_IN + _GAP_IN)
            bottom = _BOTTOM_IN + (1 - row) * (_ROW_IN + _BETWEEN_IN)
            axes = figure.add_axes((left / width, bottom / height, _COLUMN_IN / width, _ROW_IN / height))
            _draw(axes, panel, measure)
            _style(axes, first=column == 0)
            axes.set_xlim(limits)
            axes.set_ylim(upright[0], upright[1] + _LABEL * (upright[1] - upright[0]))
            axes.set_xlabel(label, color=MUTED, fontsize=9.5)
            if column == 0:
                axes.set_ylabel("confidence", color=MUTED, fontsize=9.5)
            if row == 0:
                axes.set_title(panel.title, color=INK, fontsize=11, loc="left", parse_math=False)
    _legend(figure, grows, left=_LEFT_IN / width, top=1 - 0.12 / height, width=width)
    description = (
        f"Confidence against L1 and IoU of {', '.join(panel.title for panel in panels)} under ADV² and PGD, "
        f"as {grows} grows; the table has the numbers."
    )
    return inline(figure, name="frontier", description=description)


def _draw(axes: Any, panel: Panel, measure: Callable[[Spot], Estimate]) -> None:
    for line in panel.lines:
        colour, _ = _ROLES[line.role]
        seen = [(spot, x, y) for spot in line.spots if (x := measure(spot).value) is not None
                and (y := spot.confidence.value) is not None]  # fmt: skip
        axes.plot([x for _, x, _ in seen], [y for _, _, y in seen], color=colour, linewidth=1.2, zorder=2)
        for spot, x, y in seen:
            across, up = measure(spot), spot.confidence
            if across.low is not None and across.high is not None:
                axes.plot([across.low, across.high], [y, y], color=colour, linewidth=0.7, alpha=0.45, zorder=1)
            if up.low is not None and up.high is not None:
                axes.plot([x, x], [up.low, up.high], color=colour, linewidth=0.7, alpha=0.45, zorder=1)
            full = 2 * up.n >= spot.of
            axes.plot(
                [x], [y], marker="o", markersize=5.5, markerfacecolor=colour if full else PAPER,
                markeredgecolor=colour, markeredgewidth=1.2, zorder=3,
            )  # fmt: skip
        if line.role == "adv2":
            for spot, x, y in (seen[0], seen[-1]) if len(seen) > 1 else seen:
                axes.annotate(
                    spot.label, (x, y), xytext=(0, 7), textcoords="offset points", fontsize=8.5, color=INK,
                    ha="center", parse_math=False, zorder=4,
                )  # fmt: skip


def _style(axes: Any, *, first: bool) -> None:
    axes.patch.set_alpha(0)
    axes.tick_params(colors=MUTED, labelsize=9, length=3)
    axes.locator_params(nbins=5)
    axes.grid(color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    if not first:
        axes.tick_params(labelleft=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)


def _legend(figure: Figure, grows: str, *, left: float, top: float, width: float) -> None:
    place = left
    for colour, text in _ROLES.values():
        figure.text(place, top, f"● {text}", color=colour, fontsize=10, va="top")
        place += 0.75 / width
    figure.text(place, top, f"○ label reached on less than half · labels: {grows}", color=MUTED, fontsize=9, va="top")


def _limits(figures: Sequence[Estimate]) -> tuple[float, float]:
    """Both ends of an axis that shows all ``figures`` with their intervals."""
    values = [end for figure in figures for end in (figure.low, figure.value, figure.high) if end is not None]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = max(_MARGIN * (high - low), 0.005)
    return low - margin, high + margin
