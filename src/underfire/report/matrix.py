"""The transfer matrix, and the distributions behind its diagonal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from underfire.auditing.condition import NOISE, PGD
from underfire.auditing.summary import BINS, Cell, Distribution, Point, Spread, Summary
from underfire.present.plots import Series, strips
from underfire.present.text import interpreter_title, number, spread, style_of
from underfire.stats import MOST_RESAMPLED

_DARKEST = 0.5  # of the shading colour: any more and the number on it loses its contrast


@dataclass(frozen=True)
class MatrixEntry:
    """A cell of a table: ``shade`` is 0 for another map, most for the benign one, None for a control.

    ``n`` is the number of photos, with the method of the interval where that is not the bootstrap.
    """

    value: str
    spread: str
    n: str
    own: bool
    shade: float | None


@dataclass(frozen=True)
class MatrixLine:
    """A row of a table; an entry is None where nothing was measured."""

    title: str
    note: str
    style: str
    apart: bool
    entries: tuple[MatrixEntry | None, ...]


@dataclass(frozen=True)
class Matrix:
    """One measure, every condition against every interpreter."""

    columns: tuple[str, ...]
    lines: tuple[MatrixLine, ...]


def matrix(summary: Summary, measure: str, *, low_is_kept: bool) -> Matrix:
    """The table of ``measure``; ``low_is_kept`` says at which end of the scale the map is the benign one."""
    means = [c.mean(measure).value for c in summary.transfer if not c.control]
    known = [value for value in means if value is not None]
    digits = 3 if low_is_kept else 2
    top = max(known, default=0.0) if low_is_kept else 1.0

    def entry(cell: Cell | None) -> MatrixEntry | None:
        if cell is None:
            return None
        mean = cell.mean(measure)
        shade = None
        if not cell.control and mean.value is not None and top > 0:
            kept = 1 - mean.value / top if low_is_kept else mean.value
            shade = round(_DARKEST * min(1.0, max(0.0, kept)), 3)
        method = ", normal approximation" if mean.n > MOST_RESAMPLED else ""
        return MatrixEntry(number(mean.value, digits), spread(mean, digits), f"{mean.n}{method}", cell.own, shade)

    lines: list[MatrixLine] = []
    for condition in summary.conditions:
        name = condition.attack
        lines.append(
            MatrixLine(
                title=condition.title,
                note={"none": "the floor", "noise": "as strong as the attacks", "pgd": "label only"}.get(name, ""),
                style=style_of(name),
                apart=not condition.is_control and not any(line.style in ("pgd", "adv2") for line in lines),
                entries=tuple(entry(summary.cell(condition, i)) for i in summary.interpreters),
            )
        )
    return Matrix(tuple(interpreter_title(i) for i in summary.interpreters), tuple(lines))


@dataclass(frozen=True)
class InterpreterPanel:
    """The plots of one interpreter and the sentence below them; ``points``: one for each photo, and no densities."""

    title: str
    l1: Markup
    iou: Markup
    caption: str
    points: bool


def panels(summary: Summary) -> list[InterpreterPanel]:
    """One panel per interpreter that has an attack to show."""
    found = []
    upper = _upper(summary)
    for index, interpreter in enumerate(summary.interpreters):
        drawn = [d for d in summary.distributions if d.interpreter == interpreter]
        if any(d.condition != NOISE for d in drawn):
            found.append(_panel(index, interpreter, drawn, upper, summary))
    return found


def _upper(summary: Summary) -> float:
    """The end of the axes of L1, the same for all: beyond the last photo."""
    spreads = [d.l1 for d in summary.distributions]
    last = [i + 1 for s in spreads for i, counts in enumerate(zip(s.counts, s.missed, strict=True)) if any(counts)]
    exact = [point.l1_8bit for d in summary.distributions for point in d.points]
    return max(0.05, max(exact, default=max(last, default=0) / BINS))


def _panel(
    index: int, interpreter: str, drawn: Sequence[Distribution], upper: float, summary: Summary
) -> InterpreterPanel:
    title = interpreter_title(interpreter)
    medians = "; ".join(map(_medians, drawn))
    l1 = strips(
        [_series(d, d.l1, lambda p: p.l1_8bit) for d in drawn],
        upper=upper,
        label="L1 from the benign map (0 = the same map)",
        name=f"l1-{index}",
        description=f"L1 per photo, {title}. {medians}",
    )
    iou = strips(
        [_series(d, d.iou_50, lambda p: p.iou_50_8bit) for d in drawn],
        upper=1.0,
        label="IoU with the benign map (1 = the same region)",
        name=f"iou-{index}",
        description=f"IoU per photo, {title}. {medians}",
    )
    nearer = _nearer(drawn, summary)
    # Both come from matplotlib, which escapes the text it is given.
    caption, points = f"{medians}. {nearer}".strip(), all(d.points for d in drawn)
    return InterpreterPanel(title, Markup(l1), Markup(iou), caption, points)  # noqa: S704


def _short(distribution: Distribution) -> tuple[str, str]:
    """The name of a line and its role: noise, PGD or the attack on the interpreter itself."""
    known = {NOISE: ("Noise", "noise"), PGD: ("PGD", "pgd")}
    return known.get(distribution.condition, ("ADV²", "adv2"))


def _series(distribution: Distribution, spread: Spread, value: Callable[[Point], float]) -> Series:
    """Points where the summary has them; what a figure does not rest on is hollow."""
    name, role = _short(distribution)
    quartiles = tuple(q for q in (spread.low, spread.median, spread.high) if q is not None)
    counts = [p.success_8bit or distribution.condition == NOISE for p in distribution.points]
    values = [value(point) for point in distribution.points]
    return Series(
        name,
        role,
        tuple(v for v, counted in zip(values, counts, strict=True) if counted),
        tuple(v for v, counted in zip(values, counts, strict=True) if not counted),
        quartiles or None,
        distribution.n,
        () if distribution.points else (spread.counts, spread.missed),
    )


def _medians(distribution: Distribution) -> str:
    name, _ = _short(distribution)
    if not distribution.n:
        return f"{name}: the label was never reached"
    l1, iou = distribution.l1.median, distribution.iou_50.median
    return f"{name}: median L1 {number(l1)}, IoU {number(iou, 2)} (n = {distribution.n})"


def _nearer(drawn: Sequence[Distribution], summary: Summary) -> str:
    cells = (summary.cell(d.condition, d.interpreter) for d in drawn if d.condition not in (PGD, NOISE))
    nearer = next((cell.nearer_than_pgd_8bit for cell in cells if cell), None)
    if nearer is None or not nearer.n:
        return ""
    where = f"on {nearer.k} of {nearer.n}"
    return f"Where both reached the label, ADV²’s map is nearer the benign one than PGD’s (L1) {where}."
