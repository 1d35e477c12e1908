"""Plots that the report and studies share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from underfire.present.svg import ADV2, INK, LINE, MUTED, NOISE, PAPER, PGD, inline
from underfire.stats import Estimate

_ROLES = {"adv2": ADV2, "pgd": PGD, "noise": NOISE}

_WIDTH_IN, _ROW_IN, _AXIS_IN = 5.0, 0.62, 0.62
_BELOW = -0.3  # where the median and the quartiles lie, so that they hide no point
_FLOOR, _TALLEST = -0.2, 0.58  # of a density, in heights of a line
_POINTS_OF_A_CROWD = 120  # beyond that many, points shrink and grow transparent


LEAST_FOR_QUARTILES = 5
"""With fewer photos, quartiles would be interpolated from next to nothing, and are not drawn."""


@dataclass(frozen=True)
class Series:
    """One line of a strip plot.

    Attributes:
        name: what the reader sees at its left.
        role: "adv2", "pgd" or "noise"; it decides the colour.
        values: one number per photo that a figure rests on.
        failures: numbers of photos whose label the attack missed, drawn hollow.
        quartiles: of the former, to be drawn; None without any.
        n: how many they are.
        densities: where there are too many for points, of both how many lie in each of equally many steps from 0 to 1.
    """

    name: str
    role: str
    values: tuple[float, ...]
    failures: tuple[float, ...]
    quartiles: tuple[float, ...] | None
    n: int
    densities: tuple[tuple[int, ...], ...] = ()


def blank(width: float, height: float) -> Figure:
    """A figure of this size in inches, transparent."""
    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0)
    return figure


def axes_of(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Transparent axes in the ``box`` (left, bottom, width, height) of ``figure``, as shares of its size."""
    axes = figure.add_axes(box)
    axes.patch.set_alpha(0)
    return axes


def label_axes(axes: Axes, *, x: str, y: str | None = None, tick_size: float = 9.0, size: float = 10.0) -> None:
    """Names the axes and leaves only those that are named; without ``y`` the rows are labelled by the caller."""
    axes.set_xlabel(x, color=MUTED, fontsize=size)
    if y is None:
        axes.set_yticks([])
        axes.tick_params(axis="x", colors=MUTED, labelsize=tick_size, length=3)
    else:
        axes.set_ylabel(y, color=MUTED, fontsize=size)
        axes.tick_params(which="both", colors=MUTED, labelsize=tick_size, length=3)
    for side in ("left", "bottom", "right", "top"):
        if side == "bottom" or (side == "left" and y is not None):
            axes.spines[side].set_color(LINE)
        else:
            axes.spines[side].set_visible(False)


def text_at(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    ha: str = "left",
    weight: str = "normal",
    size: float = 9.5,
) -> None:
    """``text`` at the height ``y`` of the data and at ``x`` of the axes' width, 0 to 1 inside them."""
    axes.text(
        x, y, text, transform=axes.get_yaxis_transform(), ha=ha, va="center", fontsize=size, color=colour,
        fontweight=weight, parse_math=False,
    )  # fmt: skip


def mark(
    axes: Axes,
    x: Estimate,
    y: Estimate | float,
    colour: str,
    *,
    solid: bool,
    whisker: float,
    alpha: float,
    edge: float,
    zorders: tuple[float, float] = (1, 3),
) -> None:
    """An estimate as a point, hollow unless ``solid``, with whiskers for the intervals of ``x`` and ``y``.

    Nothing is drawn of what has no value. ``whisker`` and ``alpha`` are the whiskers' width and opacity, ``edge`` is
    the width of the point's edge, and ``zorders`` are those of whiskers and point.
    """
    height = y.value if isinstance(y, Estimate) else y
    below, above = zorders
    if x.value is None or height is None:
        return
    if x.low is not None and x.high is not None:
        axes.plot([x.low, x.high], [height] * 2, color=colour, linewidth=whisker, alpha=alpha, zorder=below)
    if isinstance(y, Estimate) and y.low is not None and y.high is not None:
        axes.plot([x.value] * 2, [y.low, y.high], color=colour, linewidth=whisker, alpha=alpha, zorder=below)
    axes.plot(
        [x.value], [height], marker="o", markersize=5.5, markerfacecolor=colour if solid else PAPER,
        markeredgecolor=colour, markeredgewidth=edge, zorder=above,
    )  # fmt: skip


def legend_below(figure: Figure, axes: Axes, *, columns: int = 4) -> None:
    """The legend of what is drawn in ``axes``, under all axes of ``figure``."""
    handles, names = axes.get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="lower center", ncol=columns, frameon=False, fontsize=9.5)
    for text in legend.get_texts():
        text.set_color(INK)


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot.

    Attributes:
        name: at its left.
        figure: the point and its interval.
        colour: of both.
        note: at its right.
        strong: a diamond and a name in ink, where others have a circle.
        hollow: whether the point is.
        noted: whether the note is in ink.
    """

    name: str
    figure: Estimate
    colour: str
    note: str = ""
    strong: bool = False
    hollow: bool = False
    noted: bool = False


@dataclass(frozen=True)
class ForestBlock:
    """Rows under a heading; ``reference`` is a dotted line through them in the colour of PGD."""

    heading: str
    rows: tuple[ForestRow, ...]
    reference: float | None = None


_FOREST_WIDTH, _FOREST_ROW, _FOREST_HEAD, _FOREST_FOOT = 8.4, 0.27, 0.42, 0.6  # inches
_FOREST_LEFT, _FOREST_RIGHT = 0.19, 0.67  # of the width


def forest(blocks: Sequence[ForestBlock], *, label: str, name: str, description: str) -> str:
    """Estimates with their intervals, one per line, in blocks from top to bottom, on one axis that begins at 0.

    Args:
        blocks: from top to bottom.
        label: of the axis.
        name: unique on the page; it prefixes every id of the SVG.
        description: read aloud instead of the picture.

    Returns:
        An ``<svg>`` element, the same bytes for the same numbers.
    """
    height = _FOREST_FOOT + sum(_FOREST_HEAD + _FOREST_ROW * len(block.rows) for block in blocks)
    ends = [row.figure.high or row.figure.value or 0.0 for block in blocks for row in block.rows]
    figure = blank(_FOREST_WIDTH, height)
    box = (_FOREST_LEFT, _FOREST_FOOT / height, _FOREST_RIGHT - _FOREST_LEFT, 1 - _FOREST_FOOT / height)
    axes = axes_of(figure, box)
    level = height - _FOREST_FOOT
    for block in blocks:
        level -= _FOREST_HEAD
        text_at(axes, -0.36, level + _FOREST_ROW * 0.9, block.heading, INK, weight="bold")
        if block.reference is not None:
            span = [level + 0.5 * _FOREST_ROW, level + (0.5 - len(block.rows)) * _FOREST_ROW]
            axes.plot([block.reference] * 2, span, color=PGD, linewidth=0.8, linestyle=":")
        for row in block.rows:
            _draw_row(axes, level, row)
            level -= _FOREST_ROW
    axes.set_ylim(0, height - _FOREST_FOOT)
    axes.set_xlim(0, (max(ends, default=0.0) or 1.0) * 1.04)
    label_axes(axes, x=label, tick_size=9.5)
    return inline(figure, name=name, description=description)


def _draw_row(axes: Axes, level: float, row: ForestRow) -> None:
    axes.axhline(level, color=LINE, linewidth=0.5, zorder=0)
    text_at(axes, -0.02, level, row.name, INK if row.strong else MUTED, ha="right")
    if row.figure.low is not None and row.figure.high is not None:
        axes.plot([row.figure.low, row.figure.high], [level, level], color=row.colour, linewidth=1.6, zorder=2)
    axes.plot(
        [row.figure.value or 0.0], [level], marker="D" if row.strong else "o", markersize=6, color=row.colour,
        markerfacecolor=PAPER if row.hollow else row.colour, markeredgewidth=1.4, zorder=3, clip_on=False,
    )  # fmt: skip
    text_at(axes, 1.03, level, row.note, INK if row.noted else MUTED)


@dataclass(frozen=True)
class Points:
    """The marks of one name in a scatter plot: ``hollow`` ones are those of attacks that missed their label."""

    name: str
    colour: str
    solid: tuple[tuple[float, float], ...]
    hollow: tuple[tuple[float, float], ...] = ()


_SHAPES = "osD^vP*X<>"


def scatter(axes: Axes, series: Sequence[Points]) -> None:
    """Draws every point of ``series``, each with a shape of its own."""
    for index, points in enumerate(series):
        shape = _SHAPES[index % len(_SHAPES)]
        for some, solid in ((points.solid, True), (points.hollow, False)):
            if some or solid:
                axes.scatter(
                    [x for x, _ in some], [y for _, y in some], s=22, marker=shape, alpha=0.75, linewidths=0.9,
                    facecolors=points.colour if solid else "none", edgecolors=points.colour,
                    label=points.name if solid else None,
                )  # fmt: skip


def strips(series: Sequence[Series], *, upper: float, label: str, name: str, description: str) -> str:
    """Every photo as a point, or their density, one line per series, with the median and the middle half of the photos.

    Points stay honest from a handful of photos to hundreds: nothing is smoothed, and nothing is left out.

    Args:
        series: from top to bottom.
        upper: end of the axis, which begins at 0.
        label: of the axis.
        name: unique on the page; it prefixes every id of the SVG.
        description: read aloud instead of the picture.

    Returns:
        An ``<svg>`` element, the same bytes for the same numbers.
    """
    rows = len(series)
    height = _AXIS_IN + _ROW_IN * rows
    figure = blank(_WIDTH_IN, height)
    axes = axes_of(figure, (0.2, _AXIS_IN / height, 0.77, 1 - (_AXIS_IN + 0.06) / height))
    for row, line in enumerate(series):
        colour = _ROLES[line.role]
        centre = rows - 1 - row
        axes.axhline(centre + _BELOW, color=LINE, linewidth=0.8, zorder=0)
        if line.densities:
            _draw_density(axes, centre, line.densities, colour)
        else:
            _draw_points(axes, centre, line, colour)
        if line.quartiles is not None:
            low, median, high = line.quartiles
            level = centre + _BELOW
            if line.n >= LEAST_FOR_QUARTILES:
                axes.plot([low, high], [level] * 2, color=INK, linewidth=2.4, solid_capstyle="butt", zorder=3)
            axes.plot([median], [level], marker="D", markersize=6.5, color=INK, markeredgecolor=PAPER, zorder=4)
        axes.text(
            -0.03, centre, line.name, transform=axes.get_yaxis_transform(), ha="right", va="center",
            fontsize=11, color=INK, parse_math=False,
        )  # fmt: skip
    axes.set_ylim(-0.62, rows - 0.55)
    axes.set_xlim(-0.02 * upper, upper * 1.02)
    label_axes(axes, x=label, tick_size=10, size=10.5)
    return inline(figure, name=name, description=description)


def _draw_points(axes: Axes, centre: float, line: Series, colour: str) -> None:
    size, alpha = (26.0, 0.75) if len(line.values) + len(line.failures) <= _POINTS_OF_A_CROWD else (7.0, 0.45)
    solid, hollow = _spread(line.values), _spread(line.failures)
    axes.scatter(line.values, centre + solid, s=size, color=colour, alpha=alpha, linewidths=0, zorder=2)
    axes.scatter(line.failures, centre + hollow, s=size, facecolors="none", edgecolors=colour, linewidths=0.9, zorder=2)


def _draw_density(axes: Axes, centre: float, densities: Sequence[Sequence[int]], colour: str) -> None:
    """Photos in each step as the height of a bar; those whose label was missed lie hollow on top."""
    counted, missed = (np.asarray(counts, dtype=np.float64) for counts in densities)
    steps = np.arange(len(counted) + 1) / len(counted)
    scale = _TALLEST / max(1.0, float((counted + missed).max()))
    floor = np.full(len(counted), centre + _FLOOR)
    axes.stairs(floor + scale * counted, steps, baseline=floor, fill=True, color=colour, alpha=0.75, zorder=2)
    if missed.any():
        top = floor + scale * (counted + missed)
        axes.stairs(top, steps, baseline=floor + scale * counted, color=colour, linewidth=0.8, zorder=2)


def _spread(values: Sequence[float]) -> NDArray[np.float64]:
    """Heights that keep points of nearly the same value apart, the same ones every time."""
    golden = (np.sqrt(5) - 1) / 2
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(((order * golden + 0.5) % 1 - 0.5) * 0.46 + 0.06, dtype=np.float64)
