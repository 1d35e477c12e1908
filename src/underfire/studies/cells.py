"""The table of the study of transfer: its columns, and what goes into a cell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from underfire.auditing.condition import PGD, Condition
from underfire.auditing.rows import Row
from underfire.stats import bootstrap_mean, bootstrap_paired
from underfire.studies.columns import fields_of_line, three
from underfire.studies.transfer_statistics import Nearness, Verdict, nearness

Kind = Literal["label", "floor", "pgd", "own", "other"]
Compared = Literal["seen", "label", "target"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table.

    Attributes:
        model: whose predictions and maps these are.
        condition: what was done to the images: none, noise, pgd, adv2-cam ….
        map: the interpreter; "-" where ``kind`` is "label".
        kind: "label", what became of the prediction; "floor", nothing attacked; "pgd"; "own", the map is of an
            interpreter that was attacked; "other", it is not.
        compared: with the benign map of the label is compared the map of the target class, or under a control that of
            the label ("seen", what a person is shown), or always that of the label; "target": the map of the target
            class before and after.
        n: photos that the figures rest on: for an attack those on which it reached its label on the audited model. Only
            where ``kind`` is "label" and ``model`` the audited one are they all that were attacked.
        failed: photos on which it did not; they are in ``failed_l1`` alone. 0 where ``n`` is all.
        reached, lost: the share of photos seen as the target class, and as anything but the label.
        pairs: photos on which PGD reached its label too; all figures of differences and the verdict rest on these.
        nearer: on how many of these the map is substantially nearer the benign one than PGD's; ``p`` is the sign
            test's.
    """

    model: str
    condition: str
    map: str = "-"
    kind: Kind
    compared: Compared | None = None
    n: int
    failed: int = 0
    reached: float | None = None
    reached_low: float | None = None
    reached_high: float | None = None
    lost: float | None = None
    lost_low: float | None = None
    lost_high: float | None = None
    l1: float | None = None
    l1_low: float | None = None
    l1_high: float | None = None
    iou_50: float | None = None
    iou_50_low: float | None = None
    iou_50_high: float | None = None
    failed_l1: float | None = None
    pairs: int | None = None
    l1_minus_pgd: float | None = None
    l1_minus_pgd_low: float | None = None
    l1_minus_pgd_high: float | None = None
    iou_minus_pgd: float | None = None
    iou_minus_pgd_low: float | None = None
    iou_minus_pgd_high: float | None = None
    nearer: int | None = None
    p: float | None = None
    verdict: str | None = None

    @property
    def nearness(self) -> Nearness | None:
        """The comparison with PGD that asks for a verdict; None where there is none."""
        if self.nearer is None or self.pairs is None or self.p is None:
            return None
        return Nearness(self.nearer, self.pairs, self.p)


def kind_of(condition: Condition, interpreter: str) -> Kind:
    """What the map of ``interpreter`` under ``condition`` is in the matrix."""
    if condition.is_control:
        return "floor"
    if condition == PGD:
        return "pgd"
    return "own" if condition.is_own(interpreter) else "other"


def comparable(rows: Sequence[Row]) -> frozenset[Condition]:
    """The conditions whose images were changed in the way that PGD's were; without PGD there is none.

    StAdv moves pixels, and PGD may change them: their distances tell nothing of the interpreters.
    """
    ways = {row.condition: row.allowed.perturbation for row in rows}
    return frozenset(condition for condition, way in ways.items() if way == ways.get(PGD))


@dataclass(frozen=True)
class Distance:
    """How far one photo's map is from the one it is compared with."""

    l1: float
    iou_50: float


Distances = Mapping[str, Distance]
"""By photo."""


def means(found: Distances, failed: Distances | None = None) -> dict[str, Any]:
    """The columns of a cell's own figures: the mean distances, and apart that of ``failed`` attacks."""
    missed = failed or {}
    return {
        "n": len(found),
        "failed": len(missed),
        **three("l1", bootstrap_mean([d.l1 for d in found.values()])),
        **three("iou_50", bootstrap_mean([d.iou_50 for d in found.values()])),
        "failed_l1": bootstrap_mean([d.l1 for d in missed.values()]).value,
    }


def against(found: Distances, pgd: Distances, *, judged: bool) -> dict[str, Any]:
    """The columns of the paired differences to PGD, and with ``judged`` those that the verdict rests on."""
    pairs = [(distance, pgd[photo]) for photo, distance in found.items() if photo in pgd]
    ours, theirs = [a.l1 for a, _ in pairs], [b.l1 for _, b in pairs]
    columns: dict[str, Any] = {
        "pairs": len(pairs),
        **three("l1_minus_pgd", bootstrap_paired(ours, theirs)),
        **three("iou_minus_pgd", bootstrap_paired([a.iou_50 for a, _ in pairs], [b.iou_50 for _, b in pairs])),
    }
    if judged:
        test = nearness(ours, theirs)
        columns |= {"nearer": test.nearer, "p": test.p}
    return columns


def judged(lines: Sequence[Line]) -> list[Line]:
    """``lines`` with their verdicts; those that ask for one are the looks that are counted."""
    looks = sum(line.nearness is not None for line in lines)
    return [
        line if line.nearness is None else replace(line, verdict=_said(line, line.nearness.verdict(looks)))
        for line in lines
    ]


def _said(line: Line, verdict: Verdict) -> str:
    if verdict is Verdict.UNDECIDED:
        return NOT_DECIDED
    near = verdict is Verdict.NEARER
    if line.kind == "own":
        return KEPT if near else NOT_KEPT
    return TRANSFERS if near else DOES_NOT_TRANSFER


KEPT, NOT_KEPT = "kept", "not kept"
TRANSFERS, DOES_NOT_TRANSFER = "transfers", "does not transfer"
NOT_DECIDED: str = Verdict.UNDECIDED.value


def table(lines: Sequence[Line]) -> Any:
    """``lines`` as a pyarrow.Table."""
    return pa.Table.from_pylist([asdict(line) for line in lines], schema=pa.schema(fields_of_line(Line)))
