"""The figure of the study of defences: each detector, against attackers who don't know it and against one who does."""

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from underfire.evaluation.lines import BEST, Line, sets
from underfire.evaluation.resources_figure import described, draw_resources, resources_of
from underfire.evaluation.words import detector_title
from underfire.present.svg import ADV2, INK, LINE, MUTED, PAPER, PGD, inline
from underfire.present.text import percent

_WIDTH, _ROW, _HEAD, _FOOT = 8.4, 0.34, 0.5, 0.6  # inches
_TITLES = 0.65  # inches, above the part on resources
_LEFT, _RIGHT = 0.33, 0.74  # of the width
_APART = 0.18  # of a row, between the marks of one detector
_LINE = 44  # characters of a name; longer ones go on below, in smaller type
_COIN = 0.5  # the AUROC of a coin


def defence_figure(lines: Sequence[Line]) -> str:
    """One SVG: a row per detector, the sets first and the cheapest first, with its AUROC and intervals.

    A filled circle is PGD, a hollow one the ADV² on one interpreter that is hardest to tell, and a filled diamond the
    attacker who knows the detector, or for a baseline the largest set. Below, where that attacker tried several ε
    or numbers of passes, how often each set is evaded with each.
    """
    rows = [line for line in lines if line.kind in ("set", "baseline")]
    named = sets(rows)
    below = _TITLES + _ROW * len(named) if resources_of(lines) else 0.0
    height = below + _FOOT + _HEAD + _ROW * len(rows)
    figure = Figure(figsize=(_WIDTH, height))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((_LEFT, (below + _FOOT) / height, _RIGHT - _LEFT, _ROW * len(rows) / height))
    axes.patch.set_alpha(0)
    axes.axvline(_COIN, color=MUTED, linewidth=0.8, linestyle=":")
    for place, line in enumerate(rows):
        _draw(axes, len(rows) - 1 - place, line)
    ends = [end for line in rows for end in (line.auroc_low, line.auroc_pgd_low, line.auroc_adv2_low, line.auroc)]
    lowest = min([_COIN, *(end for end in ends if end is not None)])
    axes.set_xlim(lowest - 0.03, 1.03)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=MUTED, labelsize=9.5, length=3)
    axes.set_xlabel("AUROC of benign against attacked images (0.5 = a coin), 95 % interval", color=MUTED, fontsize=10)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    top = 1 - 0.14 / height
    for x, colour, text in (
        (0.02, PGD, "● PGD"),
        (0.12, ADV2, "○ ADV² on one interpreter, the hardest"),
        (0.52, ADV2, "◆ the attacker who knows the detector"),
    ):
        figure.text(x, top, text, color=colour, fontsize=9.5, va="top", parse_math=False)
    if below:
        cells = figure.add_axes((_LEFT, 0.1 / height, 0.98 - _LEFT, _ROW * len(named) / height))
        draw_resources(cells, lines, [line.detector for line in named])
        for place, line in enumerate(named):
            _name(cells, len(named) - 1 - place, line)
        _text(cells, -0.02, len(named) - 0.15, "evaded, by what the attacker may spend", ADV2, ha="right")
    return inline(figure, name="defence", description=_description(rows) + described(lines))


def _draw(axes: Axes, level: float, line: Line) -> None:
    axes.axhline(level, color=LINE, linewidth=0.5, zorder=0)
    _name(axes, level, line)
    marks = (
        (_APART, line.auroc_pgd, line.auroc_pgd_low, line.auroc_pgd_high, PGD, "o", PGD),
        (0.0, line.auroc_adv2, line.auroc_adv2_low, line.auroc_adv2_high, ADV2, "o", PAPER),
        (-_APART, line.auroc, line.auroc_low, line.auroc_high, ADV2, "D", ADV2),
    )
    for above, value, low, high, colour, shape, fill in marks:
        if value is None:
            continue
        if low is not None and high is not None:
            axes.plot([low, high], [level + above] * 2, color=colour, linewidth=1.3, zorder=2)
        axes.plot(
            [value], [level + above], marker=shape, markersize=5.5, color=colour, markerfacecolor=fill,
            markeredgewidth=1.2, zorder=3, clip_on=False,
        )  # fmt: skip
    if line.evaded is not None:
        colour = INK if line.verdict == BEST else MUTED
        _text(axes, 1.03, level, f"evaded on {percent(line.evaded)} of {line.n}", colour)


def _name(axes: Axes, level: float, line: Line) -> None:
    """The detector and what it costs, left of its row."""
    chosen = line.verdict == BEST
    lines = wrap(
        f"{detector_title(line.detector)}\u00a0·\u00a0{line.passes}\u00a0passes", _LINE, break_on_hyphens=False
    )
    _text(
        axes,
        -0.02,
        level,
        "\n".join(lines),
        INK if chosen else MUTED,
        ha="right",
        weight="bold" if chosen else "normal",
        size=9.0 if len(lines) == 1 else 6.8,
    )


def _text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    ha: str = "left",
    weight: str = "normal",
    size: float = 9.0,
) -> None:
    axes.text(
        x, y, text, transform=axes.get_yaxis_transform(), ha=ha, va="center", fontsize=size, color=colour,
        fontweight=weight, parse_math=False,
    )  # fmt: skip


def _description(rows: Sequence[Line]) -> str:
    def said(line: Line) -> str:
        known = {"PGD": line.auroc_pgd, "ADV²": line.auroc_adv2, line.under: line.auroc}
        areas = ", ".join(f"{name} {value:.2f}" for name, value in known.items() if value is not None)
        return f"{detector_title(line.detector)}, {line.passes} passes: {areas}"

    return f"AUROC of every detector. {'. '.join(map(said, rows))}."
