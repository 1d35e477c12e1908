"""Conditions under which an audit fails: a metric of the attacked interpreters beyond a threshold."""

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from underfire.auditing.distances import MEASURES
from underfire.auditing.run import Run
from underfire.auditing.summary import Headline, Summary
from underfire.errors import InputError
from underfire.parsing import number
from underfire.stats import NO_ESTIMATE, Estimate

GateOperator = Literal[">", ">=", "<", "<="]

_MEASURE_OF = {measure.replace("iou_50", "iou"): measure for measure in MEASURES}

GATE_METRICS: tuple[str, ...] = ("asr", "confidence", *_MEASURE_OF, "kept")
"""What a gate may be of: a rate or mean of the attack, or a distance of its maps (``iou`` is binarised at 0.5)."""


@dataclass(frozen=True)
class Gate:
    """A condition under which the audit fails, such as ``iou>0.5``."""

    metric: str
    """One of `GATE_METRICS`."""
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
    metric = next((m for m in GATE_METRICS if parts and m == parts["metric"]), None)
    sign = next((o for o in _COMPARE if parts and o == parts["operator"]), None)
    try:
        threshold = number(parts["threshold"]) if parts else None
    except InputError:
        threshold = None
    if metric is None or sign is None or threshold is None:
        raise InputError(
            f"{expression!r} is not a gate; write METRIC OPERATOR NUMBER, as in 'iou>0.5', "
            f"with a metric of {', '.join(GATE_METRICS)} and an operator of {', '.join(_COMPARE)}"
        )
    return Gate(metric, sign, threshold)


Outcome = Literal["passed", "failed", "unchecked"]
"""Of a gate: one that could not be checked makes the audit fail, too."""

_FEW = "min-photos"
_UNFINISHED = "finished"


def _rules() -> dict[str, str]:
    meanings = {metric: f"The {metric} of attacks on an interpreter is beyond a threshold." for metric in GATE_METRICS}
    return {**meanings, _FEW: "Too few photos could be attacked.", _UNFINISHED: "Parts of the audit are missing."}


RULES: Mapping[str, str] = MappingProxyType(_rules())
"""What it means that a check fails, by its rule."""


@dataclass(frozen=True)
class GateCheck:
    """What became of a gate on one interpreter, or of the question whether enough photos were attacked.

    Attributes:
        rule: the gate's metric, or another of `RULES`.
        condition: under which the audit fails, as ``iou>0.5``.
        interpreter: on whose attacks it was tried; None for what is of the whole run.
        figure: what was compared.
        outcome: passed, failed, or unchecked.
        sentence: what was found, a whole one.
    """

    rule: str
    condition: str
    interpreter: str | None
    figure: Estimate
    outcome: Outcome
    sentence: str


def try_gates(run: Run, gates: Sequence[Gate], *, min_photos: int | None = None) -> tuple[GateCheck, ...]:
    """What becomes of ``gates`` on ``run``, those that pass included; nothing without a gate.

    A figure of few photos says little: at least ``min_photos`` must have been attacked, or the run fails whatever its
    figures are. By default, where there is a gate, that is half of the photos that were found, those that could not be
    read among them, and at least one. A run that is not finished fails.

    Raises:
        InputError: ``min_photos`` is below 1, or run.json or a part is damaged.
    """
    if min_photos is not None and min_photos < 1:
        raise InputError(f"min_photos is {min_photos}; give a whole number of at least 1")
    if not gates and min_photos is None:
        return ()
    if not run.finished:
        sentence = f"nothing could be checked: {run.finished_parts} of {run.parts} parts are there."
        return (GateCheck(_UNFINISHED, "parts are missing", None, NO_ESTIMATE, "unchecked", sentence),)
    return (_enough(run, min_photos), *tried(run.summary, gates))


def failures(checks: Iterable[GateCheck]) -> list[str]:
    """One sentence for each reason why a run fails by ``checks``; empty when it passes."""
    return [check.sentence for check in checks if check.outcome != "passed"]


def _enough(run: Run, min_photos: int | None) -> GateCheck:
    attacked, found = run.summary.photos.attacked, _found(run)
    least = max(1, math.ceil(found / 2)) if min_photos is None else min_photos
    told = f"photos attacked: {attacked} of {found}"
    few = (
        f"{told}, fewer than {least}; see in the report why the others were left out, "
        "or say with min-photos how many are enough."
    )
    failed = attacked < least
    return GateCheck(
        _FEW, f"photos attacked<{least}", None, Estimate(attacked, None, None, found),
        "failed" if failed else "passed", few if failed else f"{told}, at least {least}.",
    )  # fmt: skip


def _found(run: Run) -> int:
    """How many photos the run was to be of: those in it, and those that could not be loaded."""
    unreadable = sum(skip.image_id is not None for skip in run.facts.skipped)
    found = len(run.photos) + unreadable
    return found if run.plan.limit is None else min(found, run.plan.limit)


def tried(summary: Summary, gates: Sequence[Gate]) -> Iterator[GateCheck]:
    """What becomes of ``gates`` by the figures of an audit.

    A gate is tried on every interpreter that was attacked on its own (the diagonal), on the 8-bit image:
    ``asr`` and ``kept`` over the attacked photos, the other metrics over successes. Where the attack never
    succeeded, those have no value and the gate does not fail. A gate is unchecked that nothing was attacked for, or of
    a measure that the run's rows are too old for.
    """
    for gate in gates:
        if not summary.headlines:
            yield _unchecked(gate, "no interpreter was attacked.")
        for headline in summary.headlines:
            if not _measured(summary, headline, gate.metric):
                yield _unchecked(gate, f"the run is older than {gate.metric}; run the audit again.")
                break
            yield _tried(summary, gate, headline)


def _unchecked(gate: Gate, why: str) -> GateCheck:
    sentence = f"{gate} could not be checked: {why}"
    return GateCheck(gate.metric, str(gate), None, NO_ESTIMATE, "unchecked", sentence)


def _tried(summary: Summary, gate: Gate, headline: Headline) -> GateCheck:
    figure, name = _gate_figure(summary, headline, gate.metric), headline.interpreter
    failed = figure.value is not None and gate.holds(figure.value)
    if figure.value is None:
        sentence = f"{gate}: {name} has no {gate.metric}, since no attack on it succeeded."
    else:
        sentence = f"{gate}: {name} has {gate.metric} {figure.value:.3g} (n = {figure.n})."
    return GateCheck(gate.metric, str(gate), name, figure, "failed" if failed else "passed", sentence)


def _measured(summary: Summary, headline: Headline, metric: str) -> bool:
    """Whether the rows of ``headline`` have ``metric``, if it is a measure of maps."""
    cell, measure = summary.cell(headline.condition, headline.interpreter), _MEASURE_OF.get(metric)
    return cell is None or measure is None or cell.distances[measure] is not None


def _gate_figure(summary: Summary, headline: Headline, metric: str) -> Estimate:
    attack = summary.attack(headline.condition)
    cell = summary.cell(headline.condition, headline.interpreter)
    if attack is None or cell is None:
        raise ValueError(f"the summary has a headline for {headline.condition} and no figures of it")
    match metric:
        case "asr":
            return attack.asr_8bit
        case "kept":
            return headline.kept
        case "confidence":
            return attack.confidence_8bit
        case _:
            return cell.mean(_MEASURE_OF[metric])
