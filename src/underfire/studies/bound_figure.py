"""The figure of the study of the bound: both bounds, image by image, with the lines of equal sides."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from underfire.auditing.condition import PGD as PGD_CONDITION
from underfire.present.svg import ADV2, INK, LINE, MUTED, NOISE, PGD, inline
from underfire.present.text import title
from underfire.studies.bound_cells import NOISE as NOISE_CONDITION
from underfire.studies.bound_cells import Image

_SIZE = (8.4, 4.4)  # inches
_SHAPES = "osD^vP*X<>"
_LEAST = 1e-2  # of the logarithmic axes, in units of the logits

Point = tuple[float, float]


def bound_figure(images: Mapping[tuple[str, str], Sequence[Image]]) -> str:
    """One SVG. Left ‖Δm‖₁ over ℓ_prd, right the measure over two classes over its bound; hollow: label missed."""
    marks: dict[str, Sequence[Image]] = {condition: some for (condition, _), some in reversed(list(images.items()))}
    marks = dict(reversed(marks.items()))
    figure = Figure(figsize=_SIZE)
    figure.patch.set_alpha(0)
    left, right = (figure.add_axes((x, 0.3, 0.4, 0.64)) for x in (0.08, 0.58))
    _draw(left, marks, lambda i: (i.sides.proposition.prediction, i.sides.proposition.interpretation))
    top = max((i.sides.proposition.interpretation for some in marks.values() for i in some), default=1.0)
    left.plot([0, 1], [0, 1], color=INK, linewidth=1)
    left.set_xlim(-0.05, 1.08)
    left.set_ylim(-0.03 * top, max(top, 1.0) * 1.06)
    _label(left, "ℓ_prd, change of the probability", "‖Δm‖₁, norm of the attribution")
    _draw(right, marks, lambda i: (max(i.sides.classes.half_margin, _LEAST), i.sides.classes.discrepancy))
    largest = max((i.sides.classes.half_margin for some in marks.values() for i in some), default=1.0)
    right.plot([_LEAST, 2 * max(largest, _LEAST)], [_LEAST, 2 * max(largest, _LEAST)], color=INK, linewidth=1)
    right.set_xscale("log")
    right.set_yscale("log")
    _label(right, "half the change of the margin (logits)", "D, measure over two classes (logits)")
    handles, names = left.get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="lower center", ncol=4, frameon=False, fontsize=9.5)
    for text in legend.get_texts():
        text.set_color(INK)
    return inline(figure, name="bound", description=_description(marks))


def _draw(axes: Axes, marks: Mapping[str, Sequence[Image]], place: Callable[[Image], Point]) -> None:
    axes.patch.set_alpha(0)
    for index, (condition, some) in enumerate(marks.items()):
        colour = {NOISE_CONDITION: NOISE, str(PGD_CONDITION): PGD}.get(condition, ADV2)
        shape = _SHAPES[index % len(_SHAPES)]
        for solid in (True, False):
            points = [place(i) for i in some if (i.success or condition == NOISE_CONDITION) == solid]
            if points or solid:
                axes.scatter(
                    [x for x, _ in points], [y for _, y in points], s=22, marker=shape, alpha=0.75, linewidths=0.9,
                    facecolors=colour if solid else "none", edgecolors=colour,
                    label=title(condition) if solid else None,
                )  # fmt: skip


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=MUTED, fontsize=10)
    axes.set_ylabel(y, color=MUTED, fontsize=10)
    axes.tick_params(which="both", colors=MUTED, labelsize=9, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)


def _description(marks: Mapping[str, Sequence[Image]]) -> str:
    def middle(values: Sequence[float]) -> float:
        return sorted(values)[len(values) // 2]

    parts = [
        f"{title(condition)}: ℓ_prd {middle([i.sides.proposition.prediction for i in some]):.2f}, "
        f"‖Δm‖₁ {middle([i.sides.proposition.interpretation for i in some]):.2f}, "
        f"half the margin {middle([i.sides.classes.half_margin for i in some]):.1f}, "
        f"D {middle([i.sides.classes.discrepancy for i in some]):.0f}"
        for condition, some in marks.items()
    ]
    return f"Up to the tolerances every image lies above the lines of equal sides. Medians. {'. '.join(parts)}."
