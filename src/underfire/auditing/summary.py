"""The figures of an audit, from its rows: each with its n, its exclusions and an interval.

An excluded photo is never counted. A figure "over successes" leaves failed attacks out, a figure "over all"
keeps them; both are given, as is and on the image saved as 8-bit PNG and read back. The summary depends on
the set of rows alone, not on their order. What a report shows photo by photo is in the rows; the summary has
only what needs several of them.
"""

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from underfire.auditing.rows import NO_SOURCE, Row, condition
from underfire.diagnostics.attack_signs import Indicator, indicators
from underfire.diagnostics.gradient_masking import Ending, lead
from underfire.errors import InputError
from underfire.stats import LEVEL, Estimate, Share, bootstrap_mean, bootstrap_paired, wilson

KEPT_IOU = 0.5
"""A map counts as kept when its IoU with the benign map (both binarised at 0.5) is at least this."""

SUMMARY_VERSION = 1
"""Raised when a field of the summary is removed or changes its meaning."""

CONTROLS = ("none", "noise")
"""Conditions that attack nothing: the benign input, and harmless noise of the size of the attack."""

MeasureName = Literal["l1", "iou_50", "iou_25", "iou_75", "iou_top20"]
GateMetric = Literal["asr", "confidence", "l1", "iou", "iou_25", "iou_75", "iou_top20", "kept"]
GateOperator = Literal[">", ">=", "<", "<="]


@dataclass(frozen=True)
class Excluded:
    """A photo that was not attacked, and why."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class Photos:
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
class Attack:
    """What one attack did to the prediction, over the photos it was run on.

    ``asr`` is the share whose prediction became the target; ``confidence`` the mean probability of the target
    over successes, ``confidence_all`` over all photos. ``passes`` (forward and backward) and ``seconds`` are
    per photo.
    """

    condition: str
    attack: str
    source: str
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

    condition: str
    interpreter: str
    own: bool
    control: bool
    n: int
    l1: Measure
    iou_50: Measure
    iou_25: Measure
    iou_75: Measure
    iou_top20: Measure
    l1_minus_pgd: Estimate | None
    l1_minus_pgd_8bit: Estimate | None

    def mean(self, measure: MeasureName, *, eight_bit: bool = True) -> Estimate:
        """The figure that a table shows: over successes for an attack, over all photos for a control."""
        values: Measure = getattr(self, measure)
        if self.control:
            return values.every_8bit if eight_bit else values.every
        return values.successes_8bit if eight_bit else values.successes


@dataclass(frozen=True)
class Headline:
    """What a decision-maker needs to know of one interpreter; all on the 8-bit image, over attacked photos.

    ``kept``: the attack on this interpreter chose the label and the map's IoU with the benign one is at least
    `KEPT_IOU`; ``kept_pgd``: PGD did so, without trying to. ``within_noise``: it chose the label and moved
    the map (L1) no more than harmless noise of the same size moves it on the same photo;
    ``within_noise_pgd``: PGD did so.
    """

    interpreter: str
    condition: str
    kept: Share
    kept_pgd: Share
    within_noise: Share
    within_noise_pgd: Share


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

    condition: str
    interpreter: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sign:
    """On how many of the ``n`` photos that an attack was run on its course shows ``indicator``: ``k``."""

    condition: str
    attack: str
    source: str
    indicator: Indicator
    k: int
    n: int


@dataclass(frozen=True)
class Comparison:
    """A search without gradients against an attack that follows them, on the ``n`` photos that both were run on.

    ``attack`` and ``source`` are those of the latter. ADV² on an interpreter is compared with the search on the same
    one, by label and map; PGD with all searches, by the label. ``better`` counts the photos on which the search did
    better (see `underfire.diagnostics.gradient_masking.lead`), ``reached`` those that it brought to the target class.
    """

    condition: str
    attack: str
    source: str
    better: int
    reached: int
    n: int


@dataclass(frozen=True)
class Summary:
    """All figures of an audit.

    ``interpreters`` are those that maps were taken with, ``conditions`` the rows of the transfer matrix
    (none, noise, pgd, adv2-…), ``headlines`` one per interpreter that was attacked on its own, ``signs`` one per
    attack and indicator, those that no photo shows included, ``comparisons`` one per attack that a search without
    gradients checks. ``level`` is that of every interval.
    """

    version: int
    level: float
    kept_iou: float
    photos: Photos
    interpreters: tuple[str, ...]
    conditions: tuple[str, ...]
    headlines: tuple[Headline, ...]
    attacks: tuple[Attack, ...]
    transfer: tuple[Cell, ...]
    distributions: tuple[Distribution, ...]
    signs: tuple[Sign, ...]
    comparisons: tuple[Comparison, ...]

    def attack(self, condition: str) -> Attack | None:
        """The figures of one attack, None where it was not run."""
        return next((a for a in self.attacks if a.condition == condition), None)

    def cell(self, condition: str, interpreter: str) -> Cell | None:
        """One cell of the transfer matrix, None where it was not measured."""
        return next((c for c in self.transfer if (c.condition, c.interpreter) == (condition, interpreter)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, tuples, numbers and None: valid JSON, the same for the same rows."""
        return asdict(self)


def summarise(rows: Iterable[Row]) -> Summary:
    """The figures of an audit, from its rows in any order.

    Raises:
        InputError: Two rows are of the same photo, condition and interpreter.
    """
    table = _Table(rows)
    return Summary(
        version=SUMMARY_VERSION,
        level=LEVEL,
        kept_iou=KEPT_IOU,
        photos=_photos(table),
        interpreters=table.interpreters,
        conditions=table.conditions,
        headlines=tuple(
            _headline(table, interpreter)
            for interpreter in table.interpreters
            if table.cell(condition("adv2", interpreter), interpreter)
        ),
        attacks=tuple(_attack(table, name) for name in table.conditions if name not in CONTROLS),
        transfer=tuple(
            _cell(table, name, interpreter)
            for name in table.conditions
            for interpreter in table.interpreters
            if table.cell(name, interpreter)
        ),
        distributions=tuple(
            _distribution(table, name, interpreter)
            for interpreter in table.interpreters
            for name in ("noise", "pgd", condition("adv2", interpreter))
            if table.cell(name, interpreter)
        ),
        signs=tuple(sign for name in table.conditions for sign in _signs(table, name)),
        comparisons=tuple(_comparisons(table)),
    )


def headline_sentences(summary: Summary) -> list[str]:
    """What the audit found, in plain words; for the terminal and the top of the report."""
    photos = summary.photos
    lines = [f"{photos.attacked} of {_count(photos.total, 'photo')} attacked{_why_not(photos)}."]
    if photos.own_labels:
        lines.append(
            f"{photos.own_labels} of {_count(photos.total, 'photo')} came without a label: "
            "the model's own prediction was taken for it."
        )
    for attack in summary.attacks:
        confidence = attack.confidence_8bit.value
        mean = "" if confidence is None else f", with mean confidence {confidence:.2f}"
        lines.append(f"{attack.condition} made the model say the chosen label on {_of(attack.asr_8bit)}{mean}.")
    for headline in summary.headlines:
        lines.extend(_interpreter_sentences(summary, headline))
    return lines


@dataclass(frozen=True)
class Gate:
    """A condition under which the audit fails, such as ``iou>0.5``."""

    metric: GateMetric
    operator: GateOperator
    threshold: float

    def __str__(self) -> str:
        return f"{self.metric}{self.operator}{self.threshold:g}"

    def holds(self, value: float) -> bool:
        """Whether ``value`` makes the audit fail."""
        return _COMPARE[self.operator](value, self.threshold)


_COMPARE: dict[GateOperator, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_GATE = re.compile(r"\s*(?P<metric>\w+)\s*(?P<operator>[<>]=?)\s*(?P<threshold>\S+)\s*")


def parse_gate(expression: str) -> Gate:
    """A gate from ``metric operator number``, as in ``iou>0.5``.

    Raises:
        InputError: The expression has another form, or a metric or number that is none.
    """
    parts = _GATE.fullmatch(expression)
    metric = next((m for m in get_args(GateMetric) if parts and m == parts["metric"]), None)
    sign = next((o for o in _COMPARE if parts and o == parts["operator"]), None)
    threshold = _number(parts["threshold"]) if parts else None
    if metric is None or sign is None or threshold is None:
        raise InputError(
            f"{expression!r} is not a gate; write METRIC OPERATOR NUMBER, as in 'iou>0.5', "
            f"with a metric of {', '.join(get_args(GateMetric))} and an operator of {', '.join(_COMPARE)}"
        )
    return Gate(metric, sign, threshold)


def check_gates(summary: Summary, gates: Sequence[Gate]) -> list[str]:
    """One sentence for each gate and interpreter by which the audit fails; empty when it passes.

    A gate is tried on every interpreter that was attacked on its own (the diagonal), on the 8-bit image:
    ``asr`` and ``kept`` over the attacked photos, the other metrics over successes. Where the attack never
    succeeded, those have no value and the gate does not fail. A gate that nothing was attacked for fails,
    since it was not checked.
    """
    failures = []
    for gate in gates:
        if not summary.headlines:
            failures.append(f"{gate} could not be checked: no interpreter was attacked.")
        for headline in summary.headlines:
            value, n = _gate_value(summary, headline, gate.metric)
            if value is not None and gate.holds(value):
                failures.append(f"{gate}: {headline.interpreter} has {gate.metric} {value:.3g} (n = {n}).")
    return failures


class _Table:
    """The rows of photos that were not excluded, found by condition and interpreter, ordered by photo."""

    def __init__(self, rows: Iterable[Row]) -> None:
        ordered = sorted(rows, key=lambda row: (row.image_id, row.condition, row.interpreter))
        self.first: dict[str, Row] = {}  # any row of each photo, for the facts that all its rows share
        self.excluded: dict[str, str] = {}
        for row in ordered:
            self.first.setdefault(row.image_id, row)
            if row.excluded is not None:
                self.excluded.setdefault(row.image_id, row.excluded)
        self._cells: dict[tuple[str, str], dict[str, Row]] = {}
        self._by_condition: dict[str, dict[str, Row]] = {}
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
        self.conditions = tuple(sorted(self._by_condition, key=self._rank))
        self.attacked = {p for c, rows in self._by_condition.items() if c not in CONTROLS for p in rows}

    def photos(self, name: str) -> list[Row]:
        """One row per photo under a condition, whichever interpreter: for what the map has no part in."""
        return list(self._by_condition.get(name, {}).values())

    def cell(self, name: str, interpreter: str) -> dict[str, Row]:
        return self._cells.get((name, interpreter), {})

    def _rank(self, name: str) -> tuple[int, str, int, str]:
        """Controls, PGD, then the others by name; attacks on one interpreter before those on several."""
        row = self.photos(name)[0]
        known = (*CONTROLS, "pgd")
        place = known.index(row.attack) if row.attack in known else len(known)
        return place, row.attack, row.source.count("+"), name


def _photos(table: _Table) -> Photos:
    own = [image_id for image_id, row in table.first.items() if not row.label_given]
    return Photos(
        total=len(table.first),
        attacked=len(table.attacked),
        own_labels=len(own),
        own_labels_attacked=sum(image_id in table.attacked for image_id in own),
        excluded=tuple(Excluded(image_id, reason) for image_id, reason in table.excluded.items()),
    )


def _attack(table: _Table, name: str) -> Attack:
    rows = table.photos(name)
    return Attack(
        condition=name,
        attack=rows[0].attack,
        source=rows[0].source,
        n=len(rows),
        asr=_share(row.success for row in rows),
        asr_8bit=_share(row.success_8bit for row in rows),
        confidence=bootstrap_mean([row.confidence for row in rows if row.success]),
        confidence_all=bootstrap_mean([row.confidence for row in rows]),
        confidence_8bit=bootstrap_mean([row.confidence_8bit for row in rows if row.success_8bit]),
        confidence_8bit_all=bootstrap_mean([row.confidence_8bit for row in rows]),
        linf=bootstrap_mean([row.linf for row in rows]),
        l2=bootstrap_mean([row.l2 for row in rows]),
        passes=bootstrap_mean([row.passes for row in rows]),
        seconds=bootstrap_mean([row.seconds for row in rows]),
    )


def _signs(table: _Table, name: str) -> list[Sign]:
    """None for a control, which has no course."""
    traced = [(row, trace) for row in table.photos(name) if (trace := row.trace)]
    shown = Counter(sign for row, trace in traced for sign in indicators(trace, success=row.success))
    some = table.photos(name)[0]
    return [Sign(name, some.attack, some.source, i, shown[i], len(traced)) for i in Indicator] if traced else []


def _comparisons(table: _Table) -> list[Comparison]:
    searches = [row for name in table.conditions for row in table.photos(name) if row.attack == "square"]
    best = {row.image_id: row for row in sorted(searches, key=lambda row: (row.success, row.confidence))}
    pgd = {row.image_id: row for row in table.photos("pgd")}
    found = [_comparison(pgd, best, maps=False)]
    for interpreter in table.interpreters:
        white, blind = (table.cell(condition(attack, interpreter), interpreter) for attack in ("adv2", "square"))
        found.append(_comparison(white, blind, maps=True))
    return list(filter(None, found))


def _comparison(white: Mapping[str, Row], blind: Mapping[str, Row], *, maps: bool) -> Comparison | None:
    """None where no photo is in both; ``maps``: gaps are compared too."""
    pairs = [(row, blind[image_id]) for image_id, row in white.items() if image_id in blind]
    if not pairs:
        return None
    some, _ = pairs[0]
    endings = [[Ending(row.success, row.confidence, row.l1 if maps else None) for row in pair] for pair in pairs]
    better = sum(lead(ours, searched) is not None for ours, searched in endings)
    reached = sum(searched.success for _, searched in endings)
    return Comparison(some.condition, some.attack, some.source, better, reached, len(pairs))


def _cell(table: _Table, name: str, interpreter: str) -> Cell:
    rows = table.cell(name, interpreter)
    some = next(iter(rows.values()))
    measures = {measure: _measure(list(rows.values()), measure) for measure in get_args(MeasureName)}
    pairs = [(row, pgd) for p, pgd in table.cell("pgd", interpreter).items() if (row := rows.get(p))]
    return Cell(
        condition=name,
        interpreter=interpreter,
        own=some.source == interpreter,
        control=name in CONTROLS,
        n=len(rows),
        **measures,
        l1_minus_pgd=_minus(pairs, "l1", "success") if some.source != NO_SOURCE else None,
        l1_minus_pgd_8bit=_minus(pairs, "l1_8bit", "success_8bit") if some.source != NO_SOURCE else None,
    )


def _measure(rows: Sequence[Row], measure: str) -> Measure:
    def mean(column: str, chosen: Iterable[Row]) -> Estimate:
        return bootstrap_mean([getattr(row, column) for row in chosen])

    return Measure(
        successes=mean(measure, (row for row in rows if row.success)),
        every=mean(measure, rows),
        successes_8bit=mean(f"{measure}_8bit", (row for row in rows if row.success_8bit)),
        every_8bit=mean(f"{measure}_8bit", rows),
    )


def _minus(pairs: Sequence[tuple[Row, Row]], column: str, success: str) -> Estimate:
    both = [(row, pgd) for row, pgd in pairs if getattr(row, success) and getattr(pgd, success)]
    return bootstrap_paired([getattr(row, column) for row, _ in both], [getattr(pgd, column) for _, pgd in both])


def _headline(table: _Table, interpreter: str) -> Headline:
    name = condition("adv2", interpreter)
    own, pgd = table.cell(name, interpreter), table.cell("pgd", interpreter)
    noise = table.cell("noise", interpreter)
    return Headline(
        interpreter=interpreter,
        condition=name,
        kept=_share(map(_kept, own.values())),
        kept_pgd=_share(map(_kept, pgd.values())),
        within_noise=_within(own, noise),
        within_noise_pgd=_within(pgd, noise),
    )


def _kept(row: Row) -> bool:
    return row.success_8bit and row.iou_50_8bit >= KEPT_IOU


def _within(rows: dict[str, Row], noise: dict[str, Row]) -> Share:
    return _share(
        row.success_8bit and row.l1_8bit <= noise[image_id].l1_8bit
        for image_id, row in rows.items()
        if image_id in noise
    )


def _distribution(table: _Table, name: str, interpreter: str) -> Distribution:
    points = tuple(
        Point(
            image_id=row.image_id,
            success=row.success,
            l1=row.l1,
            iou_50=row.iou_50,
            success_8bit=row.success_8bit,
            l1_8bit=row.l1_8bit,
            iou_50_8bit=row.iou_50_8bit,
        )
        for row in table.cell(name, interpreter).values()
    )
    return Distribution(name, interpreter, points)


def _share(outcomes: Iterable[bool]) -> Share:
    counted = list(outcomes)
    return wilson(sum(counted), len(counted))


def _gate_value(summary: Summary, headline: Headline, metric: GateMetric) -> tuple[float | None, int]:
    attack = summary.attack(headline.condition)
    cell = summary.cell(headline.condition, headline.interpreter)
    if attack is None or cell is None:
        raise ValueError(f"the summary has a headline for {headline.condition} and no figures of it")
    figure: Estimate
    match metric:
        case "asr":
            figure = attack.asr_8bit
        case "kept":
            figure = headline.kept
        case "confidence":
            figure = attack.confidence_8bit
        case "iou":
            figure = cell.mean("iou_50")
        case _:
            figure = cell.mean(metric)
    return figure.value, figure.n


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _interpreter_sentences(summary: Summary, headline: Headline) -> list[str]:
    name = headline.interpreter
    kept = f"{name}: an attacker can choose the label and keep this map on {_of(headline.kept)}"
    if headline.kept_pgd.n:
        kept += f"; an attack on the label alone keeps it on {headline.kept_pgd.k} of {headline.kept_pgd.n}"
    lines = [f"{kept}."]
    if headline.within_noise.n:
        lines.append(
            f"{name}: on {_of(headline.within_noise)} the label was chosen and the map moved no more than "
            "under harmless noise of the same size."
        )
    own, pgd = summary.cell(headline.condition, name), summary.cell("pgd", name)
    if own and pgd and (near := own.mean("l1").value) is not None and (far := pgd.mean("l1").value) is not None:
        lines.append(f"{name}: the map's mean L1 distance from the benign one is {near:.3f}, {far:.3f} under PGD.")
    return lines


def _why_not(photos: Photos) -> str:
    reasons = Counter(excluded.reason for excluded in photos.excluded)
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f" (not attacked: {listed})" if listed else ""


def _of(rate: Share) -> str:
    """``9 of 10 photos (95 % interval 60 % to 98 %)``."""
    counted = f"{rate.k} of {_count(rate.n, 'photo')}"
    if rate.low is None or rate.high is None:
        return counted
    return f"{counted} ({LEVEL:.0%} interval {rate.low:.0%} to {rate.high:.0%})"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
