"""The transfer matrix, and the distributions behind its diagonal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from underfire.auditing.condition import NOISE, PGD
from underfire.auditing.summary import Cell, Distribution, Point, Summary
from underfire.present.plots import Series, strips
from underfire.present.text import interpreter_title, number, spread, style_of

_DARKEST = 0.5  # of the shading colour: any more and the number on it loses its contrast


@dataclass(frozen=True)
class Entry:
    """A cell of a table: ``shade`` is 0 for another map, most for the benign one, None for a control."""

    value: str
    spread: str
    n: int
    own: bool
    shade: float | None


@dataclass(frozen=True)
class MatrixLine:
    """A row of a table; an entry is None where nothing was measured."""

    title: str
    note: str
    style: str
    apart: bool
    entries: tuple[Entry | None, ...]


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

    def entry(cell: Cell | None) -> Entry | None:
        if cell is None:
            return None
        mean = cell.mean(measure)
        shade = None
        if not cell.control and mean.value is not None and top > 0:
            kept = 1 - mean.value / top if low_is_kept else mean.value
            shade = round(_DARKEST * min(1.0, max(0.0, kept)), 3)
        return Entry(number(mean.value, digits), spread(mean, digits), mean.n, cell.own, shade)

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
    """The plots of one interpreter and the sentence below them."""

    title: str
    l1: Markup
    iou: Markup
    caption: str


def panels(summary: Summary) -> list[InterpreterPanel]:
    """One panel per interpreter that has an attack to show."""
    upper = max((p.l1_8bit for d in summary.distributions for p in d.points), default=0.0)
    upper = max(0.05, upper)
    found = []
    for index, interpreter in enumerate(summary.interpreters):
        drawn = [d for d in summary.distributions if d.interpreter == interpreter and d.points]
        if any(d.condition != NOISE for d in drawn):
            found.append(_panel(index, interpreter, drawn, upper))
    return found


def _panel(index: int, interpreter: str, drawn: Sequence[Distribution], upper: float) -> InterpreterPanel:
    title = interpreter_title(interpreter)
    medians = "; ".join(_medians(d) for d in drawn)
    l1 = strips(
        [_series(d, lambda p: p.l1_8bit) for d in drawn],
        upper=upper,
        label="L1 from the benign map (0 = the same map)",
        name=f"l1-{index}",
        description=f"L1 per photo, {title}. {medians}",
    )
    iou = strips(
        [_series(d, lambda p: p.iou_50_8bit) for d in drawn],
        upper=1.0,
        label="IoU with the benign map (1 = the same region)",
        name=f"iou-{index}",
        description=f"IoU per photo, {title}. {medians}",
    )
    # Both come from matplotlib, which escapes the text it is given.
    return InterpreterPanel(title, Markup(l1), Markup(iou), f"{medians}. {_paired(drawn)}".strip())  # noqa: S704


def _short(distribution: Distribution) -> tuple[str, str]:
    """The name of a line and its role: noise, PGD or the attack on the interpreter itself."""
    known = {NOISE: ("Noise", "noise"), PGD: ("PGD", "pgd")}
    return known.get(distribution.condition, ("ADV²", "adv2"))


def _counted(distribution: Distribution) -> list[Point]:
    """The photos that a figure rests on: for an attack those whose label was reached."""
    return [p for p in distribution.points if _counts(distribution, p)]


def _counts(distribution: Distribution, point: Point) -> bool:
    return point.success_8bit or distribution.condition == NOISE


def _series(distribution: Distribution, value: Callable[[Point], float]) -> Series:
    name, role = _short(distribution)
    missed = [p for p in distribution.points if not _counts(distribution, p)]
    return Series(name, role, tuple(map(value, _counted(distribution))), tuple(map(value, missed)))


def _medians(distribution: Distribution) -> str:
    name, _ = _short(distribution)
    counted = _counted(distribution)
    if not counted:
        return f"{name}: the label was never reached"
    l1, iou = median(p.l1_8bit for p in counted), median(p.iou_50_8bit for p in counted)
    return f"{name}: median L1 {number(l1)}, IoU {number(iou, 2)} (n = {len(counted)})"


def _paired(drawn: Sequence[Distribution]) -> str:
    pgd = {p.image_id: p for d in drawn if d.condition == PGD for p in _counted(d)}
    own = {p.image_id: p for d in drawn if d.condition not in (PGD, NOISE) for p in _counted(d)}
    both = [(own[photo], pgd[photo]) for photo in own if photo in pgd]
    if not both:
        return ""
    nearer = sum(a.l1_8bit < b.l1_8bit for a, b in both)
    return (
        f"Where both reached the label, ADV²’s map is nearer the benign one than PGD’s (L1) on {nearer} of {len(both)}."
    )
