"""The figure of certificates and attacks: for each photo what is certified and what was found, on one axis."""

from collections.abc import Sequence

from underfire.present import svg
from underfire.present.plots import axes_of, blank, label_axes, legend_below, text_at
from underfire.present.text import interpreter_title
from underfire.studies.sandwich_rows import SandwichPhoto

_WIDTH_IN, _LINE_IN, _HEAD_IN, _LEFT_IN, _FOOT_IN = 7.6, 0.075, 0.3, 0.5, 0.95
_LEAST = 0.02  # the axis is logarithmic; radii of 0 stand at its left end


def figure(photos: Sequence[SandwichPhoto], sigma: float, length: float) -> str:
    """An SVG: a line for each attacked photo at ``sigma``, from its certified radius to the nearest image found.

    Args:
        photos: all figures.
        sigma: of those that are shown.
        length: the L2 length of 8/255 in every value.
    """
    shown = [photo for photo in photos if photo.attacked and photo.sigma == sigma]
    blocks = [
        (name, goal, [photo for photo in shown if (photo.interpreter, photo.goal) == (name, goal)])
        for name, goal in dict.fromkeys((photo.interpreter, photo.goal) for photo in shown)
    ]
    body = sum(_HEAD_IN + _LINE_IN * len(block) for _, _, block in blocks) or _HEAD_IN
    height = body + _FOOT_IN
    drawing = blank(_WIDTH_IN, height)
    box = (_LEFT_IN / _WIDTH_IN, _FOOT_IN / height, 1 - (_LEFT_IN + 0.2) / _WIDTH_IN, body / height)
    axes = axes_of(drawing, box)
    axes.set_xscale("log")
    level = body
    for name, goal, block in blocks:
        level -= _HEAD_IN
        text_at(axes, 0.0, level + 0.1, f"{interpreter_title(name)}, {goal}", svg.INK)
        for photo in sorted(block, key=lambda one: (one.censored, one.radius)):
            radius, colour = max(photo.radius, _LEAST), svg.MUTED if photo.censored else svg.PGD
            axes.plot([radius], [level], marker="|", markersize=5, color=colour, zorder=3)
            axes.plot([_LEAST, radius], [level] * 2, color=colour, linewidth=1.2, alpha=0.6)
            if photo.distance:
                axes.plot([photo.distance], [level], marker="o", markersize=3, color=svg.ADV2, zorder=3)
                axes.plot([radius, photo.distance], [level] * 2, color=svg.LINE, linewidth=0.6, zorder=1)
            level -= _LINE_IN
    if shown:
        axes.axvline(shown[0].cap, color=svg.MUTED, linewidth=0.8, linestyle=":")
    axes.axvline(length, color=svg.INK, linewidth=0.8, linestyle="--")
    axes.set_ylim(-_LINE_IN, body)
    axes.set_xlim(_LEAST, 1.4 * length)
    label_axes(axes, x=f"L2 distance from the photo, σ = {sigma:g}")
    for colour, mark, words in (
        (svg.PGD, "|", "no attack up to here"),
        (svg.MUTED, "|", "the same, censored"),
        (svg.ADV2, "o", "nearest attack found"),
    ):
        axes.plot([], [], mark, color=colour, label=words)
    axes.plot([], [], color=svg.MUTED, linestyle=":", linewidth=0.8, label="as far as the draws allow")
    axes.plot([], [], color=svg.INK, linestyle="--", linewidth=0.8, label="8/255 in every value")
    legend_below(drawing, axes, columns=3)
    description = (
        f"Certified radii and the nearest attacks found of {len(shown)} pairs of photo and goal at σ = {sigma:g};"
        " the table has the medians."
    )
    return svg.inline(drawing, name="sandwich", description=description)
