"""Observation 7: does an image that keeps one interpreter's map keep another's, and another classifier's?

Two attacks are compared photo by photo, by a sign test: it is exact for any number of photos and any distribution,
which tests of means are not on the skewed distances of a few photos. Source: the claim is Observation 7 of Zhang et
al., "Interpretable Deep Learning under Fire", USENIX Security 2020; the test is ours.

On an observer model a person is shown the map of the class that this model predicts. Where the label did not transfer,
that is not the target class, and the map of the target class explains nothing that anybody sees. Three maps are
therefore compared, each with one of the benign image: the label's on every photo, which says whether the explanation of
the right prediction is disturbed; the target class's on every photo, which says whether the image speaks otherwise for
it; and the target class's against the label's, as in an audit, only on photos where this model too predicts the target.
Photos whose benign image an observer model does not see as the label are left out: there is nothing to fool.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

from underfire.auditing.condition import NONE, PGD, Condition
from underfire.auditing.plan import AuditPlan, ModelSettings
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.errors import InputError
from underfire.files import quoted
from underfire.models.classifier import Classifier
from underfire.present import plots, svg
from underfire.present.tables import to_arrow
from underfire.present.text import interpreter_title, number
from underfire.present.words import written
from underfire.stats import (
    LEVEL,
    NO_ESTIMATE,
    Estimate,
    Share,
    bootstrap_mean,
    bootstrap_paired,
    least_photos,
    sign_test,
    wilson,
)
from underfire.studies.observers import (
    Compared,
    Distance,
    Observation,
    Observer,
    check_observer,
    observe,
    observers_of,
    resizing,
)
from underfire.studies.options import StudySource, model_settings, option
from underfire.studies.reruns import taking_part
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, Verdict, majority, together

CLAIM = (
    "Observation 7 of the paper: an adversarial input made against one interpreter does not deceive another. Its map "
    "through an interpreter that was not attacked is about as far from the benign one as PGD’s, and through the "
    "attacked one far nearer."
)

MARGIN = 0.2
"""A map is substantially nearer when its distance is less than that of PGD's map by more than this share."""


class MapVerdict(StrEnum):
    """What the table's column ``verdict`` says of a map: of one that was attacked, or of one that was not."""

    KEPT = "kept"
    NOT_KEPT = "not kept"
    TRANSFERS = "transfers"
    DOES_NOT_TRANSFER = "does not transfer"
    NOT_DECIDED = "not decided"

    @property
    def on_claim(self) -> Verdict:
        """The verdict on the claim, that an attacked map is kept, or that the attack does not transfer."""
        if self in (MapVerdict.KEPT, MapVerdict.DOES_NOT_TRANSFER):
            return Verdict.HOLDS
        return Verdict.UNDECIDED if self is MapVerdict.NOT_DECIDED else Verdict.FAILS


Kind = Literal["label", "floor", "pgd", "own", "other"]
Distances = Mapping[str, Distance]
Cells = Mapping[tuple[Condition, str], tuple[Distances, Distances]]
"""By condition and interpreter, the distances by photo: where the attack reached its label, and where it did not."""


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
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
        verdict: in words; None where the cell is not tested.
    """

    model: str
    condition: Condition
    map: str = "-"
    kind: Kind
    compared: Compared | None = None
    n: int
    failed: int = 0
    reached: Estimate = NO_ESTIMATE
    lost: Estimate = NO_ESTIMATE
    l1: Estimate = NO_ESTIMATE
    iou_50: Estimate = NO_ESTIMATE
    failed_l1: float | None = None
    pairs: int | None = None
    l1_minus_pgd: Estimate = NO_ESTIMATE
    iou_minus_pgd: Estimate = NO_ESTIMATE
    nearer: int | None = None
    p: float | None = None
    verdict: MapVerdict | None = None

    @property
    def claim(self) -> Claim | None:
        """That an attacked map is kept, or that the attack does not transfer; None where the cell is not tested."""
        if self.verdict is None:
            return None
        attack, name, pairs = self.condition.title, interpreter_title(self.map), self.pairs or 0
        says = f"keeps the map of {name}" if self.kind == "own" else f"does not transfer to {name}"
        return Claim(
            f"{self.model}/{self.condition}/{self.map}",
            f"On {self.model}, {attack} {says}.",
            self.verdict.on_claim,
            {"l1_minus_pgd": self.l1_minus_pgd, "nearer": wilson(self.nearer or 0, pairs)},
            pairs,
        )


@dataclass(frozen=True)
class Observed:
    """What one observer model saw.

    Attributes:
        model: its name.
        resizing: what was done to the images' size, in words.
        photos: how many photos were attacked on the audited model; it predicts the label on ``right`` benign ones.
        left_out: the interpreters that it does without, in words.
        records: its rows, with verdicts; the tests counted for them are those on this model.
    """

    model: str
    resizing: str
    photos: int
    right: int
    left_out: tuple[str, ...]
    records: tuple[TransferRecord, ...]


@dataclass(frozen=True)
class TransferOptions:
    """What the command takes beside the options of an audit."""

    onto: tuple[ModelSettings, ...] = option(
        (),
        help="Also show the images to this classifier; repeatable. What it needs follows its name, as in "
        "'nets:resnet20 checkpoint=FILE mean=R,G,B std=R,G,B input-size=32'.",
        parse=model_settings,
        metavar="MODEL",
        multiple=True,
    )


def study(source: StudySource, options: TransferOptions) -> Study:
    """The study as the command line calls it."""
    others = [source.load(settings) for settings in options.onto]

    def check(_plan: AuditPlan, classifier: Classifier) -> None:
        for other in others:
            check_observer(other, classifier.name, classifier.class_names, classifier.fingerprint())

    run = source.audited(check, beside_pgd=True)
    return transfer_study(run, others, work=source.work, note=source.note)


def transfer_study(run: Run, others: Sequence[Classifier], *, work: Path, note: Note = quiet) -> Study:
    """Who else is fooled by the images of ``run``: its other interpreters, and the observer models ``others``.

    All on images as saved in 8 bit. ``work`` keeps what was seen with ``others``, photo by photo.

    Raises:
        InputError: ``run`` has no PGD or no attack on an interpreter, or one of ``others`` has other classes.
    """
    attacked(run.photos)
    check_attacks(run, beside_pgd=True)
    records = judge(audited_records(run))
    seen = [observed(run, observer, observe(run, observer, work, note=note)) for observer in observers_of(run, others)]
    every = [*records, *(record for other in seen for record in other.records)]
    return Study(
        name="transfer",
        title="Does an attack on one interpreter fool another?",
        claim=CLAIM,
        claims=(_observation(records), *(record.claim for record in every if record.claim)),
        table=to_arrow(every, TransferRecord),
        figure=_figure(every),
        words=_words(run, records, seen),
    )


def check_attacks(run: Run, *, beside_pgd: bool = False) -> None:
    """Refuses a run with no attack on an interpreter, or no PGD ``beside_pgd``; raises `InputError`."""
    if beside_pgd and not any(row.condition == PGD for row in run.records):
        lacking = "no PGD to compare with"
    elif not any(row.condition.is_joint for row in run.records):
        lacking = "no attack on an interpreter"
    else:
        return
    raise InputError(f"the run {quoted(run.path)} has {lacking}; run an audit with --attacks pgd,adv2")


def audited_records(run: Run) -> list[TransferRecord]:
    """The transfer matrix of an audit, without verdicts: first what became of the predictions, then the maps."""
    model, summary = run.facts.model.name, run.summary
    excluded = {row.image_id for row in run.records if row.excluded is not None}
    found: dict[tuple[Condition, str], tuple[dict[str, Distance], dict[str, Distance]]] = {}
    for row in sorted(run.records, key=lambda row: row.image_id):
        if row.image_id not in excluded:
            reached, failed = found.setdefault((row.condition, row.interpreter), ({}, {}))
            counts = row.success_8bit or row.condition.is_control
            (reached if counts else failed)[row.image_id] = Distance(row.l1_8bit, row.iou_50_8bit)
    cells = {key: found[key] for cell in summary.transfer for key in [(cell.condition, cell.interpreter)]}
    labels = [
        TransferRecord(model=model, condition=a.condition, kind="label", n=a.n, reached=a.asr_8bit)
        for a in summary.attacks
    ]
    return [*labels, *matrix(model, "seen", cells, comparable(run.records), tested=True)]


def observed(run: Run, observer: Observer, observations: Sequence[Observation]) -> Observed:
    """The rows of ``observer``, from what it saw of every attacked photo of ``run``.

    The label that counts is the audit's. Tested is where an attack on an interpreter meets the maps of the label.
    """
    photos = {photo.image_id: photo for photo in attacked(run.photos)}
    right = {o.image_id for o in observations if o.condition == NONE and o.prediction == photos[o.image_id].label}
    reached = {(row.image_id, row.condition) for row in run.records if row.success_8bit}
    seen: dict[Condition, list[Observation]] = {c: [] for c in run.summary.conditions if c != NONE and c.chases_target}
    for o in sorted(observations, key=lambda o: o.image_id):
        if o.image_id in right and o.condition != NONE:
            seen[o.condition].append(o)

    def counts(o: Observation) -> bool:
        """Whether the attack reached its label on the audited model, or nothing was attacked."""
        return o.condition.is_control or (o.image_id, o.condition) in reached

    def fooled(o: Observation) -> bool:
        return o.prediction == photos[o.image_id].target

    records = []
    for condition, here in seen.items():
        kept = [o for o in here if counts(o)]
        n, lost = len(kept), sum(o.prediction != photos[o.image_id].label for o in kept)
        record = TransferRecord(model=observer.name, condition=condition, kind="label", n=n, failed=len(here) - n)
        records.append(replace(record, reached=wilson(sum(map(fooled, kept)), n), lost=wilson(lost, n)))
    for compared in get_args(Compared):
        cells = {}
        for condition, here in seen.items():
            shown = [o for o in here if compared != "seen" or fooled(o)]
            for name in sorted(interpreter.name for interpreter in observer.interpreters):
                moves = [(o, o.moves[name][compared]) for o in shown]
                cell = tuple({o.image_id: m for o, m in moves if counts(o) == some} for some in (True, False))
                if cell[0] or compared != "seen":  # else nobody sees such a map
                    cells[condition, name] = (cell[0], cell[1])
        alike = comparable(run.records)
        records += matrix(observer.name, compared, cells, alike, tested=compared == "label")
    size = resizing(run, observer.classifier)
    return Observed(observer.name, size, len(photos), len(right), observer.left_out, tuple(judge(records)))


def comparable(rows: Sequence[Row]) -> frozenset[Condition]:
    """The conditions whose images were changed in the way that PGD's were; without PGD there is none.

    StAdv moves pixels, and PGD may change them: their distances tell nothing of the interpreters.
    """
    ways = {row.condition: row.allowed.perturbation for row in rows}
    return frozenset(condition for condition, way in ways.items() if way == ways.get(PGD))


def matrix(
    model: str, compared: Compared, cells: Cells, alike: frozenset[Condition], *, tested: bool
) -> list[TransferRecord]:
    """A record per cell, in the order of ``cells``; attacks among ``alike`` are compared with PGD and ``tested``."""
    records = []
    for (condition, name), (found, failed) in cells.items():
        record = TransferRecord(
            model=model,
            condition=condition,
            map=name,
            kind=_kind(condition, name),
            compared=compared,
            n=len(found),
            failed=len(failed),
            l1=bootstrap_mean([d.l1 for d in found.values()]),
            iou_50=bootstrap_mean([d.iou_50 for d in found.values()]),
            failed_l1=bootstrap_mean([d.l1 for d in failed.values()]).value,
        )
        if record.kind in ("own", "other"):
            pgd = cells.get((PGD, name), ({}, {}))[0] if condition in alike else {}
            pairs = [(distance, pgd[photo]) for photo, distance in found.items() if photo in pgd]
            ours, theirs = [a.l1 for a, _ in pairs], [b.l1 for _, b in pairs]
            near = nearness(ours, theirs).k if tested and condition in alike else None
            record = replace(
                record,
                pairs=len(pairs),
                l1_minus_pgd=bootstrap_paired(ours, theirs),
                iou_minus_pgd=bootstrap_paired([a.iou_50 for a, _ in pairs], [b.iou_50 for _, b in pairs]),
                nearer=near,
                p=None if near is None else sign_test(near, len(pairs)),
            )
        records.append(record)
    return records


def nearness(attack: Sequence[float], pgd: Sequence[float], margin: float = MARGIN) -> Share:
    """On how many photos an attack's map is substantially nearer the benign one than PGD's.

    Args:
        attack: its distance (L1) to the benign map, one per photo, at least 0.
        pgd: PGD's on the same photos, in the same order.
        margin: in [0, 1): by which share nearer.

    Raises:
        ValueError: the lengths differ, a distance is negative or not finite, or ``margin`` is out of its range.
    """
    if len(attack) != len(pgd):
        raise ValueError(f"pairs need equally many distances, and got {len(attack)} and {len(pgd)}")
    if not all(math.isfinite(value) and value >= 0 for value in (*attack, *pgd)):
        raise ValueError("a distance is negative or not finite")
    if not 0 <= margin < 1:
        raise ValueError(f"margin is {margin}; it must lie in [0, 1)")
    return wilson(sum(a < (1 - margin) * p for a, p in zip(attack, pgd, strict=True)), len(attack))


def judge(records: Sequence[TransferRecord]) -> list[TransferRecord]:
    """``records``, those that are tested with their verdicts; as many tests are counted."""
    tests = sum(record.nearer is not None for record in records)
    return [
        record
        if record.nearer is None
        else replace(record, verdict=_verdict(record.kind == "own", majority(record.nearer, record.pairs or 0, tests)))
        for record in records
    ]


def _verdict(own: bool, near: Verdict) -> MapVerdict:
    """What it says of a map, attacked or not, that it is nearer the benign one than PGD's on most photos."""
    if near is Verdict.UNDECIDED:
        return MapVerdict.NOT_DECIDED
    if own:
        return MapVerdict.KEPT if near is Verdict.HOLDS else MapVerdict.NOT_KEPT
    return MapVerdict.TRANSFERS if near is Verdict.HOLDS else MapVerdict.DOES_NOT_TRANSFER


def _kind(condition: Condition, interpreter: str) -> Kind:
    if condition.is_control:
        return "floor"
    if condition == PGD:
        return "pgd"
    return "own" if condition.is_own(interpreter) else "other"


def _observation(records: Sequence[TransferRecord]) -> Claim:
    """Observation 7 on the audited model; not decided where there is no interpreter beside the attacked one."""
    tested = [record for record in records if record.verdict is not None]
    if not any(record.kind == "other" for record in tested):
        tested = []
    verdict = together(record.verdict.on_claim for record in tested if record.verdict)
    n = min((record.pairs or 0 for record in tested), default=0)
    return Claim("observation-7", "An attack on one interpreter does not deceive another.", verdict, {}, n)


def _words(run: Run, records: Sequence[TransferRecord], seen: Sequence[Observed]) -> str:
    tests = sum(record.verdict is not None for record in records)
    return written(
        "underfire.studies",
        "transfer.md.jinja",
        observation=_observation(records).verdict,
        across=_counted(records, "other"),
        own=_counted(records, "own"),
        sizes=_sizes(records),
        margin=MARGIN,
        error=1 - LEVEL,
        tests=tests,
        least=least_photos(tests) if tests else 0,
        taking_part=taking_part(run.photos, run.skipped),
        missed={r.condition.title: r.failed for r in records if r.kind != "label" and r.failed},
        observers=[_observer_words(other) for other in seen],
    )


def _counted(records: Sequence[TransferRecord], kind: Kind) -> dict[str, object]:
    """How many claims hold, fail, and are open, and the failed ones with what they rest on."""
    tested = [(record, record.verdict.on_claim) for record in records if record.kind == kind and record.verdict]
    counts = Counter(verdict for _, verdict in tested)
    return {
        "tests": len(tested),
        "hold": counts[Verdict.HOLDS],
        "fail": counts[Verdict.FAILS],
        "open": counts[Verdict.UNDECIDED],
        "failed": [record for record, verdict in tested if verdict is Verdict.FAILS],
    }


_GROUPS: Mapping[str, tuple[Kind, ...]] = {
    "noise": ("floor",),
    "the attack on it": ("own",),
    "attacks on others": ("other",),
    "PGD": ("pgd",),
}
_GROUPS_OBSERVED: Mapping[str, tuple[Kind, ...]] = {
    "noise": ("floor",),
    "PGD": ("pgd",),
    "attacks on interpreters": ("own", "other"),
}


def _sizes(records: Sequence[TransferRecord]) -> dict[str, list[str]]:
    """By interpreter the mean L1 under noise, the attack on it, attacks on others, and PGD."""
    maps = [record for record in records if record.kind != "label" and record.condition != NONE]
    names = dict.fromkeys(record.map for record in maps)
    return {name: _ranges([record for record in maps if record.map == name], _GROUPS) for name in names}


def _ranges(records: Sequence[TransferRecord], groups: Mapping[str, tuple[Kind, ...]]) -> list[str]:
    """``0.1 to 0.3 under PGD`` for every group of which there are records."""
    parts = []
    for word, kinds in groups.items():
        values = [record.l1.value for record in records if record.kind in kinds and record.l1.value is not None]
        if values:
            low, high = number(min(values)), number(max(values))
            parts.append(f"{low if low == high else f'{low} to {high}'} under {word}")
    return parts


def _observer_words(seen: Observed) -> dict[str, object]:
    counts = Counter(record.verdict for record in seen.records if record.verdict is not None)
    return {
        "seen": seen,
        "labels": [record for record in seen.records if record.kind == "label"],
        "tests": counts.total(),
        "near": counts[MapVerdict.TRANSFERS] + counts[MapVerdict.KEPT],
        "far": counts[MapVerdict.DOES_NOT_TRANSFER] + counts[MapVerdict.NOT_KEPT],
        "open": counts[MapVerdict.NOT_DECIDED],
        "moves": {
            compared: _ranges([r for r in seen.records if r.compared == compared], _GROUPS_OBSERVED)
            for compared in ("label", "target")
        },
    }


_COLOURS: Mapping[Kind, str] = {"floor": svg.NOISE, "pgd": svg.PGD, "own": svg.ADV2, "other": svg.ADV2}


def _figure(records: Sequence[TransferRecord]) -> str:
    """One SVG: a block per model and interpreter, in it a line per condition with the mean L1 and its interval.

    A filled diamond is the interpreter that was attacked, a hollow circle one that was not. Of an observer model the
    map of the label is shown, which is there on every photo.
    """
    blocks: dict[tuple[str, str], list[TransferRecord]] = {}
    audited = records[0].model
    for record in records:
        shown = "seen" if record.model == audited else "label"
        if record.compared == shown and record.condition != NONE and record.l1.value is not None:
            blocks.setdefault((record.model, record.map), []).append(record)
    drawn, said = [], []
    for (model, interpreter), block in blocks.items():
        name = interpreter_title(interpreter)
        whose = "" if model == audited else f" of {model}, map of the label"
        pgd = next((record.l1.value for record in block if record.kind == "pgd"), None)
        drawn.append(plots.ForestBlock(f"seen by {name}{whose}", tuple(map(_row, block)), pgd))
        said.append(f"{name} of {model}: {', '.join(f'{r.condition.title} {r.l1.value:.3f}' for r in block)}")
    return plots.forest(
        drawn,
        label="mean L1 from the benign map (0 = the same map), 95 % interval",
        name="transfer",
        description=f"Mean L1 from the benign map. {'. '.join(said)}.",
    )


def _row(record: TransferRecord) -> plots.ForestRow:
    tested = record.verdict is not None
    return plots.ForestRow(
        record.condition.title,
        record.l1,
        _COLOURS[record.kind],
        f"{record.verdict} ({record.nearer} of {record.pairs} nearer)" if tested else f"n = {record.n}",
        strong=record.kind == "own",
        hollow=record.kind == "other",
        noted=tested,
    )
