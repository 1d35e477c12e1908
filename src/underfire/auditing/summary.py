"""The figures of an audit, from its rows: each with its n, its exclusions and an interval.

An excluded photo is never counted. A figure "over successes" leaves failed attacks out, a figure "over all"
keeps them; both are given, as is and on the image saved as 8-bit PNG and read back. The summary depends on
the set of rows alone, not on their order. What a report shows photo by photo is in the rows; the summary has
only what needs several of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from underfire.attacks.goals import LabelWord, MapWord
from underfire.auditing.agreement import MeasureAgreement, measure_agreement
from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.distances import MapDistances, distances_of
from underfire.auditing.rows import Row
from underfire.diagnostics.attack_signs import Indicator, indicators
from underfire.diagnostics.gradient_masking import Ending, lead
from underfire.diagnostics.map_checks import FaithfulnessFloor, MapCheck
from underfire.errors import InputError
from underfire.stats import LEVEL, NO_ESTIMATE, Estimate, Share, bootstrap_mean, bootstrap_paired, wilson

KEPT_IOU = 0.5
"""A map counts as kept when its IoU with the benign map (both binarised at 0.5) is at least this."""

TAUS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "kept": (0.25, KEPT_IOU, 0.75),
        "topk": (0.5, 0.25, 0.11),
        "l1": (0.5, 0.25, 0.11),
        "center": (0.1, 0.2, 0.3),
    }
)
"""The τ at which joint success rates are given, by what the map shall become, the mildest first.

A kept map has an IoU (cut at 0.5) of at least τ; of a moved one the top fifths have an IoU of at most τ, two random
fifths having 0.11, or the centre of mass is shifted by at least τ diagonals. The one in the middle is the headline's.
"""

SUMMARY_VERSION = 1
"""Raised when a field of the summary is removed or changes its meaning."""

SEARCH = "square"
"""The attack without gradients that checks the others."""


@dataclass(frozen=True)
class Excluded:
    """A photo that was not attacked, and why."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class PhotoCounts:
    """How many photos the figures rest on. Files that could not be read are not here: they have no rows.

    ``attacked`` have at least one row of an attack; ``own_labels`` of all photos, and ``own_labels_attacked``
    of the attacked ones, had no label and took the model's own prediction.
    """

    total: int
    attacked: int
    own_labels: int
    own_labels_attacked: int
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True)
class OfAttack:
    """Something of one attack; in JSON its attack and source stand beside the condition."""

    condition: Condition


@dataclass(frozen=True)
class AttackFigures(OfAttack):
    """What one attack did to the prediction, over the photos it was run on.

    ``asr`` is the share whose prediction became the target; ``confidence`` the mean probability of the target
    over successes, ``confidence_all`` over all photos. ``passes`` (forward and backward) and ``seconds`` are
    per photo.
    """

    n: int
    asr: Share
    asr_8bit: Share
    confidence: Estimate
    confidence_all: Estimate
    confidence_8bit: Estimate
    confidence_8bit_all: Estimate
    linf: Estimate
    l2: Estimate
    passes: Estimate
    seconds: Estimate


@dataclass(frozen=True)
class Measure:
    """One distance between the maps of a cell and the benign maps; nothing succeeds under a control."""

    successes: Estimate
    every: Estimate
    successes_8bit: Estimate
    every_8bit: Estimate


@dataclass(frozen=True)
class Cell:
    """A cell of the transfer matrix: the maps of ``interpreter`` under ``condition``, against benign ones.

    ``own`` marks the diagonal (the attack was made on exactly this interpreter). ``l1_minus_pgd`` is the mean
    paired difference in L1 to PGD over the photos where both succeed (negative: nearer the benign map), None
    where the condition is no attack on an interpreter.
    """

    condition: Condition
    interpreter: str
    own: bool
    control: bool
    n: int
    distances: MapDistances[Measure]
    """None of a measure that the rows of this cell are too old for."""
    l1_minus_pgd: Estimate | None
    l1_minus_pgd_8bit: Estimate | None

    def mean(self, measure: str, *, eight_bit: bool = True) -> Estimate:
        """The figure that a table shows: over successes for an attack, over all photos for a control."""
        values = self.distances[measure]
        if values is None:
            return NO_ESTIMATE
        if self.control:
            return values.every_8bit if eight_bit else values.every
        return values.successes_8bit if eight_bit else values.successes


@dataclass(frozen=True)
class RateAt:
    """A joint success rate at one ``tau``, and that of noise of the same size, which nobody aimed."""

    tau: float
    jsr: Share
    noise: Share


@dataclass(frozen=True)
class GoalFigures:
    """How far an attack on one interpreter reached its goal, on the 8-bit image, over the photos that it was run on.

    ``label``: the label's part is met. ``rates``: both parts are, JSR@τ, for every τ of `TAUS`; of noise, which leaves
    labels alone, the share whose map would do, with a label as the goal wants it where that is to be kept.
    """

    condition: Condition
    goal: str
    interpreter: str
    n: int
    label: Share
    rates: tuple[RateAt, ...]

    @property
    def headline(self) -> RateAt | None:
        """The rate at the τ in the middle; None where the map is free."""
        return self.rates[len(self.rates) // 2] if self.rates else None


@dataclass(frozen=True)
class Headline:
    """What a decision-maker needs to know of one interpreter; all on the 8-bit image, over attacked photos.

    ``kept``: the attack on this interpreter chose the label and the map's IoU with the benign one is at least
    `KEPT_IOU`; ``kept_pgd``: PGD did so, without trying to. ``within_noise``: it chose the label and moved
    the map (L1) no more than harmless noise of the same size moves it on the same photo;
    ``within_noise_pgd``: PGD did so. ``faithfulness``: what the benign maps show of the model, without which the others
    say nothing of robustness; None where that was not looked at.
    """

    interpreter: str
    condition: Condition
    kept: Share
    kept_pgd: Share
    within_noise: Share
    within_noise_pgd: Share
    faithfulness: FaithfulnessFloor | None


@dataclass(frozen=True)
class Point:
    """One photo in a distribution."""

    image_id: str
    success: bool
    l1: float
    iou_50: float
    success_8bit: bool
    l1_8bit: float
    iou_50_8bit: float


@dataclass(frozen=True)
class Distribution:
    """The photos behind a cell, for plots: conditions noise, pgd and the attack on the interpreter itself."""

    condition: Condition
    interpreter: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class AttackSign(OfAttack):
    """On how many of the ``n`` photos that an attack was run on its course shows ``indicator``: ``k``."""

    indicator: Indicator
    k: int
    n: int


@dataclass(frozen=True)
class Comparison(OfAttack):
    """A search without gradients against an attack that follows them, on the ``n`` photos that both were run on.

    ``condition`` is that of the latter. ADV² on an interpreter is compared with the search on the same
    one, by label and map; PGD with all searches, by the label. ``better`` counts the photos on which the search did
    better (see `underfire.diagnostics.gradient_masking.lead`), ``reached`` those that it brought to the target class.
    """

    better: int
    reached: int
    n: int


@dataclass(frozen=True)
class Summary:
    """All figures of an audit.

    ``interpreters`` are those that maps were taken with, ``conditions`` the rows of the transfer matrix
    (none, noise, pgd, adv2-…), ``headlines`` one per interpreter that was attacked on its own, ``goals`` one per attack
    and interpreter that it was on, ``signs`` one per attack and indicator, those that no photo shows included,
    ``comparisons`` one per attack that a search without gradients checks, ``agreement`` whether all measures rank the
    interpreters alike, None for fewer than two that were attacked. ``level`` is that of every interval.
    """

    version: int
    level: float
    kept_iou: float
    photos: PhotoCounts
    interpreters: tuple[str, ...]
    conditions: tuple[Condition, ...]
    headlines: tuple[Headline, ...]
    goals: tuple[GoalFigures, ...]
    attacks: tuple[AttackFigures, ...]
    transfer: tuple[Cell, ...]
    distributions: tuple[Distribution, ...]
    signs: tuple[AttackSign, ...]
    comparisons: tuple[Comparison, ...]
    agreement: MeasureAgreement | None

    def attack(self, condition: Condition) -> AttackFigures | None:
        """The figures of one attack, None where it was not run."""
        return next((a for a in self.attacks if a.condition == condition), None)

    def cell(self, condition: Condition, interpreter: str) -> Cell | None:
        """One cell of the transfer matrix, None where it was not measured."""
        return next((c for c in self.transfer if (c.condition, c.interpreter) == (condition, interpreter)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, text, numbers and None: valid JSON, the same for the same rows."""
        return dict(_plain(self))


def _plain(value: Any) -> Any:
    """``value`` as JSON has it: conditions as text, the distances of a cell as fields of its own."""
    if isinstance(value, Condition):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        found |= _plain(item) if isinstance(item, MapDistances) else {field.name: _plain(item)}
        if isinstance(value, OfAttack) and item is value.condition:
            found |= {"attack": value.condition.attack, "source": value.condition.source}
    return found


def summarise(rows: Iterable[Row], map_checks: Iterable[MapCheck] = ()) -> Summary:
    """The figures of an audit, from its rows in any order and the checks of its interpreters' benign maps.

    Raises:
        InputError: Two rows are of the same photo, condition and interpreter.
    """
    table = _Table(rows)
    floors = {check.interpreter: check.floor for check in map_checks}
    return Summary(
        version=SUMMARY_VERSION,
        level=LEVEL,
        kept_iou=KEPT_IOU,
        photos=_photos(table),
        interpreters=table.interpreters,
        conditions=table.conditions,
        headlines=tuple(
            _headline(table, interpreter, floors.get(interpreter))
            for interpreter in table.interpreters
            if table.cell(_adv2(interpreter), interpreter)
        ),
        goals=tuple(
            _goal(table, condition, interpreter)
            for condition in table.conditions
            for interpreter in condition.sources
            if table.cell(condition, interpreter)
        ),
        attacks=tuple(_attack(table, condition) for condition in table.conditions if not condition.is_control),
        transfer=tuple(
            _cell(table, condition, interpreter)
            for condition in table.conditions
            for interpreter in table.interpreters
            if table.cell(condition, interpreter)
        ),
        distributions=tuple(
            _distribution(table, condition, interpreter)
            for interpreter in table.interpreters
            for condition in (NOISE, PGD, _adv2(interpreter))
            if table.cell(condition, interpreter)
        ),
        signs=tuple(sign for condition in table.conditions for sign in _signs(table, condition)),
        comparisons=tuple(_comparisons(table)),
        agreement=measure_agreement(
            {name: cell for name in table.interpreters if (cell := table.cell(_adv2(name), name))}
        ),
    )


def _adv2(interpreter: str) -> Condition:
    return Condition.on("adv2", interpreter)


class _Table:
    """The rows of photos that were not excluded, found by condition and interpreter, ordered by photo."""

    def __init__(self, rows: Iterable[Row]) -> None:
        ordered = sorted(rows, key=lambda row: (row.image_id, str(row.condition), row.interpreter))
        self.first: dict[str, Row] = {}  # any row of each photo, for the facts that all its rows share
        self.excluded: dict[str, str] = {}
        for row in ordered:
            self.first.setdefault(row.image_id, row)
            if row.excluded is not None:
                self.excluded.setdefault(row.image_id, row.excluded)
        self._cells: dict[tuple[Condition, str], dict[str, Row]] = {}
        self._by_condition: dict[Condition, dict[str, Row]] = {}
        for row in ordered:
            if row.image_id in self.excluded:
                continue
            cell = self._cells.setdefault((row.condition, row.interpreter), {})
            if row.image_id in cell:
                raise InputError(
                    f"the run has two rows of {row.image_id!r} under {row.condition} with the map of "
                    f"{row.interpreter}; it mixes parts of several runs, so summarise each run by itself"
                )
            cell[row.image_id] = row
            self._by_condition.setdefault(row.condition, {}).setdefault(row.image_id, row)
        self.interpreters = tuple(sorted({row.interpreter for row in ordered}))
        self.conditions = tuple(sorted(self._by_condition, key=_rank))
        self.attacked = {p for c, rows in self._by_condition.items() if not c.is_control for p in rows}

    def photos(self, condition: Condition) -> list[Row]:
        """One row per photo under a condition, whichever interpreter: for what the map has no part in."""
        return list(self._by_condition.get(condition, {}).values())

    def cell(self, condition: Condition, interpreter: str) -> dict[str, Row]:
        return self._cells.get((condition, interpreter), {})


def _rank(condition: Condition) -> tuple[int, str, int, str]:
    """Controls, PGD, then the others by name; attacks on one interpreter before those on several."""
    known = (NONE, NOISE, PGD)
    place = known.index(condition) if condition in known else len(known)
    return place, condition.attack, len(condition.sources), str(condition)


def _photos(table: _Table) -> PhotoCounts:
    own = [image_id for image_id, row in table.first.items() if not row.photo.label_given]
    return PhotoCounts(
        total=len(table.first),
        attacked=len(table.attacked),
        own_labels=len(own),
        own_labels_attacked=sum(image_id in table.attacked for image_id in own),
        excluded=tuple(Excluded(image_id, reason) for image_id, reason in table.excluded.items()),
    )


def _attack(table: _Table, condition: Condition) -> AttackFigures:
    rows = table.photos(condition)
    return AttackFigures(
        condition=condition,
        n=len(rows),
        asr=_share(row.answer.success for row in rows),
        asr_8bit=_share(row.saved.success for row in rows),
        confidence=bootstrap_mean([row.answer.confidence for row in rows if row.answer.success]),
        confidence_all=bootstrap_mean([row.answer.confidence for row in rows]),
        confidence_8bit=bootstrap_mean([row.saved.confidence for row in rows if row.saved.success]),
        confidence_8bit_all=bootstrap_mean([row.saved.confidence for row in rows]),
        linf=bootstrap_mean([row.change.linf for row in rows]),
        l2=bootstrap_mean([row.change.l2 for row in rows]),
        passes=bootstrap_mean([row.spent.passes for row in rows]),
        seconds=bootstrap_mean([row.spent.seconds for row in rows]),
    )


def _goal(table: _Table, condition: Condition, interpreter: str) -> GoalFigures:
    goal = condition.wanted
    if goal is None:
        raise ValueError(f"{condition} attacks nothing, and so has no goal")
    rows = list(table.cell(condition, interpreter).values())
    floor = list(table.cell(NOISE, interpreter).values())
    return GoalFigures(
        condition,
        str(goal),
        interpreter,
        len(rows),
        _share(row.saved.success for row in rows),
        tuple(
            RateAt(
                tau,
                jsr=_share(row.saved.success and map_met(row, goal.map, tau) for row in rows),
                noise=_share(map_met(row, goal.map, tau) and _stayed(row, goal.label) for row in floor),
            )
            for tau in TAUS.get(goal.map, ())
        ),
    )


def map_met(row: Row, wanted: MapWord, tau: float) -> bool:
    """Whether the map of the saved image is as it is ``wanted``; a measure that the row is too old for is not met."""
    found = row.saved.distances
    match wanted:
        case "free":
            return True
        case "center":
            return found.center_shift is not None and found.center_shift >= tau
        case "topk" | "l1":
            # A constant map has no top cells, and so none in common; nor does it correlate with anything.
            constant = found.pearson == found.spearman == found.kendall == 0
            return found.iou_top20 <= tau and not constant
        case _:
            return found.iou_50 >= tau


def _stayed(row: Row, label: LabelWord) -> bool:
    """Whether noise left the label of ``row`` as a goal wants it that keeps labels; others ask nothing of noise."""
    return label != "kept" or row.answer.prediction == row.photo.label


def _signs(table: _Table, condition: Condition) -> list[AttackSign]:
    """None for a control, which has no course."""
    traced = [(row, trace) for row in table.photos(condition) if (trace := row.trace)]
    shown = Counter(sign for row, trace in traced for sign in indicators(trace, success=row.answer.success))
    return [AttackSign(condition, indicator, shown[indicator], len(traced)) for indicator in Indicator if traced]


def _comparisons(table: _Table) -> list[Comparison]:
    searches = [row for c in table.conditions if c.attack == SEARCH for row in table.photos(c)]
    best = {row.image_id: row for row in sorted(searches, key=lambda row: (row.answer.success, row.answer.confidence))}
    found = [_comparison(PGD, {row.image_id: row for row in table.photos(PGD)}, best, maps=False)]
    for interpreter in table.interpreters:
        condition = _adv2(interpreter)
        blind = table.cell(Condition.on(SEARCH, interpreter), interpreter)
        found.append(_comparison(condition, table.cell(condition, interpreter), blind, maps=True))
    return list(filter(None, found))


def _comparison(
    condition: Condition, white: Mapping[str, Row], blind: Mapping[str, Row], *, maps: bool
) -> Comparison | None:
    """None where no photo is in both; ``maps``: their distances are compared too."""
    pairs = [(row, blind[image_id]) for image_id, row in white.items() if image_id in blind]
    if not pairs:
        return None
    endings = [
        [Ending(row.answer.success, row.answer.confidence, row.distances.l1 if maps else None) for row in pair]
        for pair in pairs
    ]
    better = sum(lead(ours, searched) is not None for ours, searched in endings)
    reached = sum(searched.success for _, searched in endings)
    return Comparison(condition, better, reached, len(pairs))


def _cell(table: _Table, condition: Condition, interpreter: str) -> Cell:
    rows = table.cell(condition, interpreter)
    pairs = [(row, pgd) for p, pgd in table.cell(PGD, interpreter).items() if (row := rows.get(p))]
    computed = [(row.distances.l1, pgd.distances.l1) for row, pgd in pairs if row.answer.success and pgd.answer.success]
    saved = [
        (row.saved.distances.l1, pgd.saved.distances.l1)
        for row, pgd in pairs
        if row.saved.success and pgd.saved.success
    ]
    return Cell(
        condition=condition,
        interpreter=interpreter,
        own=condition.sources == (interpreter,),
        control=condition.is_control,
        n=len(rows),
        distances=distances_of(lambda measure: _measure(list(rows.values()), measure)),
        l1_minus_pgd=_minus(computed) if condition.is_joint else None,
        l1_minus_pgd_8bit=_minus(saved) if condition.is_joint else None,
    )


def _measure(rows: Sequence[Row], measure: str) -> Measure | None:
    """Over the rows that have it; None where none has."""
    computed = [(row, value) for row in rows if (value := row.distances[measure]) is not None]
    saved = [(row, value) for row in rows if (value := row.saved.distances[measure]) is not None]
    if not computed:
        return None
    return Measure(
        successes=bootstrap_mean([value for row, value in computed if row.answer.success]),
        every=bootstrap_mean([value for _, value in computed]),
        successes_8bit=bootstrap_mean([value for row, value in saved if row.saved.success]),
        every_8bit=bootstrap_mean([value for _, value in saved]),
    )


def _minus(pairs: Sequence[tuple[float, float]]) -> Estimate:
    return bootstrap_paired([ours for ours, _ in pairs], [pgd for _, pgd in pairs])


def _headline(table: _Table, interpreter: str, floor: FaithfulnessFloor | None) -> Headline:
    condition = _adv2(interpreter)
    own, pgd = table.cell(condition, interpreter), table.cell(PGD, interpreter)
    noise = table.cell(NOISE, interpreter)
    return Headline(
        interpreter=interpreter,
        condition=condition,
        kept=_share(map(_kept, own.values())),
        kept_pgd=_share(map(_kept, pgd.values())),
        within_noise=_within(own, noise),
        within_noise_pgd=_within(pgd, noise),
        faithfulness=floor,
    )


def _kept(row: Row) -> bool:
    return row.saved.success and row.saved.distances.iou_50 >= KEPT_IOU


def _within(rows: dict[str, Row], noise: dict[str, Row]) -> Share:
    return _share(
        row.saved.success and row.saved.distances.l1 <= noise[image_id].saved.distances.l1
        for image_id, row in rows.items()
        if image_id in noise
    )


def _distribution(table: _Table, condition: Condition, interpreter: str) -> Distribution:
    points = tuple(
        Point(
            image_id=row.image_id,
            success=row.answer.success,
            l1=row.distances.l1,
            iou_50=row.distances.iou_50,
            success_8bit=row.saved.success,
            l1_8bit=row.saved.distances.l1,
            iou_50_8bit=row.saved.distances.iou_50,
        )
        for row in table.cell(condition, interpreter).values()
    )
    return Distribution(condition, interpreter, points)


def _share(outcomes: Iterable[bool]) -> Share:
    counted = list(outcomes)
    return wilson(sum(counted), len(counted))
