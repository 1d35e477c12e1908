"""The frontier: the confidence of an attack against its map, as the attack is given more.

Along ``eps`` and ``passes`` every point is an audit of the photos, all else equal. ``weight`` is the trade itself, what
λ decides in the paper's objective. Our attack steers λ for each image at each step, so that no number of it can be
grown; and a fixed λ weighs losses whose units differ from interpreter to interpreter, and finds only those ends of a
frontier at which it bulges outwards. What grows along ``weight`` is therefore the confidence demanded: of the iterates
with at least that confidence the one nearest the benign map is kept. That asks the question directly, what more
confidence costs the map, and the demand means the same for every interpreter. An image that does not meet the demand
is the one with the highest confidence that was found, whatever its map.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

from matplotlib.axes import Axes

from underfire.attacks import ADV2
from underfire.attacks.joint import Descent
from underfire.attacks.labels import Confidence
from underfire.auditing.condition import PGD, Condition
from underfire.auditing.names import known_interpreters, make_interpreters, make_perturbation
from underfire.auditing.plan import PASSES, AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.errors import InputError
from underfire.interpreters import GRAD
from underfire.interpreters.base import BACK_PROPAGATION
from underfire.models.classifier import Classifier
from underfire.parsing import budgets
from underfire.present import svg
from underfire.present.plots import axes_of, blank, label_axes, mark
from underfire.present.tables import to_arrow
from underfire.present.text import budget, interpreter_title
from underfire.present.words import written
from underfire.stats import NO_ESTIMATE, Estimate, bootstrap_mean, bootstrap_paired, wilson
from underfire.studies.options import StudySource, option
from underfire.studies.reruns import Rerun, adv2_of, audit_of, benign_map, rerun_rows, taking_part
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, Verdict, above, below, together

Along = Literal["eps", "passes", "weight"]
"""What grows."""

CLAIM = (
    "Under ADV² GRAD has the lowest IoU of all interpreters, because the loss on the prediction and that on the map "
    "conflict for interpreters that work by back-propagation (Zhang et al. 2020, the discussion of attack robustness, "
    "after Proposition 1)."
)

_EPS_SHARES = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the perturbation's default: 1, 2, 4, 8, 16 /255 for L∞
_PASSES_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the preset's
_WEIGHTS = (0.5, 0.7, 0.9, 0.95, 0.99)
_GROWN: Mapping[Along, tuple[str, ...]] = {"eps": ("eps",), "passes": ("passes", "steps"), "weight": ()}
"""The audit's options that say how much there is of what grows."""
_NAMES: Mapping[Along, str] = {"eps": "ε", "passes": "passes", "weight": "confidence demanded"}


Measure = Literal["confidence", "l1", "iou_50"]


@dataclass(frozen=True)
class FrontierOptions:
    """What ``underfire study frontier`` takes beside the options of an audit."""

    along: Along = option(
        "eps",
        help="What grows: the budget, the passes, or the confidence that is demanded of an image.",
        choices=get_args(Along),
    )
    grid: tuple[float, ...] | None = option(
        None,
        help="The values of what grows, rising, comma-separated, as 2/255,4/255,8/255.",
        parse=budgets,
        metavar="VALUES",
        shown_default="five around the defaults",
    )


@dataclass(frozen=True, kw_only=True)
class FrontierRow:
    """A row of the table, all on images as saved: a point, or a change or difference over points.

    ``failed`` photos are not among its ``n``. A change is from a photo's first success to its last. Of two interpreters
    ``iou_50`` is that of the first less that of the other, and ``rise`` and ``rise_against`` are the changes of the
    confidence of each, on the same photos.
    """

    kind: Literal["point", "change", "difference", "difference of changes"]
    interpreter: str
    against: str | None = None
    along: Along
    point: float | None = None
    n: int
    failed: int
    reached: Estimate = NO_ESTIMATE
    confidence: Estimate = NO_ESTIMATE
    l1: Estimate = NO_ESTIMATE
    iou_50: Estimate = NO_ESTIMATE
    confidence_all: Estimate = NO_ESTIMATE
    pairs: int | None = None
    l1_minus_pgd: Estimate = NO_ESTIMATE
    rise: Estimate = NO_ESTIMATE
    rise_against: Estimate = NO_ESTIMATE

    def title(self, between: str = "less") -> str:
        """The interpreter as the literature writes it, or both with a word ``between`` them."""
        title = interpreter_title(self.interpreter)
        return title if self.against is None else f"{title} {between} {interpreter_title(self.against)}"

    @property
    def tries(self) -> int:
        """How many photos were attacked."""
        return self.n + self.failed

    @property
    def bought(self) -> bool:
        """Whether confidence rose, by its interval: that of one interpreter, or of both."""
        rises = (self.confidence,) if self.against is None else (self.rise, self.rise_against)
        return all(above(rise) is Verdict.HOLDS for rise in rises)


Reached = Mapping[str, Mapping[float, Row]]
"""By photo and point, the attacks that reached their label."""


@dataclass(frozen=True)
class Frontier:
    """All attacks on one interpreter: ADV², and PGD on the prediction alone, whose maps are the interpreter's too.

    Attributes:
        interpreter: its name.
        reached: the successes of ADV².
        adv2, pgd: the figures of each point, rising.
        change: from a photo's first success with ADV² to its last.
    """

    interpreter: str
    reached: Reached
    adv2: tuple[FrontierRow, ...]
    pgd: tuple[FrontierRow, ...]
    change: FrontierRow

    @property
    def title(self) -> str:
        """The interpreter, as the literature writes it."""
        return interpreter_title(self.interpreter)

    @property
    def propagates(self) -> bool:
        """Whether the interpreter works by back-propagation."""
        return known_interpreters()[self.interpreter].family == BACK_PROPAGATION


@dataclass(frozen=True)
class Scale:
    """What grows, its values, and the ``count`` of photos that are attacked at each of them."""

    along: Along
    values: tuple[float, ...]
    perturbation: str
    count: int

    @property
    def name(self) -> str:
        """What grows, in words."""
        return _NAMES[self.along]

    def shown(self, value: float) -> str:
        """A value as a reader knows it, ``8/255``."""
        return budget(value, self.perturbation) if self.along == "eps" else f"{value:g}"

    def row(self, kind: Any, interpreter: str, n: int, **figures: Any) -> FrontierRow:
        """A row of the table about ``n`` of the photos."""
        named = {"failed": self.count - n, **figures}
        return FrontierRow(kind=kind, interpreter=interpreter, along=self.along, n=n, **named)


def study(source: StudySource, options: FrontierOptions) -> Study:
    """The study as the command line calls it."""
    for name in _GROWN[options.along]:
        source.refuse(name, f"grows along {options.along}, over the values of --grid")
    source.refuse("attacks", "runs PGD and ADV²")
    planned = source.planned()
    return frontier_study(
        planned.plan, planned.photos, planned.classifier, work=source.work, note=source.note,
        along=options.along, grid=options.grid, skipped=planned.skipped,
    )  # fmt: skip


def frontier_study(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    *,
    work: Path,
    note: Note = quiet,
    along: Along = "eps",
    grid: Sequence[float] | None = None,
    skipped: int = 0,
) -> Study:
    """Attacks ``photos`` with ADV² on each of the plan's interpreters at every point, and says what more of it buys.

    Args:
        plan: the settings of every point but for what grows; of its attacks PGD and ADV² are run.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        work: a folder for runs, one per point; what is finished there is not done again.
        note: reports progress.
        along: what grows.
        grid: its values in rising order, in the perturbation's unit, in passes, or as probabilities; None for five
            around the defaults.
        skipped: how many files beside ``photos`` could not be used; the words tell.

    Raises:
        InputError: the grid is none, the plan or a photo cannot be used, ``work`` holds runs with other settings.
    """
    count = len(attacked(photos))
    if along not in get_args(Along):
        raise InputError(f"a frontier along '{along}' is unknown; there are: {', '.join(get_args(Along))}")
    scale = Scale(along, _checked(_default(plan, along) if grid is None else grid, along), plan.perturbation, count)
    base = replace(plan, attacks=("pgd", "adv2"))
    rows = (_rows_by_confidence if along == "weight" else _rows_by_audits)(base, photos, classifier, scale, work, note)
    found = [_frontier(name, rows, scale) for name in plan.interpreters]
    last = [_difference(one, other, scale, at=scale.values[-1]) for one, other in _opposed(found)]
    pairs = [_difference_of_changes(one, other, scale) for one, other in _opposed(found)]
    conflict = _conflict(found, pairs) if along == "weight" else _behind(last, scale)
    claims = (*_lowest(found), *conflict, *(_cost(one, scale) for one in found))
    table = [
        *(point for one in found for point in one.adv2),
        *(one.change for one in found),
        *(_difference(one, other, scale) for one, other in combinations(found, 2)),
        *(row for both in zip(last, pairs, strict=True) for row in both),
    ]
    return Study(
        name="frontier",
        title="The frontier of confidence and explanation",
        claim=CLAIM,
        claims=claims,
        table=to_arrow(table, FrontierRow),
        figure=_figure(found, scale),
        words=_words(found, pairs, scale, claims, taking_part(photos, skipped)),
    )


# Collect


def _default(plan: AuditPlan, along: Along) -> tuple[float, ...]:
    match along:
        case "eps":
            return tuple(share * make_perturbation(plan.perturbation, None).eps for share in _EPS_SHARES)
        case "passes":
            middle = PASSES[plan.preset] if plan.passes is None else plan.passes
            return tuple(sorted({float(max(1, round(share * middle))) for share in _PASSES_SHARES}))
        case "weight":
            return _WEIGHTS


def _checked(grid: Sequence[float], along: Along) -> tuple[float, ...]:
    """The values of a ``grid`` that is one."""
    shown = ", ".join(f"{value:g}" for value in grid)
    if len(grid) < 2 or not all(a < b for a, b in pairwise(grid)):
        raise InputError(f"grid '{shown}' is no frontier; give at least two values, each larger than the one before")
    if not all(math.isfinite(value) and value > 0 for value in grid):
        raise InputError(f"grid '{shown}' has a value that is not above 0; give positive numbers")
    if along == "passes" and not all(value == round(value) for value in grid):
        raise InputError(f"grid '{shown}' has a value that is no whole number; passes are counted")
    if along == "weight" and not grid[-1] < 1:
        raise InputError(f"grid '{shown}' has a value of 1 or more; confidences demanded are below 1, such as 0.5,0.9")
    return tuple(map(float, grid))


def _rows_by_audits(
    plan: AuditPlan, photos: Sequence[PlannedPhoto], classifier: Classifier, scale: Scale, work: Path, note: Note
) -> dict[float, list[Row]]:
    """By point the rows of its audit."""
    found = {}
    for value in scale.values:
        here = replace(plan, eps=value) if scale.along == "eps" else replace(plan, passes=round(value), steps=None)
        path = work / f"{scale.along}-{value:.6g}"
        run = audit_of(here, photos, classifier, path, what=f"{scale.name} {scale.shown(value)}", note=note)
        found[value] = list(run.records)
    return found


class _DemandingADV2(Descent):
    """ADV² that is content with no image of less confidence than ``keep``."""

    name = ADV2.name

    def __init__(self, attack: ADV2, keep: float) -> None:
        # A step minds the prediction up to half-way from there to certainty, as with ADV²'s own 0.9 and 0.95.
        setting = replace(attack.setting, label=Confidence(keep, seek=(1 + keep) / 2))
        super().__init__(attack.classifier, attack.interpreters, setting, seed=attack.seed)


def _rows_by_confidence(
    plan: AuditPlan, photos: Sequence[PlannedPhoto], classifier: Classifier, scale: Scale, work: Path, note: Note
) -> dict[float, list[Row]]:
    """By confidence demanded the rows of ADV², and those of PGD, which are the same at every point."""
    interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    attacks = [attack for g in interpreters if isinstance(attack := adv2_of(plan, g), ADV2)]
    if len(attacks) < len(interpreters):
        raise InputError(f"the preset '{plan.preset}' demands no confidence; give another preset, or go along eps")
    run = audit_of(replace(plan, attacks=("pgd",)), photos, classifier, work / "pgd", what="PGD", note=note)
    pgd = [row for row in run.records if row.condition == PGD]
    found: dict[float, list[Row]] = {}
    for value in scale.values:
        found[value] = list(pgd)
        for interpreter, attack in zip(interpreters, attacks, strict=True):
            rerun = Rerun(
                work / f"weight-{value!r}" / interpreter.name,  # all digits: two demands never share a folder
                interpreter,
                _DemandingADV2(attack, value),
                target_map=partial(benign_map, run, interpreter=interpreter.name),
            )
            what = f"{scale.name} {value:g}, {interpreter_title(interpreter.name)}"
            found[value] += rerun_rows(run, rerun, what=what, note=note)
    return found


# Compare: photo by photo, so that an attack that reaches more of them is not compared with itself on fewer


def reached_in(rows: Mapping[float, Iterable[Row]]) -> Reached:
    """Those of ``rows``, by point, that reached their label."""
    found: dict[str, dict[float, Row]] = {}
    for point, here in rows.items():
        for row in here:
            if row.success_8bit:
                found.setdefault(row.image_id, {})[point] = row
    return found


def in_common(one: Reached, other: Reached) -> tuple[Reached, Reached]:
    """``one`` and ``other`` on the points that both reached: changes of these are between the same two points."""
    points = {photo: one[photo].keys() & other[photo].keys() for photo in sorted(one.keys() & other.keys())}
    ours, theirs = (
        {photo: {point: side[photo][point] for point in some} for photo, some in points.items() if some}
        for side in (one, other)
    )
    return ours, theirs


def changes(reached: Reached, measure: Measure) -> list[float]:
    """``measure`` at a photo's last point that reached the label, minus that at its first one, photo by photo.

    Photos whose label was reached at fewer than two points have none.
    """
    ends = [(rows[max(rows)], rows[min(rows)]) for rows in reached.values() if len(rows) > 1]
    return [_saved(last, measure) - _saved(first, measure) for last, first in ends]


def difference(one: Reached, other: Reached, measure: Measure) -> Estimate:
    """``measure`` of ``one`` minus that of ``other``: per photo the mean over the points that both reached.

    One value per photo goes into the mean, for values of one photo at several points are not independent.
    """
    ours, theirs = (
        [fmean(_saved(row, measure) for row in rows.values()) for rows in side.values()]
        for side in in_common(one, other)
    )
    return bootstrap_paired(ours, theirs)


def _saved(row: Row, measure: Measure) -> float:
    return float(getattr(row, f"{measure}_8bit"))


def _at(reached: Reached, point: float) -> Reached:
    return {photo: {point: rows[point]} for photo, rows in reached.items() if point in rows}


def _frontier(name: str, rows: Mapping[float, Sequence[Row]], scale: Scale) -> Frontier:
    """The frontier of the interpreter ``name``, from all rows by point."""
    adv2, pgd = (
        {point: [r for r in here if (r.condition, r.interpreter) == (condition, name)] for point, here in rows.items()}
        for condition in (Condition.on(ADV2.name, name), PGD)
    )
    reached, by_pgd = reached_in(adv2), reached_in(pgd)
    points = []
    for point, here in adv2.items():
        paired = difference(_at(reached, point), by_pgd, "l1")
        points.append(replace(_point(name, point, here, scale), pairs=paired.n, l1_minus_pgd=paired))
    changed = {measure: bootstrap_mean(changes(reached, measure)) for measure in get_args(Measure)}
    return Frontier(
        name,
        reached,
        tuple(points),
        tuple(_point(name, point, here, scale) for point, here in pgd.items()),
        scale.row("change", name, changed["iou_50"].n, **changed),
    )


def _point(name: str, point: float, rows: Sequence[Row], scale: Scale) -> FrontierRow:
    reached = [row for row in rows if row.success_8bit]
    means = {measure: bootstrap_mean([_saved(row, measure) for row in reached]) for measure in get_args(Measure)}
    share, every = wilson(len(reached), len(rows)), bootstrap_mean([row.confidence_8bit for row in rows])
    failed = len(rows) - len(reached)
    return scale.row(
        "point", name, len(reached), failed=failed, point=point, reached=share, confidence_all=every, **means
    )


def _difference(one: Frontier, other: Frontier, scale: Scale, *, at: float | None = None) -> FrontierRow:
    """Over the points that both reached, or ``at`` one."""
    iou = difference(one.reached if at is None else _at(one.reached, at), other.reached, "iou_50")
    return scale.row("difference", one.interpreter, iou.n, against=other.interpreter, point=at, iou_50=iou)


def _difference_of_changes(one: Frontier, other: Frontier, scale: Scale) -> FrontierRow:
    one_side, other_side = in_common(one.reached, other.reached)
    loss = bootstrap_paired(changes(one_side, "iou_50"), changes(other_side, "iou_50"))
    rise, against = (bootstrap_mean(changes(side, "confidence")) for side in (one_side, other_side))
    figures = {"iou_50": loss, "rise": rise, "rise_against": against}
    return scale.row("difference of changes", one.interpreter, loss.n, against=other.interpreter, **figures)


# Judge


def _opposed(found: Sequence[Frontier]) -> list[tuple[Frontier, Frontier]]:
    """Every back-propagation interpreter with every other one."""
    return [(one, other) for one in found if one.propagates for other in found if not other.propagates]


def _lowest(found: Sequence[Frontier]) -> list[Claim]:
    """Whether GRAD has the lowest IoU; no claim without GRAD and another interpreter."""
    pairs = [(one, o) for one in found if one.interpreter == GRAD.name for o in found if o is not one]
    gaps = {f"{one.title} less {o.title}": difference(one.reached, o.reached, "iou_50") for one, o in pairs}
    statement = "Under ADV² GRAD has the lowest IoU of all interpreters."
    return [Claim.over("lowest", statement, together(map(below, gaps.values())), gaps)] if gaps else []


def _behind(last: Sequence[FrontierRow], scale: Scale) -> list[Claim]:
    """What the paper's explanation predicts of interpreters by back-propagation; no claim without another one."""
    levels = {row.title(): row.iou_50 for row in last}
    statement = f"Even with the most {scale.name}, back-propagation interpreters have a lower IoU than the others."
    return [Claim.over("behind", statement, together(map(below, levels.values())), levels)] if last else []


def _conflict(found: Sequence[Frontier], pairs: Sequence[FrontierRow]) -> list[Claim]:
    """The same of the price of confidence.

    A loss of IoU is a price where confidence rose, by its interval; elsewhere nothing was bought, and nothing is
    decided.
    """
    if not pairs:
        return []

    def pays(rows: Sequence[FrontierRow]) -> Verdict:
        return together(below(row.iou_50) if row.bought else Verdict.UNDECIDED for row in rows)

    alone = [one.change for one in found if one.propagates]
    prices, losses = ({row.title(): row.iou_50 for row in rows} for rows in (alone, pairs))
    both = "Prediction and map conflict for back-propagation interpreters."
    more = "More confidence costs back-propagation interpreters more IoU than the others."
    price = "More confidence costs every back-propagation interpreter IoU."
    return [
        Claim.over("conflict", both, together([pays(alone), pays(pairs)]), prices | losses),
        Claim.over("conflict/price", price, pays(alone), prices),
        Claim.over("conflict/steeper", more, pays(pairs), losses),
    ]


def _cost(one: Frontier, scale: Scale) -> Claim:
    """Whether one interpreter's map pays."""
    undecided = scale.along == "weight" and not one.change.bought
    statement = f"More {scale.name} moves the map of {one.title} away from the benign map."
    figures = {"confidence": one.change.confidence, "l1": one.change.l1, "iou": one.change.iou_50}
    verdict = Verdict.UNDECIDED if undecided else above(one.change.l1)
    return Claim.over(f"cost/{one.interpreter}", statement, verdict, figures)


# Words and figure


def _words(
    found: Sequence[Frontier], pairs: Sequence[FrontierRow], scale: Scale, claims: Sequence[Claim], taking: str
) -> str:
    by_id = {claim.id: claim for claim in claims}
    means = sorted((iou, one.title) for one in found if (iou := one.adv2[-1].iou_50.value) is not None)
    alone = [one.change for one in found if one.propagates]
    return written(
        "underfire.studies",
        "frontier.md.jinja",
        claims=by_id,
        scale=scale,
        order=[f"{title} {iou:.2f}" for iou, title in means],
        pairs=pairs,
        not_bought=[row.title("beside") for row in (*alone, *pairs) if not row.bought],
        taking_part=taking,
        frontiers=[
            (one, by_id[f"cost/{one.interpreter}"], scale.along != "weight" or one.change.bought) for one in found
        ],
    )


_COLUMN_IN, _ROW_IN = 2.3, 2.1
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN, _BETWEEN_IN = 0.62, 0.15, 0.6, 0.55, 0.22, 0.62
_MARGIN, _LABEL = 0.04, 0.08  # of an axis: beyond the last point, and for the label above it
_SHOWN: Mapping[Measure, str] = {"l1": "L1 to the benign map", "iou_50": "IoU with the benign map"}


def _figure(frontiers: Sequence[Frontier], scale: Scale) -> str:
    """An SVG: a column per interpreter, confidence against L1 and against IoU on common axes.

    Points are hollow where the label was reached on less than half of the photos, and whiskers are the intervals. The
    first and the last point of ADV² bear the values of what grows.
    """
    width = _LEFT_IN + _RIGHT_IN + len(frontiers) * _COLUMN_IN + (len(frontiers) - 1) * _GAP_IN
    height = _TOP_IN + _BOTTOM_IN + 2 * _ROW_IN + _BETWEEN_IN
    figure = blank(width, height)
    points = [point for one in frontiers for point in (*one.pgd, *one.adv2)]
    bottom, top = _limits([point.confidence for point in points])
    for row, (measure, label) in enumerate(_SHOWN.items()):
        limits = _limits([getattr(point, measure) for point in points])
        for column, one in enumerate(frontiers):
            left = _LEFT_IN + column * (_COLUMN_IN + _GAP_IN)
            base = _BOTTOM_IN + (1 - row) * (_ROW_IN + _BETWEEN_IN)
            axes = axes_of(figure, (left / width, base / height, _COLUMN_IN / width, _ROW_IN / height))
            _draw(axes, one.pgd, measure, svg.PGD)
            _name_ends(axes, _draw(axes, one.adv2, measure, svg.ADV2), measure, scale.shown)
            label_axes(axes, x=label, y="" if column else "confidence", size=9.5)
            axes.tick_params(labelleft=column == 0)
            axes.locator_params(nbins=5)
            axes.grid(color=svg.LINE, linewidth=0.5)
            axes.set_axisbelow(True)
            axes.set_xlim(limits)
            axes.set_ylim(bottom, top + _LABEL * (top - bottom))
            if row == 0:
                axes.set_title(one.title, color=svg.INK, fontsize=11, loc="left", parse_math=False)
    hollow = f"○ label reached on less than half · labels: {scale.name}"
    for place, (colour, text, size) in enumerate(
        ((svg.ADV2, "● ADV²", 10), (svg.PGD, "● PGD", 10), (svg.MUTED, hollow, 9))
    ):
        left = (_LEFT_IN + 0.75 * place) / width
        figure.text(left, 1 - 0.12 / height, text, color=colour, fontsize=size, va="top")
    description = (
        f"Confidence against L1 and IoU of {', '.join(one.title for one in frontiers)} under ADV² and PGD, "
        f"as {scale.name} grows; the table has the numbers."
    )
    return svg.inline(figure, name="frontier", description=description)


def _draw(axes: Axes, points: Sequence[FrontierRow], measure: Measure, colour: str) -> list[FrontierRow]:
    """Draws the points of one attack at which a label was reached, and returns them."""
    reached = [point for point in points if point.n]
    across, up = ([getattr(point, name).value for point in reached] for name in (measure, "confidence"))
    axes.plot(across, up, color=colour, linewidth=1.2, zorder=2)
    for point in reached:
        solid = 2 * point.n >= point.tries
        mark(axes, getattr(point, measure), point.confidence, colour, solid=solid, whisker=0.7, alpha=0.45, edge=1.2)
    return reached


def _name_ends(axes: Axes, reached: Sequence[FrontierRow], measure: Measure, shown: Callable[[float], str]) -> None:
    for point in (reached[0], reached[-1]) if len(reached) > 1 else reached:
        place = (getattr(point, measure).value, point.confidence.value)
        axes.annotate(
            shown(point.point or 0.0), place, xytext=(0, 7), textcoords="offset points", fontsize=8.5, color=svg.INK,
            ha="center", parse_math=False, zorder=4,
        )  # fmt: skip


def _limits(figures: Sequence[Estimate]) -> tuple[float, float]:
    """Both ends of an axis that shows all ``figures`` with their intervals."""
    values = [end for figure in figures for end in (figure.low, figure.value, figure.high) if end is not None]
    if not values:
        return 0.0, 1.0
    margin = max(_MARGIN * (max(values) - min(values)), 0.005)
    return min(values) - margin, max(values) + margin
