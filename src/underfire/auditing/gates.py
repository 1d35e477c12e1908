"""Conditions under which an audit fails: a metric of the attacked interpreters beyond a threshold."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from underfire.auditing.distances import MEASURES
from underfire.auditing.run import Run
from underfire.auditing.summary import Headline, Summary
from underfire.errors import InputError
from underfire.parsing import number
from underfire.stats import Estimate

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


def check_gates(run: Run, gates: Sequence[Gate], *, min_photos: int | None = None) -> list[str]:
    """One sentence for each reason why ``run`` fails by ``gates``; empty when it passes.

    A figure of few photos says little: at least ``min_photos`` must have been attacked, or the run fails whatever its
    figures are. By default, where there is a gate, that is half of the photos that were found, those that could not be
    read among them, and at least one. A run that is not finished fails.

    Raises:
        InputError: ``min_photos`` is below 1, or run.json or a part is damaged.
    """
    if min_photos is not None and min_photos < 1:
        raise InputError(f"min_photos is {min_photos}; give a whole number of at least 1")
    if not gates and min_photos is None:
        return []
    if not run.finished:
        return [f"nothing could be checked: {run.finished_parts} of {run.parts} parts are there."]
    attacked, found = run.summary.photos.attacked, _found(run)
    least = max(1, math.ceil(found / 2)) if min_photos is None else min_photos
    few = (
        f"photos attacked: {attacked} of {found}, fewer than {least}; see in the report why the others were left out, "
        "or say with min-photos how many are enough."
    )
    return [*([few] if attacked < least else []), *failures(run.summary, gates)]


def _found(run: Run) -> int:
    """How many photos the run was to be of: those in it, and those that could not be loaded."""
    unreadable = sum(skip.image_id is not None for skip in run.facts.skipped)
    found = len(run.photos) + unreadable
    return found if run.plan.limit is None else min(found, run.plan.limit)


def failures(summary: Summary, gates: Sequence[Gate]) -> list[str]:
    """One sentence for each gate and interpreter by which an audit with this ``summary`` fails.

    A gate is tried on every interpreter that was attacked on its own (the diagonal), on the 8-bit image:
    ``asr`` and ``kept`` over the attacked photos, the other metrics over successes. Where the attack never
    succeeded, those have no value and the gate does not fail. A gate fails that nothing was attacked for, or of a
    measure that the run's rows are too old for, since it was not checked.
    """
    found = []
    for gate in gates:
        if not summary.headlines:
            found.append(f"{gate} could not be checked: no interpreter was attacked.")
        for headline in summary.headlines:
            if not _measured(summary, headline, gate.metric):
                found.append(f"{gate} could not be checked: the run is older than {gate.metric}; run the audit again.")
                break
            value, n = _gate_value(summary, headline, gate.metric)
            if value is not None and gate.holds(value):
                found.append(f"{gate}: {headline.interpreter} has {gate.metric} {value:.3g} (n = {n}).")
    return found


def _measured(summary: Summary, headline: Headline, metric: str) -> bool:
    """Whether the rows of ``headline`` have ``metric``, if it is a measure of maps."""
    cell, measure = summary.cell(headline.condition, headline.interpreter), _MEASURE_OF.get(metric)
    return cell is None or measure is None or cell.distances[measure] is not None


def _gate_value(summary: Summary, headline: Headline, metric: str) -> tuple[float | None, int]:
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
        case _:
            figure = cell.mean(_MEASURE_OF[metric])
    return figure.value, figure.n
