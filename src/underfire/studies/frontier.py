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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import pyarrow as pa

from underfire.attacks import ADV2
from underfire.attacks.control import Confidence
from underfire.attacks.joint import Descent
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import PGD, Condition
from underfire.auditing.names import known_interpreters, make_interpreters, make_perturbation
from underfire.auditing.plan import PASSES, AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.errors import InputError
from underfire.interpreters import GRAD
from underfire.models.classifier import Classifier
from underfire.present.text import budget, estimate, interpreter_title, listing
from underfire.stats import Estimate, bootstrap_mean, wilson
from underfire.studies.attacks import Variant, audit_of, benign_map, rows_under, taking_part
from underfire.studies.columns import fields_of, three
from underfire.studies.frontier_figure import Line, Panel, Spot, frontier_figure
from underfire.studies.frontier_statistics import (
    Attempt,
    Finding,
    Measure,
    below_zero,
    change,
    changes_in_common,
    difference,
    difference_of_changes,
    rises,
)
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Study

Along = Literal["eps", "passes", "weight"]
"""What grows."""

_EPS_SHARES = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the perturbation's default: 1, 2, 4, 8, 16 /255 for L∞
_PASSES_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the preset's
_WEIGHTS = (0.5, 0.7, 0.9, 0.95, 0.99)
_UNASKED = Estimate(None, None, None, 0)  # decides nothing

_NAMES: Mapping[Along, str] = MappingProxyType({"eps": "ε", "passes": "passes", "weight": "confidence demanded"})
_BACK_PROPAGATION = "back-propagation"

_CLAIM = (
    "Under ADV² GRAD has the lowest IoU of all interpreters, because the loss on the prediction and that on the map "
    "conflict for interpreters that work by back-propagation (Zhang et al. 2020, the discussion of attack robustness, "
    "after Proposition 1)."
)

_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string()),  # point | change | difference | difference of changes
        pa.field("interpreter", pa.string()),
        pa.field("against", pa.string()),
        pa.field("along", pa.string()),
        pa.field("point", pa.float64()),
        pa.field("n", pa.int64()),
        pa.field("failed", pa.int64()),
        *fields_of(("reached", "confidence", "l1", "iou_50", "confidence_all")),
        pa.field("pairs", pa.int64()),
        *fields_of(("l1_minus_pgd", "rise", "rise_against")),
    ]
)
_COLUMNS: Mapping[Measure, str] = MappingProxyType({"confidence": "confidence", "l1": "l1", "iou": "iou_50"})


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
class _Measured:
    """All attacks of a frontier on one interpreter; ``pgd`` are those on the prediction alone, by the same map."""

    name: str
    joint: tuple[Attempt, ...]
    pgd: tuple[Attempt, ...]

    @property
    def title(self) -> str:
        return interpreter_title(self.name)

    @property
    def propagates(self) -> bool:
        """Whether it works by back-propagation."""
        return known_interpreters()[self.name].family == _BACK_PROPAGATION

    def at(self, value: float) -> list[Attempt]:
        """The attacks at one point."""
        return [attempt for attempt in self.joint if attempt.point == value]

    def mean(self, value: float, measure: Measure) -> Estimate:
        """``measure`` at one point, of the photos whose label was reached."""
        return bootstrap_mean([getattr(attempt, measure) for attempt in self.at(value) if attempt.success])


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
    """Attacks ``photos`` with ADV² on each of the plan's interpreters at every point, and tells what more of it buys.

    Args:
        plan: the settings of every point but for what grows; of its attacks PGD and ADV² are run.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        work: a folder for runs, one per point; what is finished there is not done again.
        note: is told how the study comes along.
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
    measured = [_measured(name, rows) for name in plan.interpreters]
    return Study(
        name="frontier",
        title="The frontier of confidence and explanation",
        claim=_CLAIM,
        claims=(),
        table=_table(measured, scale, count),
        figure=_figure(measured, scale),
        words=_words(measured, scale, photos, skipped),
    )


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
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    scale: _Scale,
    work: Path,
    note: Note,
) -> dict[float, list[Row]]:
    """By point the rows of its audit."""
    found = {}
    for value in scale.values:
        here = replace(plan, eps=value) if scale.along == "eps" else replace(plan, passes=round(value), steps=None)
        path = work / f"{scale.along}-{value:.6g}"
        run = audit_of(here, photos, classifier, path, what=f"{scale.name} {scale.shown(value)}", note=note)
        found[value] = list(run.records)
    return found


class _Demanding(Descent):
    """ADV² that is content with no image of less confidence than ``keep``."""

    name = ADV2.name

    def __init__(self, attack: ADV2, keep: float) -> None:
        # A step minds the prediction up to half-way from there to certainty, as with ADV²'s own 0.9 and 0.95.
        setting = replace(attack.setting, confidence=Confidence(keep, seek=(1 + keep) / 2))
        super().__init__(attack.classifier, attack.interpreters, setting, seed=attack.seed)


def _rows_by_confidence(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    scale: _Scale,
    work: Path,
    note: Note,
) -> dict[float, list[Row]]:
    """By confidence demanded the rows of ADV², and those of PGD, which are the same at every point."""
    interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    attacks = [attack_of(plan, Condition.on("adv2", g.name), classifier, [g]) for g in interpreters]
    demandable = [attack for attack in attacks if isinstance(attack, ADV2)]
    if len(demandable) < len(attacks):
        raise InputError(f"the preset '{plan.preset}' demands no confidence; give another preset, or go along eps")
    run = audit_of(replace(plan, attacks=("pgd",)), photos, classifier, work / "pgd", what="PGD", note=note)
    pgd = [row for row in run.records if row.condition == PGD]
    found: dict[float, list[Row]] = {}
    for value in scale.values:
        found[value] = list(pgd)
        for interpreter, attack in zip(interpreters, demandable, strict=True):
            variant = Variant(
                work / f"weight-{value!r}" / interpreter.name,  # all digits: two demands never share a folder
                interpreter,
                _Demanding(attack, value),
                aim=partial(benign_map, run, interpreter=interpreter.name),
            )
            what = f"{scale.name} {value:g}, {interpreter_title(interpreter.name)}"
            found[value] += rows_under(run, variant, what=what, note=note)
    return found


def _measured(name: str, rows: Mapping[float, Sequence[Row]]) -> _Measured:
    def attempts(condition: Condition) -> tuple[Attempt, ...]:
        return tuple(
            Attempt(row.image_id, value, row.success_8bit, row.confidence_8bit, row.l1_8bit, row.iou_50_8bit)
            for value, here in rows.items()
            for row in here
            if (row.condition, row.interpreter) == (condition, name)
        )

    return _Measured(name, attempts(Condition.on("adv2", name)), attempts(PGD))


def _table(measured: Sequence[_Measured], scale: _Scale, count: int) -> pa.Table:
    """All figures; ``failed`` counts those of the ``count`` attacked photos that a row does without."""
    last = scale.values[-1]
    lines = [_point(m, value) for m in measured for value in scale.values]
    for m in measured:
        figures = {measure: change(m.joint, measure) for measure in _COLUMNS}
        lines.append({"kind": "change", "interpreter": m.name} | _means(figures, count))
    for one, other in combinations(measured, 2):
        lines.append(_pair("difference", one, other, difference(one.joint, other.joint, "iou"), count))
    for one, other in _sides(measured):
        gap = difference(one.at(last), other.at(last), "iou")
        lines.append(_pair("difference", one, other, gap, count) | {"point": last})
        steeper = difference_of_changes(one.joint, other.joint, "iou")
        mine, yours = _confidence_in_common(one, other)
        line = _pair("difference of changes", one, other, steeper, count)
        lines.append(line | three("rise", mine) | three("rise_against", yours))
    return pa.Table.from_pylist([line | {"along": scale.along} for line in lines], schema=_SCHEMA)


def _point(m: _Measured, value: float) -> dict[str, Any]:
    here = m.at(value)
    means = _means({measure: m.mean(value, measure) for measure in _COLUMNS}, len(here))
    pairs = difference(here, [attempt for attempt in m.pgd if attempt.point == value], "l1")
    return {
        "kind": "point",
        "interpreter": m.name,
        "point": value,
        **means,
        **three("reached", wilson(sum(attempt.success for attempt in here), len(here))),
        **three("confidence_all", bootstrap_mean([attempt.confidence for attempt in here])),
        "pairs": pairs.n,
        **three("l1_minus_pgd", pairs),
    }


def _pair(kind: str, one: _Measured, other: _Measured, figure: Estimate, count: int) -> dict[str, Any]:
    return {"kind": kind, "interpreter": one.name, "against": other.name} | _means({"iou": figure}, count)


def _means(figures: Mapping[Measure, Estimate], count: int) -> dict[str, Any]:
    """``figures`` over the same photos, out of ``count``."""
    (n,) = {figure.n for figure in figures.values()}
    columns: dict[str, Any] = {"n": n, "failed": count - n}
    for measure, figure in figures.items():
        columns |= three(_COLUMNS[measure], figure)
    return columns


def _sides(measured: Sequence[_Measured]) -> list[tuple[_Measured, _Measured]]:
    """Every back-propagation interpreter with every other one."""
    return [(one, other) for one in measured for other in measured if one.propagates and not other.propagates]


def _confidence_in_common(one: _Measured, other: _Measured) -> tuple[Estimate, Estimate]:
    """By how much the confidence of each changed, on the photos on which their changes of IoU are compared."""
    mine, yours = changes_in_common(one.joint, other.joint, "confidence")
    return bootstrap_mean(mine), bootstrap_mean(yours)


def _figure(measured: Sequence[_Measured], scale: _Scale) -> str:
    panels = []
    for m in measured:
        lines = [
            Line(role, tuple(_spot(replace(m, joint=attempts), scale, value) for value in scale.values))
            for role, attempts in (("pgd", m.pgd), ("adv2", m.joint))
        ]
        panels.append(Panel(interpreter_title(m.name), tuple(lines)))
    return frontier_figure(panels, grows=scale.name)


def _spot(m: _Measured, scale: _Scale, value: float) -> Spot:
    confidence, l1, iou = (m.mean(value, measure) for measure in get_args(Measure))
    return Spot(scale.shown(value), confidence, l1, iou, of=len(m.at(value)))


def _words(measured: Sequence[_Measured], scale: _Scale, photos: Sequence[PlannedPhoto], skipped: int) -> str:
    first, last = (scale.shown(value) for value in (scale.values[0], scale.values[-1]))
    return " ".join(
        [
            _order(measured, scale),
            _explanation(measured, scale),
            f"{taking_part(photos, skipped)} Attacked by ADV² with {scale.name} from {first} to {last}, measured on "
            "the images as saved; differences are on the same photo, and each has a 95 % interval of its own.",
            *(_course(m, scale) for m in measured),
        ]
    )


def _course(m: _Measured, scale: _Scale) -> str:
    """What more bought on one interpreter."""
    ends = [f"{_end(m, value)} at {scale.shown(value)}" for value in (scale.values[0], scale.values[-1])]
    changed = {measure: change(m.joint, measure) for measure in get_args(Measure)}
    if not changed["l1"].n:
        return f"{m.title}: {ends[0]}, {ends[1]}; no photo was reached at two points."
    verdict = {
        Finding.HOLDS: "more brought the map nearer to the benign one",
        Finding.FAILS: "more was paid for with the map",
        Finding.OPEN: "whether the map pays is not decided at this n",
    }[below_zero([changed["l1"]])]
    if scale.along == "weight" and not rises(changed["confidence"]):
        verdict = "what more confidence costs the map is not decided, for there is no more of it by its interval"
    return (
        f"{m.title}: {ends[0]}, {ends[1]}; from a photo's first to its last success its confidence changed by "
        f"{estimate(changed['confidence'])}, its L1 by {estimate(changed['l1'])}, its IoU by "
        f"{estimate(changed['iou'])}: {verdict}."
    )


def _end(m: _Measured, value: float) -> str:
    confidence, l1 = m.mean(value, "confidence"), m.mean(value, "l1")
    reached = f"the label on {l1.n} of {len(m.at(value))}"
    if confidence.value is None or l1.value is None:
        return reached
    return f"{reached} with confidence {confidence.value:.2f} and L1 {l1.value:.3f}"


def _order(measured: Sequence[_Measured], scale: _Scale) -> str:
    """Whether GRAD has the lowest IoU."""
    grad = next((m for m in measured if m.name == GRAD.name), None)
    others = [m for m in measured if m.name != GRAD.name]
    if grad is None or not others:
        return "Whether GRAD has the lowest IoU was not asked: it takes GRAD and another interpreter."
    gaps = [difference(grad.joint, other.joint, "iou") for other in others]
    last = scale.values[-1]
    means = sorted((iou, m.title) for m in measured if (iou := m.mean(last, "iou").value) is not None)
    order = ", ".join(f"{title} {iou:.2f}" for iou, title in means)
    at_last = f" (mean IoU at {scale.shown(last)}: {order})" if order else ""
    return f"That GRAD has the lowest IoU {below_zero(gaps)}{at_last}: {_pairs(gaps, [(grad, o) for o in others])}."


def _explanation(measured: Sequence[_Measured], scale: _Scale) -> str:
    """What the paper's explanation predicts of interpreters by back-propagation, and whether it is so."""
    sides = _sides(measured)
    if not sides:
        return "The paper's explanation was not asked: it takes an interpreter by back-propagation and another one."
    if scale.along == "weight":
        return _price(measured, sides)
    last = scale.values[-1]
    levels = [difference(one.at(last), other.at(last), "iou") for one, other in sides]
    return (
        "What the paper's explanation predicts, that the maps of interpreters by back-propagation are behind the "
        f"others in IoU even with the most {scale.name}, {below_zero(levels)}: {_pairs(levels, sides)}. More "
        f"{scale.name} gives prediction and map room at once; what confidence alone costs the map is the frontier "
        "along weight."
    )


def _price(measured: Sequence[_Measured], sides: Sequence[tuple[_Measured, _Measured]]) -> str:
    """Whether the maps of interpreters by back-propagation pay for confidence, and pay more than the others.

    A loss of IoU is a price where confidence rose, by its interval; elsewhere nothing was bought, and nothing is asked.
    """
    propagating = [m for m in measured if m.propagates]
    bought = {m.title: change(m.joint, "confidence") for m in propagating}
    conflict = below_zero([change(m.joint, "iou") if rises(bought[m.title]) else _UNASKED for m in propagating])
    losses = [difference_of_changes(one.joint, other.joint, "iou") for one, other in sides]
    confidences = [_confidence_in_common(one, other) for one, other in sides]
    both = [all(map(rises, confidence)) for confidence in confidences]
    steeper = below_zero([loss if rose else _UNASKED for loss, rose in zip(losses, both, strict=True)])
    found = {conflict, steeper}
    verdict = Finding.FAILS if Finding.FAILS in found else Finding.OPEN if Finding.OPEN in found else Finding.HOLDS
    return (
        "The paper's explanation, that prediction and map conflict for interpreters by back-propagation, "
        f"{verdict}: that more confidence costs all of them IoU {conflict}, that it costs them more than the others "
        f"{steeper}: {_prices(losses, confidences, sides)}.{_not_bought(bought, both, sides)}"
    )


def _prices(
    losses: Sequence[Estimate],
    confidences: Sequence[tuple[Estimate, Estimate]],
    sides: Sequence[tuple[_Measured, _Measured]],
) -> str:
    """Each loss of IoU, with what was bought for it."""
    parts = [
        f"{one.title} less {other.title} {estimate(loss)}, while confidence changed by {estimate(mine)} and "
        f"{estimate(yours)}"
        for loss, (mine, yours), (one, other) in zip(losses, confidences, sides, strict=True)
    ]
    return "; ".join(parts)


def _not_bought(
    bought: Mapping[str, Estimate], both: Sequence[bool], sides: Sequence[tuple[_Measured, _Measured]]
) -> str:
    """What is left open, for confidence did not rise with the demand; empty if there is nothing."""
    alone = [title for title, figure in bought.items() if not rises(figure)]
    pairs = [f"{one.title} beside {other.title}" for (one, other), rose in zip(sides, both, strict=True) if not rose]
    if not alone and not pairs:
        return ""
    return f" Left open, for the confidence of one side or both did not rise by its interval: {listing(alone + pairs)}."


def _pairs(figures: Sequence[Estimate], sides: Sequence[tuple[_Measured, _Measured]]) -> str:
    parts = zip(figures, sides, strict=True)
    return listing([f"{one.title} less {other.title} {estimate(figure)}" for figure, (one, other) in parts])
