"""The figure of the frontier: one column per interpreter, confidence against L1 and against IoU."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from underfire.present.plots import axes_of, blank, label_axes, mark
from underfire.present.svg import ADV2, INK, LINE, MUTED, PGD, inline
from underfire.stats import Estimate
from underfire.studies.frontier_points import Frontier, Measure, PointMeans

_COLUMN_IN, _ROW_IN = 2.3, 2.1
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN, _BETWEEN_IN = 0.62, 0.15, 0.6, 0.55, 0.22, 0.62
_MARGIN, _LABEL = 0.04, 0.08  # of an axis: beyond the last point, and for the label above it
_MEASURES: Mapping[Measure, str] = {"l1": "L1 to the benign map", "iou": "IoU with the benign map"}


def frontier_figure(frontiers: Sequence[Frontier], *, grows: str, shown: Callable[[float], str]) -> str:
    """An SVG of ``frontiers`` side by side on common axes.

    Points are hollow where the label was reached on less than half of the photos, and whiskers are the intervals. The
    first and the last point of ADV² bear the values, as ``shown``, of what ``grows``.
    """
    width = _LEFT_IN + _RIGHT_IN + len(frontiers) * _COLUMN_IN + (len(frontiers) - 1) * _GAP_IN
    height = _TOP_IN + _BOTTOM_IN + 2 * _ROW_IN + _BETWEEN_IN
    figure = blank(width, height)
    means = [point for one in frontiers for point in (*one.pgd_means, *one.adv2_means)]
    bottom, top = _limits([point.confidence for point in means])
    for row, (measure, label) in enumerate(_MEASURES.items()):
        limits = _limits([getattr(point, measure) for point in means])
        for column, one in enumerate(frontiers):
            left = _LEFT_IN + column * (_COLUMN_IN + _GAP_IN)
            base = _BOTTOM_IN + (1 - row) * (_ROW_IN + _BETWEEN_IN)
            axes = axes_of(figure, (left / width, base / height, _COLUMN_IN / width, _ROW_IN / height))
            _draw(axes, one.pgd_means, measure, PGD)
            _name_ends(axes, _draw(axes, one.adv2_means, measure, ADV2), measure, shown)
            label_axes(axes, x=label, y="" if column else "confidence", size=9.5)
            axes.tick_params(labelleft=column == 0)
            axes.locator_params(nbins=5)
            axes.grid(color=LINE, linewidth=0.5)
            axes.set_axisbelow(True)
            axes.set_xlim(limits)
            axes.set_ylim(bottom, top + _LABEL * (top - bottom))
            if row == 0:
                axes.set_title(one.title, color=INK, fontsize=11, loc="left", parse_math=False)
    hollow = f"○ label reached on less than half · labels: {grows}"
    for place, (colour, text, size) in enumerate(((ADV2, "● ADV²", 10), (PGD, "● PGD", 10), (MUTED, hollow, 9))):
        left = (_LEFT_IN + 0.75 * place) / width
        figure.text(left, 1 - 0.12 / height, text, color=colour, fontsize=size, va="top")
    description = (
        f"Confidence against L1 and IoU of {', '.join(one.title for one in frontiers)} under ADV² and PGD, "
        f"as {grows} grows; the table has the numbers."
    )
    return inline(figure, name="frontier", description=description)


def _draw(axes: Axes, means: Sequence[PointMeans], measure: Measure, colour: str) -> list[PointMeans]:
    """Draws the points of one attack at which a label was reached, and returns them."""
    reached = [point for point in means if point.n]
    across, up = ([getattr(point, name).value for point in reached] for name in (measure, "confidence"))
    axes.plot(across, up, color=colour, linewidth=1.2, zorder=2)
    for point in reached:
        solid = 2 * point.n >= point.tries
        mark(axes, getattr(point, measure), point.confidence, colour, solid=solid, whisker=0.7, alpha=0.45, edge=1.2)
    return reached


def _name_ends(axes: Axes, reached: Sequence[PointMeans], measure: Measure, shown: Callable[[float], str]) -> None:
    for point in (reached[0], reached[-1]) if len(reached) > 1 else reached:
        place = (getattr(point, measure).value, point.confidence.value)
        axes.annotate(
            shown(point.point), place, xytext=(0, 7), textcoords="offset points", fontsize=8.5, color=INK, ha="center",
            parse_math=False, zorder=4,
        )  # fmt: skip


def _limits(figures: Sequence[Estimate]) -> tuple[float, float]:
    """Both ends of an axis that shows all ``figures`` with their intervals."""
    values = [end for figure in figures for end in (figure.low, figure.value, figure.high) if end is not None]
    if not values:
        return 0.0, 1.0
    margin = max(_MARGIN * (max(values) - min(values)), 0.005)
    return min(values) - margin, max(values) + margin
