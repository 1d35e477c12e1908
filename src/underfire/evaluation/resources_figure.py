"""A part of the figure of defences: how often each set is evaded, by what the attacker may spend."""

from collections.abc import Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from underfire.evaluation.lines import Line, spent
from underfire.present.svg import ADV2, INK, MUTED
from underfire.present.text import percent

_INK_OF_ALL = 0.55  # opacity of a cell whose set is always evaded: its text stays readable
_AIR = 0.06  # of a cell, left free around it


def resources_of(lines: Sequence[Line]) -> dict[tuple[float | None, int | None], tuple[str, str]]:
    """ε and passes, and both in words, in the order of ``lines``; empty where only one thing was tried."""
    return {(line.eps, line.most_passes): spent(line) for line in lines if line.kind == "resources"}


def draw_resources(axes: Axes, lines: Sequence[Line], detectors: Sequence[str]) -> None:
    """A cell for each of ``detectors``, the first on top, and each of the attacker's resources: the share of photos.

    Intervals are left to the table.
    """
    tried = resources_of(lines)
    shares = {(d.detector, d.eps, d.most_passes): d.evaded or 0.0 for d in lines if d.kind == "resources"}
    for (row, detector), (column, what) in product(enumerate(detectors), enumerate(tried)):
        share = shares[detector, *what]
        level = len(detectors) - 1 - row
        corner = (column - 0.5 + _AIR, level - 0.5 + _AIR)
        size = 1 - 2 * _AIR
        axes.add_patch(Rectangle(corner, size, size, color=ADV2, alpha=_INK_OF_ALL * share, linewidth=0))
        axes.text(column, level, percent(share), ha="center", va="center", fontsize=9, color=INK)
    for column, (eps, passes) in enumerate(tried.values()):
        axes.text(
            column, len(detectors) - 0.4, f"{eps}\n{passes}", ha="center", va="bottom", fontsize=8.5, color=MUTED,
            parse_math=False,
        )  # fmt: skip
    axes.set_xlim(-0.5, len(tried) - 0.5)
    axes.set_ylim(-0.5, len(detectors) - 0.5)
    axes.set_axis_off()


def described(lines: Sequence[Line]) -> str:
    """The same in words, for those who do not see it; empty where only one thing was tried."""
    said = [f"{line.detector} {line.under} {percent(line.evaded or 0.0)}" for line in lines if line.kind == "resources"]
    return f" Evaded: {'; '.join(said)}." if said else ""
