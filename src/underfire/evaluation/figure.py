"""The benchmark's figure: each detector against oblivious attackers and against the adaptive one, and by its budget."""

from collections.abc import Sequence
from itertools import product
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from underfire.evaluation.results import DetectorRecord, sets
from underfire.present.plots import axes_of, blank, label_axes, text_at
from underfire.present.svg import ADV2, INK, LINE, MUTED, PAPER, PGD, inline
from underfire.present.text import budget, percent

_WIDTH, _ROW, _HEAD, _FOOT = 8.4, 0.34, 0.5, 0.6  # inches
_TITLES = 0.65  # inches, above the part on budgets
_LEFT, _RIGHT = 0.33, 0.74  # of the width
_APART = 0.18  # of a row, between the marks of one detector
_LINE = 44  # characters of a name; longer ones go on below, in smaller type
_SMALL, _SMALLEST = 9.0, 6.8  # points
_COIN = 0.5  # the AUROC of a coin
_INK_OF_ALL = 0.55  # opacity of a cell whose set is always evaded: its text stays readable
_AIR = 0.06  # of a cell, left free around it


def defense_figure(records: Sequence[DetectorRecord], norm: str) -> str:
    """One SVG: a row per detector, the sets first and the cheapest first, with its AUROC and intervals.

    A filled circle is PGD, a hollow one the ADV² on one interpreter that is hardest to detect, and a filled diamond the
    adaptive attacker. Below, where that attacker tried several budgets, how often each set is evaded with each.
    """
    rows = [record for record in records if record.kind in ("set", "baseline")]
    named = sets(rows)
    tried = [record for record in records if record.kind == "resources"]
    below = _TITLES + _ROW * len(named) if tried else 0.0
    height = below + _FOOT + _HEAD + _ROW * len(rows)
    figure = blank(_WIDTH, height)
    axes = axes_of(figure, (_LEFT, (below + _FOOT) / height, _RIGHT - _LEFT, _ROW * len(rows) / height))
    axes.axvline(_COIN, color=MUTED, linewidth=0.8, linestyle=":")
    for place, record in enumerate(rows):
        _draw(axes, len(rows) - 1 - place, record)
    ends = [end for r in rows for end in (r.auroc.low, r.auroc_pgd.low, r.auroc_adv2.low, r.auroc.value)]
    lowest = min([_COIN, *(end for end in ends if end is not None)])
    axes.set_xlim(lowest - 0.03, 1.03)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    label_axes(axes, x="AUROC of benign against attacked images (0.5 = a coin), 95 % interval", tick_size=9.5)
    top = 1 - 0.14 / height
    for x, colour, text in (
        (0.02, PGD, "● PGD"),
        (0.12, ADV2, "○ ADV² on one interpreter, the hardest"),
        (0.52, ADV2, "◆ the adaptive attacker"),
    ):
        figure.text(x, top, text, color=colour, fontsize=9.5, va="top", parse_math=False)
    if tried:
        cells = axes_of(figure, (_LEFT, 0.1 / height, 0.98 - _LEFT, _ROW * len(named) / height))
        _draw_budgets(cells, tried, named, norm)
        for place, record in enumerate(named):
            _name(cells, len(named) - 1 - place, record)
        heading = "evaded, by the attacker's budget"
        text_at(cells, -0.02, len(named) - 0.15, heading, ADV2, ha="right", size=_SMALL)
    return inline(figure, name="defence", description=_description(rows, tried))


def _draw(axes: Axes, level: float, record: DetectorRecord) -> None:
    axes.axhline(level, color=LINE, linewidth=0.5, zorder=0)
    _name(axes, level, record)
    marks = (
        (_APART, record.auroc_pgd, PGD, "o", PGD),
        (0.0, record.auroc_adv2, ADV2, "o", PAPER),
        (-_APART, record.auroc, ADV2, "D", ADV2),
    )
    for above, area, colour, shape, fill in marks:
        if area.value is None:
            continue
        if area.low is not None and area.high is not None:
            axes.plot([area.low, area.high], [level + above] * 2, color=colour, linewidth=1.3, zorder=2)
        axes.plot(
            [area.value], [level + above], marker=shape, markersize=5.5, color=colour, markerfacecolor=fill,
            markeredgewidth=1.2, zorder=3, clip_on=False,
        )  # fmt: skip
    if record.evaded.value is not None:
        colour = INK if record.verdict == "best" else MUTED
        note = f"evaded on {percent(record.evaded.value)} of {record.n}"
        text_at(axes, 1.03, level, note, colour, size=_SMALL)


def _draw_budgets(axes: Axes, tried: Sequence[DetectorRecord], named: Sequence[DetectorRecord], norm: str) -> None:
    """A cell for each of the sets ``named``, the first on top, and each budget: the share of photos.

    Intervals are left to the table.
    """
    spent = {(r.detector, (r.effort.eps, r.effort.most_passes)): r.evaded.value or 0.0 for r in tried if r.effort}
    budgets = list(dict.fromkeys(where for _, where in spent))
    size = 1 - 2 * _AIR
    for (row, record), (column, where) in product(enumerate(named), enumerate(budgets)):
        share = spent[record.detector, where]
        level = len(named) - 1 - row
        corner = (column - 0.5 + _AIR, level - 0.5 + _AIR)
        axes.add_patch(Rectangle(corner, size, size, color=ADV2, alpha=_INK_OF_ALL * share, linewidth=0))
        axes.text(column, level, percent(share), ha="center", va="center", fontsize=9, color=INK)
    for column, (eps, passes) in enumerate(budgets):
        axes.text(
            column, len(named) - 0.4, f"{budget(eps, norm)}\n{passes} passes", ha="center", va="bottom",
            fontsize=8.5, color=MUTED, parse_math=False,
        )  # fmt: skip
    axes.set_xlim(-0.5, len(budgets) - 0.5)
    axes.set_ylim(-0.5, len(named) - 0.5)
    axes.set_axis_off()


def _name(axes: Axes, level: float, record: DetectorRecord) -> None:
    """The detector and what it costs, left of its row."""
    lines = wrap(f"{record.detector.title}\u00a0·\u00a0{record.passes}\u00a0passes", _LINE, break_on_hyphens=False)
    colour, weight = (INK, "bold") if record.verdict == "best" else (MUTED, "normal")
    size = _SMALL if len(lines) == 1 else _SMALLEST
    text_at(axes, -0.02, level, "\n".join(lines), colour, ha="right", weight=weight, size=size)


def _description(rows: Sequence[DetectorRecord], tried: Sequence[DetectorRecord]) -> str:
    """The figure in words, for those who do not see it."""

    def said(record: DetectorRecord) -> str:
        known = {"PGD": record.auroc_pgd, "ADV²": record.auroc_adv2, str(record.under): record.auroc}
        areas = ", ".join(f"{name} {area.value:.2f}" for name, area in known.items() if area.value is not None)
        return f"{record.detector.title}, {record.passes} passes: {areas}"

    evaded = "; ".join(f"{record.detector} {record.under} {percent(record.evaded.value or 0.0)}" for record in tried)
    areas = f"AUROC of every detector. {'. '.join(map(said, rows))}."
    return f"{areas} Evaded: {evaded}." if tried else areas
