"""Plots that the report and studies share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from underfire.present.svg import ADV2, INK, LINE, MUTED, NOISE, PAPER, PGD, inline

_ROLES = {"adv2": ADV2, "pgd": PGD, "noise": NOISE}

_WIDTH_IN, _ROW_IN, _AXIS_IN = 5.0, 0.62, 0.62
_BELOW = -0.3  # where the median and the quartiles lie, so that they hide no point
_POINTS_OF_A_CROWD = 120  # beyond that many, points shrink and grow transparent


LEAST_FOR_QUARTILES = 5
"""With fewer photos, quartiles would be interpolated from next to nothing, and are not drawn."""


@dataclass(frozen=True)
class Series:
    """One line of a strip plot.

    Attributes:
        name: what the reader sees at its left.
        role: "adv2", "pgd" or "noise"; it decides the colour.
        values: one number per photo, of which the median and the quartiles are drawn.
        failures: numbers of photos whose label the attack missed: drawn hollow, left out of the median.
    """

    name: str
    role: str
    values: tuple[float, ...]
    failures: tuple[float, ...] = ()


def strips(series: Sequence[Series], *, upper: float, label: str, name: str, description: str) -> str:
    """Every photo as a point, one line per series, with the median and the middle half of the photos.

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
    figure = Figure(figsize=(_WIDTH_IN, height))
    axes = figure.add_axes((0.2, _AXIS_IN / height, 0.77, 1 - (_AXIS_IN + 0.06) / height))
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    for row, line in enumerate(series):
        colour = _ROLES[line.role]
        count = len(line.values) + len(line.failures)
        size, alpha = (26.0, 0.75) if count <= _POINTS_OF_A_CROWD else (7.0, 0.45)
        centre = rows - 1 - row
        axes.axhline(centre + _BELOW, color=LINE, linewidth=0.8, zorder=0)
        solid, hollow = _spread(line.values), _spread(line.failures)
        axes.scatter(line.values, centre + solid, s=size, color=colour, alpha=alpha, linewidths=0, zorder=2)
        axes.scatter(
            line.failures,
            centre + hollow,
            s=size,
            facecolors="none",
            edgecolors=colour,
            linewidths=0.9,
            zorder=2,
        )
        if line.values:
            low, median, high = np.quantile(line.values, (0.25, 0.5, 0.75))
            level = centre + _BELOW
            if len(line.values) >= LEAST_FOR_QUARTILES:
                axes.plot([low, high], [level] * 2, color=INK, linewidth=2.4, solid_capstyle="butt", zorder=3)
            axes.plot([median], [level], marker="D", markersize=6.5, color=INK, markeredgecolor=PAPER, zorder=4)
        axes.text(
            -0.03, centre, line.name, transform=axes.get_yaxis_transform(), ha="right", va="center",
            fontsize=11, color=INK, parse_math=False,
        )  # fmt: skip
    axes.set_ylim(-0.62, rows - 0.55)
    axes.set_xlim(-0.02 * upper, upper * 1.02)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=MUTED, labelsize=10, length=3)
    axes.set_xlabel(label, color=MUTED, fontsize=10.5)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    return inline(figure, name=name, description=description)


def _spread(values: Sequence[float]) -> NDArray[np.float64]:
    """Heights that keep points of nearly the same value apart, the same ones every time."""
    golden = (np.sqrt(5) - 1) / 2
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(((order * golden + 0.5) % 1 - 0.5) * 0.46 + 0.06, dtype=np.float64)
