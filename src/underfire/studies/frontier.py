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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

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
from underfire.present.tables import to_arrow
from underfire.present.text import budget, interpreter_title
from underfire.present.words import written
from underfire.stats import NO_ESTIMATE, Estimate, bootstrap_mean, wilson
from underfire.studies.frontier_figure import frontier_figure
from underfire.studies.frontier_points import (
    Frontier,
    PointMeans,
    PointResult,
    at,
    changes_in_common,
    difference,
    difference_of_changes,
)
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
    found = [_frontier(name, scale.values, rows) for name in plan.interpreters]
    claims = (*_lowest(found), *_conflict(found, scale), *(_cost(one, scale) for one in found))
    return Study(
        name="frontier",
        title="The frontier of confidence and explanation",
        claim=CLAIM,
        claims=claims,
        table=_table(found, scale, count),
        figure=frontier_figure(found, grows=scale.name, shown=scale.shown),
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


def _frontier(name: str, points: tuple[float, ...], rows: Mapping[float, Sequence[Row]]) -> Frontier:
    def results(condition: Condition) -> tuple[PointResult, ...]:
        return tuple(
            PointResult(row.image_id, value, row.success_8bit, row.confidence_8bit, row.l1_8bit, row.iou_50_8bit)
            for value, here in rows.items()
            for row in here
            if (row.condition, row.interpreter) == (condition, name)
        )

    return Frontier(name, points, results(Condition.on(ADV2.name, name)), results(PGD))


# Judge


@dataclass(frozen=True)
class _Pair:
    """A back-propagation interpreter and another one.

    Attributes:
        loss: by how much more the IoU of ``one`` changed along the frontier than that of ``other``.
        mine, yours: the change of confidence of each, on the same photos.
    """

    one: Frontier
    other: Frontier
    loss: Estimate
    mine: Estimate
    yours: Estimate

    @property
    def name(self) -> str:
        return f"{self.one.title} less {self.other.title}"

    @property
    def at_last(self) -> Estimate:
        """The IoU of ``one`` less that of ``other`` at the last point."""
        last = self.one.points[-1]
        return difference(at(self.one.adv2, last), at(self.other.adv2, last), "iou")

    @property
    def bought(self) -> bool:
        """Whether the confidence of both rose."""
        return _rises(self.mine) and _rises(self.yours)


def _propagating(found: Sequence[Frontier]) -> list[Frontier]:
    """Those of interpreters that work by back-propagation."""
    known = known_interpreters()
    return [one for one in found if known[one.interpreter].family == BACK_PROPAGATION]


def _pairs(found: Sequence[Frontier]) -> list[_Pair]:
    """Every back-propagation interpreter with every other one."""
    propagating = _propagating(found)
    pairs = []
    for one, other in ((one, other) for one in propagating for other in found if other not in propagating):
        loss = difference_of_changes(one.adv2, other.adv2, "iou")
        mine, yours = map(bootstrap_mean, changes_in_common(one.adv2, other.adv2, "confidence"))
        pairs.append(_Pair(one, other, loss, mine, yours))
    return pairs


def _rises(figure: Estimate) -> bool:
    """By its interval."""
    return above(figure) is Verdict.HOLDS


def _bought(one: Frontier) -> bool:
    """Whether confidence rose along the frontier."""
    return _rises(one.changes["confidence"])


def _claim(name: str, statement: str, verdict: Verdict, estimates: Mapping[str, Estimate]) -> Claim:
    return Claim(name, statement, verdict, estimates, min((e.n for e in estimates.values()), default=0))


def _lowest(found: Sequence[Frontier]) -> list[Claim]:
    """Whether GRAD has the lowest IoU; no claim without GRAD and another interpreter."""
    grad = next((one for one in found if one.interpreter == GRAD.name), None)
    others = [one for one in found if one.interpreter != GRAD.name]
    if grad is None or not others:
        return []
    gaps = {f"{grad.title} less {o.title}": difference(grad.adv2, o.adv2, "iou") for o in others}
    statement = "Under ADV² GRAD has the lowest IoU of all interpreters."
    return [_claim("lowest", statement, together(map(below, gaps.values())), gaps)]


def _conflict(found: Sequence[Frontier], scale: _Scale) -> list[Claim]:
    """What the paper's explanation predicts of interpreters by back-propagation; no claim without another one.

    Along ``weight`` a loss of IoU is a price where confidence rose, by its interval; elsewhere nothing was bought, and
    nothing is decided.
    """
    pairs = _pairs(found)
    if not pairs:
        return []
    if scale.along != "weight":
        levels = {pair.name: pair.at_last for pair in pairs}
        statement = f"Even with the most {scale.name}, back-propagation interpreters have a lower IoU than the others."
        return [_claim("behind", statement, together(map(below, levels.values())), levels)]
    propagating = _propagating(found)
    prices = {one.title: one.changes["iou"] for one in propagating}
    price = together(below(one.changes["iou"]) if _bought(one) else Verdict.UNDECIDED for one in propagating)
    losses = {pair.name: pair.loss for pair in pairs}
    steeper = together(below(pair.loss) if pair.bought else Verdict.UNDECIDED for pair in pairs)
    both = "Prediction and map conflict for back-propagation interpreters."
    more = "More confidence costs back-propagation interpreters more IoU than the others."
    return [
        _claim("conflict", both, together([price, steeper]), prices | losses),
        _claim("conflict/price", "More confidence costs every back-propagation interpreter IoU.", price, prices),
        _claim("conflict/steeper", more, steeper, losses),
    ]


def _cost(one: Frontier, scale: _Scale) -> Claim:
    """Whether one interpreter's map pays."""
    undecided = scale.along == "weight" and not _bought(one)
    statement = f"More {scale.name} moves the map of {one.title} away from the benign map."
    verdict = Verdict.UNDECIDED if undecided else above(one.changes["l1"])
    return _claim(f"cost/{one.interpreter}", statement, verdict, one.changes)


# Table and words


def _table(found: Sequence[Frontier], scale: _Scale, count: int) -> pa.Table:
    """All figures; ``failed`` counts those of the ``count`` attacked photos that a row does without."""
    row: Callable[..., FrontierRow] = partial(FrontierRow, along=scale.along)
    rows = [_point(one, means, row) for one in found for means in one.adv2_means]
    for one in found:
        n, changed = one.changes["iou"].n, one.changes
        means = {"confidence": changed["confidence"], "l1": changed["l1"], "iou_50": changed["iou"]}
        rows.append(row(kind="change", interpreter=one.interpreter, n=n, failed=count - n, **means))

    def compared(kind: str, one: Frontier, other: Frontier, iou: Estimate, **more: Any) -> FrontierRow:
        names = {"interpreter": one.interpreter, "against": other.interpreter}
        return row(kind=kind, **names, n=iou.n, failed=count - iou.n, iou_50=iou, **more)

    for one, other in combinations(found, 2):
        rows.append(compared("difference", one, other, difference(one.adv2, other.adv2, "iou")))
    for pair in _pairs(found):
        rows.append(compared("difference", pair.one, pair.other, pair.at_last, point=scale.values[-1]))
        more = {"rise": pair.mine, "rise_against": pair.yours}
        rows.append(compared("difference of changes", pair.one, pair.other, pair.loss, **more))
    return to_arrow(rows, FrontierRow)


def _point(one: Frontier, means: PointMeans, row: Callable[..., FrontierRow]) -> FrontierRow:
    here = at(one.adv2, means.point)
    pairs = difference(here, at(one.pgd, means.point), "l1")
    return row(
        kind="point",
        interpreter=one.interpreter,
        point=means.point,
        n=means.n,
        failed=means.tries - means.n,
        reached=wilson(means.n, means.tries),
        confidence=means.confidence,
        l1=means.l1,
        iou_50=means.iou,
        confidence_all=bootstrap_mean([result.confidence for result in here]),
        pairs=pairs.n,
        l1_minus_pgd=pairs,
    )


def _words(found: Sequence[Frontier], scale: _Scale, claims: Sequence[Claim], taking: str) -> str:
    pairs, by_id = _pairs(found), {claim.id: claim for claim in claims}
    means = sorted((iou, one.title) for one in found if (iou := one.adv2_means[-1].iou.value) is not None)
    alone = [one.title for one in _propagating(found) if not _bought(one)]
    return written(
        "underfire.studies",
        "frontier.md.jinja",
        claims=by_id,
        scale=scale,
        order=[f"{title} {iou:.2f}" for iou, title in means],
        pairs=pairs,
        not_bought=alone + [f"{pair.one.title} beside {pair.other.title}" for pair in pairs if not pair.bought],
        taking_part=taking,
        frontiers=[(one, by_id[f"cost/{one.interpreter}"], scale.along != "weight" or _bought(one)) for one in found],
    )
