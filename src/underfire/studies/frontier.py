"""The frontier: the confidence of an attack against its map, as the attack is given more.

Along ``eps`` and ``passes`` every point is an audit of the photos, all else equal. ``weight`` is the trade itself, what
λ decides in the paper's objective. Our attack steers λ for each image at each step, so that no number of it can be
grown; and a fixed λ weighs losses whose units differ from interpreter to interpreter, and finds only those ends of a
frontier at which it bulges outwards. What grows along ``weight`` is therefore the confidence demanded: of the iterates
with at least that confidence the one nearest the benign map is kept. That asks the question directly, what more
confidence costs the map, and the demand means the same for every interpreter. An image that does not meet the demand
is the one with the highest confidence that was found, whatever its map.

Differences are always on the same photo, so that an attack that reaches more photos is not compared with itself on
fewer.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import pyarrow as pa
from matplotlib.axes import Axes

from underfire.attacks import ADV2
from underfire.attacks.control import Confidence
from underfire.attacks.joint import Descent
from underfire.auditing.condition import PGD, Condition
from underfire.auditing.names import known_interpreters, make_interpreters, make_perturbation
from underfire.auditing.plan import PASSES, AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.errors import InputError
from underfire.interpreters import GRAD
from underfire.interpreters.base import BACK_PROPAGATION
from underfire.models.classifier import Classifier
from underfire.parsing import budgets
from underfire.present.plots import axes_of, blank, label_axes, mark
from underfire.present.svg import ADV2 as ADV2_COLOUR
from underfire.present.svg import INK, LINE, MUTED, inline
from underfire.present.svg import PGD as PGD_COLOUR
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
Measure = Literal["confidence", "l1", "iou"]

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
    """A row of the table: a point, or a change or difference over points; ``failed`` photos are not among its ``n``."""

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


@dataclass(frozen=True)
class PointResult:
    """One attack on one photo at one point of a frontier, measured on the image as saved.

    Attributes:
        photo: its name.
        point: how far the attack was allowed to go there, such as its ε.
        success: whether the prediction is the target.
        confidence: the probability of the target.
        l1, iou: between the map and the benign map, in [0, 1].
    """

    photo: str
    point: float
    success: bool
    confidence: float
    l1: float
    iou: float


@dataclass(frozen=True)
class _Scale:
    """What grows, and its values."""

    along: Along
    values: tuple[float, ...]
    perturbation: str

    @property
    def name(self) -> str:
        return _NAMES[self.along]

    def shown(self, value: float) -> str:
        """A value as a reader knows it, ``8/255``."""
        return budget(value, self.perturbation) if self.along == "eps" else f"{value:g}"


@dataclass(frozen=True)
class _Frontier:
    """All attacks on one interpreter; ``pgd`` are those on the prediction alone, by the same map."""

    name: str
    adv2: tuple[PointResult, ...]
    pgd: tuple[PointResult, ...]

    @property
    def title(self) -> str:
        return interpreter_title(self.name)

    @property
    def propagates(self) -> bool:
        """Whether it works by back-propagation."""
        return known_interpreters()[self.name].family == BACK_PROPAGATION

    def at(self, value: float) -> list[PointResult]:
        """The attacks at one point."""
        return _at(self.adv2, value)

    def mean(self, value: float, measure: Measure) -> Estimate:
        """``measure`` at one point, over the photos whose label was reached."""
        return _mean(self.at(value), measure)


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
    scale = _Scale(along, _checked(_default(plan, along) if grid is None else grid, along), plan.perturbation)
    base = replace(plan, attacks=("pgd", "adv2"))
    rows = (_rows_by_confidence if along == "weight" else _rows_by_audits)(base, photos, classifier, scale, work, note)
    found = [_frontier(name, rows) for name in plan.interpreters]
    claims = (*_lowest(found), *_conflict(found, scale), *(_cost(one, scale) for one in found))
    return Study(
        name="frontier",
        title="The frontier of confidence and explanation",
        claim=CLAIM,
        claims=claims,
        table=_table(found, scale, count),
        figure=_figure(found, scale),
        words=_words(found, scale, claims, taking_part(photos, skipped)),
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
    plan: AuditPlan, photos: Sequence[PlannedPhoto], classifier: Classifier, scale: _Scale, work: Path, note: Note
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
        setting = replace(attack.setting, confidence=Confidence(keep, seek=(1 + keep) / 2))
        super().__init__(attack.classifier, attack.interpreters, setting, seed=attack.seed)


def _rows_by_confidence(
    plan: AuditPlan, photos: Sequence[PlannedPhoto], classifier: Classifier, scale: _Scale, work: Path, note: Note
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


def _frontier(name: str, rows: Mapping[float, Sequence[Row]]) -> _Frontier:
    def results(condition: Condition) -> tuple[PointResult, ...]:
        return tuple(
            PointResult(row.image_id, value, row.success_8bit, row.confidence_8bit, row.l1_8bit, row.iou_50_8bit)
            for value, here in rows.items()
            for row in here
            if (row.condition, row.interpreter) == (condition, name)
        )

    return _Frontier(name, results(Condition.on(ADV2.name, name)), results(PGD))


# Statistics


def changes(results: Iterable[PointResult], measure: Measure) -> dict[str, float]:
    """By photo: ``measure`` at the last point that reached the label, minus that at the first one.

    Photos whose label was reached at fewer than two points have none.
    """
    reached = _reached(results)
    ends = {photo: (min(points), max(points)) for photo, points in reached.items() if len(points) > 1}
    return {
        photo: getattr(reached[photo][last], measure) - getattr(reached[photo][first], measure)
        for photo, (first, last) in ends.items()
    }


def change(results: Iterable[PointResult], measure: Measure) -> Estimate:
    """The mean of :func:`changes` with its interval."""
    return bootstrap_mean(list(changes(results, measure).values()))


def difference(one: Iterable[PointResult], other: Iterable[PointResult], measure: Measure) -> Estimate:
    """``measure`` of ``one`` minus that of ``other``: per photo the mean over the points that both reached.

    One value per photo goes into the mean, for values of one photo at several points are not independent.
    """
    ours, theirs = _reached(one), _reached(other)
    shared = {photo: sorted(ours[photo].keys() & theirs[photo].keys()) for photo in ours.keys() & theirs.keys()}
    photos = sorted(photo for photo, points in shared.items() if points)
    mine, yours = (
        [fmean(getattr(side[photo][point], measure) for point in shared[photo]) for photo in photos]
        for side in (ours, theirs)
    )
    return bootstrap_paired(mine, yours)


def changes_in_common(
    one: Iterable[PointResult], other: Iterable[PointResult], measure: Measure
) -> tuple[list[float], list[float]]:
    """The changes of ``one`` and of ``other``, photo by photo, on the photos that have both, see :func:`changes`.

    Only points at which both reached the label count, so that both changes are between the same two points.
    """
    ours, theirs = list(one), list(other)
    both = {(a.photo, a.point) for a in ours if a.success} & {(a.photo, a.point) for a in theirs if a.success}
    mine, yours = (changes([a for a in side if (a.photo, a.point) in both], measure) for side in (ours, theirs))
    photos = sorted(mine.keys() & yours.keys())
    return [mine[photo] for photo in photos], [yours[photo] for photo in photos]


def difference_of_changes(one: Iterable[PointResult], other: Iterable[PointResult], measure: Measure) -> Estimate:
    """The mean change of ``one`` minus that of ``other``, see :func:`changes_in_common`."""
    return bootstrap_paired(*changes_in_common(one, other, measure))


def _reached(results: Iterable[PointResult]) -> Mapping[str, dict[float, PointResult]]:
    """By photo and point, the attacks that reached the label."""
    found: dict[str, dict[float, PointResult]] = defaultdict(dict)
    for result in results:
        if result.success:
            found[result.photo][result.point] = result
    return found


def _at(results: Sequence[PointResult], value: float) -> list[PointResult]:
    return [result for result in results if result.point == value]


def _mean(results: Sequence[PointResult], measure: Measure) -> Estimate:
    return bootstrap_mean([getattr(result, measure) for result in results if result.success])


# Judge


@dataclass(frozen=True)
class _Pair:
    """A back-propagation interpreter and another one.

    Attributes:
        loss: by how much more the IoU of ``one`` changed along the frontier than that of ``other``.
        mine, yours: the change of confidence of each, on the same photos.
    """

    one: _Frontier
    other: _Frontier
    loss: Estimate
    mine: Estimate
    yours: Estimate

    @property
    def name(self) -> str:
        return f"{self.one.title} less {self.other.title}"

    @property
    def bought(self) -> bool:
        """Whether the confidence of both rose."""
        return _rises(self.mine) and _rises(self.yours)


def _pairs(found: Sequence[_Frontier]) -> list[_Pair]:
    sides = [(one, other) for one in found for other in found if one.propagates and not other.propagates]
    return [
        _Pair(
            one,
            other,
            difference_of_changes(one.adv2, other.adv2, "iou"),
            *map(bootstrap_mean, changes_in_common(one.adv2, other.adv2, "confidence")),
        )
        for one, other in sides
    ]


def _rises(figure: Estimate) -> bool:
    """By its interval."""
    return above(figure) is Verdict.HOLDS


def _claim(name: str, statement: str, verdict: Verdict, estimates: Mapping[str, Estimate]) -> Claim:
    return Claim(name, statement, verdict, estimates, min((e.n for e in estimates.values()), default=0))


def _lowest(found: Sequence[_Frontier]) -> list[Claim]:
    """Whether GRAD has the lowest IoU; no claim without GRAD and another interpreter."""
    grad = next((one for one in found if one.name == GRAD.name), None)
    others = [one for one in found if one.name != GRAD.name]
    if grad is None or not others:
        return []
    gaps = {f"{grad.title} less {o.title}": difference(grad.adv2, o.adv2, "iou") for o in others}
    statement = "Under ADV² GRAD has the lowest IoU of all interpreters."
    return [_claim("lowest", statement, together(map(below, gaps.values())), gaps)]


def _conflict(found: Sequence[_Frontier], scale: _Scale) -> list[Claim]:
    """What the paper's explanation predicts of interpreters by back-propagation; no claim without another one.

    Along ``weight`` a loss of IoU is a price where confidence rose, by its interval; elsewhere nothing was bought, and
    nothing is decided.
    """
    pairs = _pairs(found)
    if not pairs:
        return []
    if scale.along != "weight":
        last = scale.values[-1]
        levels = {pair.name: difference(pair.one.at(last), pair.other.at(last), "iou") for pair in pairs}
        statement = f"Even with the most {scale.name}, back-propagation interpreters have a lower IoU than the others."
        return [_claim("behind", statement, together(map(below, levels.values())), levels)]
    prices = {one.title: change(one.adv2, "iou") for one in found if one.propagates}
    rose = {one.title: _rises(change(one.adv2, "confidence")) for one in found if one.propagates}
    price = together(below(figure) if rose[title] else Verdict.UNDECIDED for title, figure in prices.items())
    losses = {pair.name: pair.loss for pair in pairs}
    steeper = together(below(pair.loss) if pair.bought else Verdict.UNDECIDED for pair in pairs)
    both = "Prediction and map conflict for back-propagation interpreters."
    more = "More confidence costs back-propagation interpreters more IoU than the others."
    return [
        _claim("conflict", both, together([price, steeper]), prices | losses),
        _claim("conflict/price", "More confidence costs every back-propagation interpreter IoU.", price, prices),
        _claim("conflict/steeper", more, steeper, losses),
    ]


def _cost(one: _Frontier, scale: _Scale) -> Claim:
    """Whether one interpreter's map pays."""
    found = {measure: change(one.adv2, measure) for measure in get_args(Measure)}
    undecided = scale.along == "weight" and not _rises(found["confidence"])
    statement = f"More {scale.name} moves the map of {one.title} away from the benign map."
    return _claim(f"cost/{one.name}", statement, Verdict.UNDECIDED if undecided else above(found["l1"]), found)


# Table and figure


def _table(found: Sequence[_Frontier], scale: _Scale, count: int) -> pa.Table:
    """All figures; ``failed`` counts those of the ``count`` attacked photos that a row does without."""
    row: Callable[..., FrontierRow] = partial(FrontierRow, along=scale.along)
    rows = [_point(one, value, row) for one in found for value in scale.values]
    for one in found:
        means = {measure: change(one.adv2, measure) for measure in get_args(Measure)}
        n = means["iou"].n
        rows.append(row(kind="change", interpreter=one.name, n=n, failed=count - n, **_columns(means)))

    def compared(kind: str, one: _Frontier, other: _Frontier, iou: Estimate, **more: Any) -> FrontierRow:
        names = {"interpreter": one.name, "against": other.name}
        return row(kind=kind, **names, n=iou.n, failed=count - iou.n, iou_50=iou, **more)

    for one, other in combinations(found, 2):
        rows.append(compared("difference", one, other, difference(one.adv2, other.adv2, "iou")))
    last = scale.values[-1]
    for pair in _pairs(found):
        at_last = difference(pair.one.at(last), pair.other.at(last), "iou")
        rows.append(compared("difference", pair.one, pair.other, at_last, point=last))
        more = {"rise": pair.mine, "rise_against": pair.yours}
        rows.append(compared("difference of changes", pair.one, pair.other, pair.loss, **more))
    return to_arrow(rows, FrontierRow)


def _point(one: _Frontier, value: float, row: Callable[..., FrontierRow]) -> FrontierRow:
    here = one.at(value)
    means = {measure: one.mean(value, measure) for measure in get_args(Measure)}
    n, pairs = means["iou"].n, difference(here, _at(one.pgd, value), "l1")
    return row(
        kind="point",
        interpreter=one.name,
        point=value,
        n=n,
        failed=len(here) - n,
        reached=wilson(n, len(here)),
        confidence_all=bootstrap_mean([result.confidence for result in here]),
        pairs=pairs.n,
        l1_minus_pgd=pairs,
        **_columns(means),
    )


def _columns(means: Mapping[Measure, Estimate]) -> dict[str, Estimate]:
    return {"iou_50" if measure == "iou" else measure: figure for measure, figure in means.items()}


_COLUMN_IN, _ROW_IN = 2.3, 2.1
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN, _BETWEEN_IN = 0.62, 0.15, 0.6, 0.55, 0.22, 0.62
_MARGIN, _LABEL = 0.04, 0.08  # of an axis: beyond the last point, and for the label above it
_MEASURES: Mapping[Measure, str] = {"l1": "L1 to the benign map", "iou": "IoU with the benign map"}


def _figure(found: Sequence[_Frontier], scale: _Scale) -> str:
    """An SVG: one column per interpreter, confidence against L1 and against IoU, on common axes.

    Points are means over the photos whose label was reached, hollow where that are less than half, and whiskers are
    their intervals. The first and the last point of ADV² bear their labels.
    """
    width = _LEFT_IN + _RIGHT_IN + len(found) * _COLUMN_IN + (len(found) - 1) * _GAP_IN
    height = _TOP_IN + _BOTTOM_IN + 2 * _ROW_IN + _BETWEEN_IN
    figure = blank(width, height)
    everything = [_at(results, value) for one in found for results in (one.pgd, one.adv2) for value in scale.values]
    bottom, top = _limits([_mean(here, "confidence") for here in everything])
    for row, (measure, label) in enumerate(_MEASURES.items()):
        limits = _limits([_mean(here, measure) for here in everything])
        for column, one in enumerate(found):
            left = _LEFT_IN + column * (_COLUMN_IN + _GAP_IN)
            base = _BOTTOM_IN + (1 - row) * (_ROW_IN + _BETWEEN_IN)
            axes = axes_of(figure, (left / width, base / height, _COLUMN_IN / width, _ROW_IN / height))
            _draw(axes, one.pgd, scale, measure, PGD_COLOUR)
            _draw(axes, one.adv2, scale, measure, ADV2_COLOUR)
            label_axes(axes, x=label, y="" if column else "confidence", size=9.5)
            axes.tick_params(labelleft=column == 0)
            axes.locator_params(nbins=5)
            axes.grid(color=LINE, linewidth=0.5)
            axes.set_axisbelow(True)
            axes.set_xlim(limits)
            axes.set_ylim(bottom, top + _LABEL * (top - bottom))
            if row == 0:
                axes.set_title(one.title, color=INK, fontsize=11, loc="left", parse_math=False)
    legend = ((ADV2_COLOUR, "● ADV²", 10), (PGD_COLOUR, "● PGD", 10),
              (MUTED, f"○ label reached on less than half · labels: {scale.name}", 9))  # fmt: skip
    for place, (colour, text, size) in enumerate(legend):
        left = (_LEFT_IN + 0.75 * place) / width
        figure.text(left, 1 - 0.12 / height, text, color=colour, fontsize=size, va="top")
    description = (
        f"Confidence against L1 and IoU of {', '.join(one.title for one in found)} under ADV² and PGD, "
        f"as {scale.name} grows; the table has the numbers."
    )
    return inline(figure, name="frontier", description=description)


def _draw(axes: Axes, results: Sequence[PointResult], scale: _Scale, measure: Measure, colour: str) -> None:
    """The frontier of one attack on one interpreter."""
    by_point = [(value, _at(results, value)) for value in scale.values]
    tried = [(value, _mean(here, measure), _mean(here, "confidence"), len(here)) for value, here in by_point]
    ends = [point for point in tried if point[1].n]
    across, up = (
        [figure.value or 0.0 for figure in figures]
        for figures in ([x for _, x, _, _ in ends], [y for _, _, y, _ in ends])
    )
    axes.plot(across, up, color=colour, linewidth=1.2, zorder=2)
    for _, x, y, of in ends:
        mark(axes, x, y, colour, solid=2 * y.n >= of, whisker=0.7, alpha=0.45, edge=1.2)
    if colour == ADV2_COLOUR:
        for value, x, y, _ in (ends[0], ends[-1]) if len(ends) > 1 else ends:
            axes.annotate(
                scale.shown(value), (x.value, y.value), xytext=(0, 7), textcoords="offset points", fontsize=8.5,
                color=INK, ha="center", parse_math=False, zorder=4,
            )  # fmt: skip


def _limits(figures: Sequence[Estimate]) -> tuple[float, float]:
    """Both ends of an axis that shows all ``figures`` with their intervals."""
    values = [end for figure in figures for end in (figure.low, figure.value, figure.high) if end is not None]
    if not values:
        return 0.0, 1.0
    margin = max(_MARGIN * (max(values) - min(values)), 0.005)
    return min(values) - margin, max(values) + margin


# Words


def _words(found: Sequence[_Frontier], scale: _Scale, claims: Sequence[Claim], taking: str) -> str:
    first, last = scale.values[0], scale.values[-1]
    means = sorted((iou, one.title) for one in found if (iou := one.mean(last, "iou").value) is not None)
    pairs = _pairs(found)
    idle = [one.title for one in found if one.propagates and not _rises(change(one.adv2, "confidence"))]
    return written(
        "underfire.studies",
        "frontier.md.jinja",
        claims={claim.id: claim for claim in claims},
        scale=scale,
        order=[f"{title} {iou:.2f}" for iou, title in means],
        pairs=pairs,
        not_bought=idle + [f"{pair.one.title} beside {pair.other.title}" for pair in pairs if not pair.bought],
        taking_part=taking,
        courses=[
            {
                "title": one.title,
                "claim": next(claim for claim in claims if claim.id == f"cost/{one.name}"),
                "bought": scale.along != "weight" or _rises(change(one.adv2, "confidence")),
                "ends": [
                    {
                        "at": scale.shown(value),
                        "tries": len(one.at(value)),
                        "confidence": one.mean(value, "confidence"),
                        "l1": one.mean(value, "l1"),
                    }
                    for value in (first, last)
                ],
            }
            for one in found
        ],
    )
