"""The figure of the study of transfer: what every attack does to every interpreter's map, beside PGD and noise."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from underfire.auditing.condition import NONE
from underfire.present.svg import ADV2, INK, LINE, MUTED, NOISE, PAPER, PGD, inline
from underfire.present.text import interpreter_title, title
from underfire.studies.cells import Line

_WIDTH, _ROW, _HEAD, _FOOT = 8.4, 0.27, 0.42, 0.6  # inches
_LEFT, _RIGHT = 0.19, 0.67  # of the width
_COLOURS = {"floor": NOISE, "pgd": PGD, "own": ADV2, "other": ADV2}


def transfer_figure(lines: Sequence[Line]) -> str:
    """One SVG: a block per model and interpreter, in it a line per condition with the mean L1 and its interval.

    A filled diamond is the interpreter that was attacked, a hollow circle one that was not. Of another classifier the
    map of the label is shown, which is there on every photo.
    """
    blocks: dict[tuple[str, str], list[Line]] = {}
    audited = lines[0].model
    for line in lines:
        shown = "seen" if line.model == audited else "label"
        if line.compared == shown and line.condition != str(NONE) and line.l1 is not None:
            blocks.setdefault((line.model, line.map), []).append(line)
    height = _FOOT + sum(_HEAD + _ROW * len(block) for block in blocks.values())
    upper = max((line.l1_high or line.l1 or 0.0 for block in blocks.values() for line in block), default=0.0) or 1.0
    figure = Figure(figsize=(_WIDTH, height))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((_LEFT, _FOOT / height, _RIGHT - _LEFT, 1 - _FOOT / height))
    axes.patch.set_alpha(0)
    level = height - _FOOT
    for (model, interpreter), block in blocks.items():
        level -= _HEAD
        whose = "" if model == audited else f" of {model}, map of the label"
        _text(axes, -0.36, level + _ROW * 0.9, f"seen by {interpreter_title(interpreter)}{whose}", INK, weight="bold")
        base = next((line.l1 for line in block if line.kind == "pgd"), None)
        if base is not None:
            span = [level + 0.5 * _ROW, level + (0.5 - len(block)) * _ROW]
            axes.plot([base, base], span, color=PGD, linewidth=0.8, linestyle=":")
        for line in block:
            _draw(axes, level, line)
            level -= _ROW
    axes.set_ylim(0, height - _FOOT)
    axes.set_xlim(0, upper * 1.04)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=MUTED, labelsize=9.5, length=3)
    axes.set_xlabel("mean L1 from the benign map (0 = the same map), 95 % interval", color=MUTED, fontsize=10)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    return inline(figure, name="transfer", description=_description(blocks))


def _draw(axes: Axes, level: float, line: Line) -> None:
    """One condition, at the height ``level``."""
    colour = _COLOURS[line.kind]
    axes.axhline(level, color=LINE, linewidth=0.5, zorder=0)
    _text(axes, -0.02, level, title(line.condition), INK if line.kind == "own" else MUTED, ha="right")
    if line.l1_low is not None and line.l1_high is not None:
        axes.plot([line.l1_low, line.l1_high], [level, level], color=colour, linewidth=1.6, zorder=2)
    own = line.kind == "own"
    axes.plot(
        [line.l1 or 0.0], [level], marker="D" if own else "o", markersize=6, color=colour,
        markerfacecolor=PAPER if line.kind == "other" else colour, markeredgewidth=1.4, zorder=3, clip_on=False,
    )  # fmt: skip
    if line.verdict is not None:
        _text(axes, 1.03, level, f"{line.verdict} ({line.nearer} of {line.pairs} nearer)", INK)
    else:
        _text(axes, 1.03, level, f"n = {line.n}", MUTED)


def _text(axes: Axes, x: float, y: float, text: str, colour: str, *, ha: str = "left", weight: str = "normal") -> None:
    axes.text(
        x, y, text, transform=axes.get_yaxis_transform(), ha=ha, va="center", fontsize=9.5, color=colour,
        fontweight=weight, parse_math=False,
    )  # fmt: skip


def _description(blocks: dict[tuple[str, str], list[Line]]) -> str:
    parts = []
    for (model, interpreter), block in blocks.items():
        means = ", ".join(f"{title(line.condition)} {line.l1:.3f}" for line in block)
        parts.append(f"{interpreter_title(interpreter)} of {model}: {means}")
    return f"Mean L1 from the benign map. {'. '.join(parts)}."
