"""The prediction–interpretation gap: labels and maps chosen apart (Zhang et al. 2020, Observation 8).

Every photo is attacked towards a class that it is not and, at once, towards a map that has nothing to do with it:

* ``random-class``: the benign map of another photo, drawn by the seed and the photo's name: of the target class, as the
  authors do, or where the set of photos has none, of a third class.
* ``random-patch``: a disc or a rotated rectangle somewhere (`underfire.attacks.target_maps`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
from torch import Tensor

from underfire.attacks import PGD
from underfire.attacks.target_maps import random_patch
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import Condition
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.auditing.summary import KEPT_IOU
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.pictures import read_photo
from underfire.present.text import class_title, estimate, interpreter_title, interval, listing, number, of
from underfire.stats import Estimate, Share, bootstrap_mean, bootstrap_paired, wilson
from underfire.studies.attacks import Variant, audit_of, benign_map, rows_under, shown, taking_part
from underfire.studies.columns import fields_of, three
from underfire.studies.gap_figure import Bars, Example, Exhibit, gap_figure
from underfire.studies.gap_statistics import HALF_WAY, Trial, companion, successes, typical, works
from underfire.studies.source import Note, Run, attacked, quiet
from underfire.studies.study import Study

Aim = Literal["random-class", "random-patch"]
"""Where the target maps come from."""

_MISCLASSIFIED = "misclassified"

_CLAIM = (
    "Prediction and interpretation see different aspects of a model: an attacker can choose a label and, beside it, a "
    "map that has nothing to do with the photo, be it that of another class or a random patch (Zhang et al. 2020, "
    "Observation 8)."
)

_SCHEMA = pa.schema(
    [
        pa.field("interpreter", pa.string()),
        pa.field("target", pa.string()),
        pa.field("n", pa.int64()),
        pa.field("failed", pa.int64()),
        pa.field("left_out", pa.int64()),
        pa.field("pairs", pa.int64()),
        *fields_of(("succeeds", "reached", "seen", "confidence", "l1", "l1_pgd", "l1_benign")),
        *fields_of(("l1_minus_pgd", "l1_minus_benign", "iou_50", "iou_50_pgd", "iou_50_benign")),
        pa.field("verdict", pa.string()),
    ]
)

_VERDICTS = {True: "succeeds", False: "does not succeed", None: "not decided at this n"}


@dataclass(frozen=True)
class _Tried:
    """All attacks on one interpreter towards one kind of map."""

    variant: Variant
    aim: Aim
    trials: tuple[Trial, ...]

    @property
    def title(self) -> str:
        return interpreter_title(self.variant.interpreter.name)

    @property
    def reached(self) -> list[Trial]:
        """The trials whose label was reached."""
        return [trial for trial in self.trials if trial.success]

    @property
    def pairs(self) -> list[Trial]:
        """Those on which PGD reached the label too."""
        return [trial for trial in self.reached if trial.pgd_success]

    @property
    def rate(self) -> Share:
        return successes(self.trials)

    def mean(self, measure: str) -> Estimate:
        """Of the trials whose label was reached."""
        return _mean(self.reached, measure)

    def pgd(self, measure: str) -> Estimate:
        """Of the trials whose label both attacks reached."""
        return _mean(self.pairs, measure)

    @property
    def fall(self) -> Estimate:
        """By how much the distance to the target map is below that of the benign one, where the label was reached."""
        return bootstrap_paired([t.l1 for t in self.reached], [t.l1_benign for t in self.reached])

    @property
    def fall_from_pgd(self) -> Estimate:
        """The same below that under PGD, where both attacks reached the label."""
        return bootstrap_paired([t.l1 for t in self.pairs], [t.l1_pgd for t in self.pairs])

    @property
    def seen(self) -> Share:
        """Of all trials, those whose label was reached with a map whose regions are mostly the target's."""
        return wilson(sum(trial.iou >= KEPT_IOU for trial in self.reached), len(self.trials))


def _mean(trials: Sequence[Trial], measure: str) -> Estimate:
    return bootstrap_mean([getattr(trial, measure) for trial in trials])


def gap_study(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    *,
    work: Path,
    note: Note = quiet,
    aims: Sequence[Aim] = get_args(Aim),
    skipped: int = 0,
) -> Study:
    """Attacks ``photos`` with ADV² towards maps that are not theirs, on each of the plan's interpreters.

    Args:
        plan: the settings of every attack; its own choice of attacks plays no part.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        work: a folder for an audit with PGD and for the attacks; what is finished there is not done again.
        note: is told how the study comes along.
        aims: which target maps.
        skipped: how many files beside ``photos`` could not be used; the words tell.

    Raises:
        InputError: the plan or a photo cannot be used, or ``work`` holds attacks with other settings.
    """
    chosen = attacked(photos)
    interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    attacks = [attack_of(plan, Condition.on("adv2", g.name), classifier, [g]) for g in interpreters]
    pgd = replace(plan, attacks=("pgd",))
    run = audit_of(pgd, photos, classifier, work / "pgd", what="PGD", note=note)
    found = []
    for aim in aims:
        for interpreter, attack in zip(interpreters, attacks, strict=True):
            assert not isinstance(attack, PGD)  # noqa: S101 - the condition is a joint one
            aim_of = partial(_AIMS[aim], run, interpreter)
            variant = Variant(work / aim / interpreter.name, interpreter, attack, aim_of, controls=True)
            rows = rows_under(run, variant, what=f"{aim}, {interpreter_title(interpreter.name)}", note=note)
            found.append(_Tried(variant, aim, tuple(_trials(rows))))
    return Study(
        name="gap",
        title="The gap between prediction and explanation",
        claim=_CLAIM,
        claims=(),
        table=_table(found, len(chosen)),
        figure=_figure(found, run, classifier),
        words=_words(found, photos, skipped),
    )


def _random_class(run: Run, interpreter: Interpreter, photo: PlannedPhoto) -> Tensor | None:
    """The benign map of another photo; None where all photos are of one class."""
    others = {p.image_id: p for p in run.photos if p.excluded != _MISCLASSIFIED}
    labels = {name: other.label for name, other in others.items()}
    donor = companion(photo.image_id, photo.target, labels, seed=run.plan.seed)
    return None if donor is None else benign_map(run, others[donor], interpreter=interpreter.name)


def _random_patch(run: Run, interpreter: Interpreter, photo: PlannedPhoto) -> Tensor:
    return random_patch(interpreter.grid, seed=run.plan.seed, key=photo.image_id)


_AIMS = {"random-class": _random_class, "random-patch": _random_patch}


def _trials(rows: Sequence[Row]) -> Iterator[Trial]:
    """One for each photo that was attacked."""
    by_attack = {(row.image_id, row.attack): row for row in rows}
    for row in rows:
        if row.attack == "adv2":
            benign, pgd = by_attack[row.image_id, "none"], by_attack[row.image_id, "pgd"]
            yield Trial(
                photo=row.image_id,
                success=row.success_8bit,
                confidence=row.confidence_8bit,
                l1=row.l1_8bit,
                iou=row.iou_50_8bit,
                l1_benign=benign.l1_8bit,
                iou_benign=benign.iou_50_8bit,
                l1_pgd=pgd.l1_8bit,
                iou_pgd=pgd.iou_50_8bit,
                pgd_success=pgd.success_8bit,
            )


def _table(found: Sequence[_Tried], count: int) -> pa.Table:
    """One row per interpreter and kind of target map; ``left_out`` are photos without such a map."""
    return pa.Table.from_pylist([_line(tried, count) for tried in found], schema=_SCHEMA)


def _line(tried: _Tried, count: int) -> dict[str, object]:
    reached, tries = len(tried.reached), len(tried.trials)
    return {
        "interpreter": tried.variant.interpreter.name,
        "target": tried.aim,
        "n": reached,
        "failed": tries - reached,
        "left_out": count - tries,
        "pairs": len(tried.pairs),
        **three("succeeds", tried.rate),
        **three("reached", wilson(reached, tries)),
        **three("seen", tried.seen),
        **three("confidence", tried.mean("confidence")),
        **three("l1", tried.mean("l1")),
        **three("l1_pgd", tried.pgd("l1_pgd")),
        **three("l1_benign", tried.mean("l1_benign")),
        **three("l1_minus_pgd", tried.fall_from_pgd),
        **three("l1_minus_benign", tried.fall),
        **three("iou_50", tried.mean("iou")),
        **three("iou_50_pgd", tried.pgd("iou_pgd")),
        **three("iou_50_benign", tried.mean("iou_benign")),
        "verdict": _VERDICTS[works(tried.rate)],
    }


def _figure(found: Sequence[_Tried], run: Run, classifier: Classifier) -> str:
    bars = [
        Bars(tried.title, tried.aim, tried.mean("l1_benign"), tried.pgd("l1_pgd"), tried.mean("l1"), len(tried.trials))
        for tried in found
    ]
    shows: Aim = "random-patch" if any(tried.aim == "random-patch" for tried in found) else "random-class"
    examples = [_example(tried, run, classifier) for tried in found if tried.aim == shows]
    return gap_figure(bars, examples, aim=shows)


def _example(tried: _Tried, run: Run, classifier: Classifier) -> Example:
    """The photo that stands for all attacks on an interpreter."""
    trial = typical(tried.trials)
    if trial is None:
        return Example(tried.title, None)
    photo = next(p for p in run.photos if p.image_id == trial.photo)
    seen = shown(run, tried.variant, photo)
    names = {str(index): name for index, name in enumerate(classifier.class_names)}
    return Example(
        tried.title,
        Exhibit(
            photo=photo.image_id,
            label=class_title(photo.label, names),
            target=class_title(photo.target, names),
            confidence=trial.confidence,
            l1=trial.l1,
            iou=trial.iou,
            benign=read_photo(seen.benign),
            adversarial=read_photo(seen.adversarial),
            benign_map=seen.benign_map.numpy(),
            adversarial_map=seen.adversarial_map.numpy(),
            target_map=seen.aim.numpy(),
        ),
    )


def _words(found: Sequence[_Tried], photos: Sequence[PlannedPhoto], skipped: int) -> str:
    criterion = (
        "An attack succeeds on a photo where the saved image has the chosen label and its map came at least "
        f"{100 * HALF_WAY:.0f} % of the way to the chosen map, from the benign map, or from the map under PGD if PGD "
        "reached the label and that map is nearer. It succeeds on an interpreter where it does so on more than half of "
        "the photos, by an exact sign test at 5 %."
    )
    sentences = [_sentence(tried, photos) for tried in found]
    return " ".join([_verdict(found), taking_part(photos, skipped), criterion, *sentences])


def _sentence(tried: _Tried, photos: Sequence[PlannedPhoto]) -> str:
    rate, what = tried.rate, f"{tried.title}, {tried.aim.replace('-', ' ')}"
    count = sum(photo.excluded is None for photo in photos)
    if not tried.trials:
        return f"{what}: not tried, for no photo of another class was given."
    alone = f" ({count - rate.n} left out, for no photo of another class was given)" if rate.n < count else ""
    start = f"{what}: {_VERDICTS[works(rate)]}, {of(rate)} photos ({interval(rate)}){alone}"
    if not tried.reached:
        return f"{start}; the label was never reached."
    return (
        f"{start}; the label was reached on {len(tried.reached)} with confidence "
        f"{estimate(tried.mean('confidence'), 2)}, and there the L1 to the chosen map is "
        f"{estimate(tried.mean('l1'))}, {number(tried.mean('l1_benign').value)} "
        f"before, and the IoU with it {estimate(tried.mean('iou'), 2)}; {_beside_pgd(tried)}."
    )


def _beside_pgd(tried: _Tried) -> str:
    """What PGD does to the maps of the photos whose label it reached as well."""
    if not tried.pairs:
        return "PGD reached the label on none of these"
    return (
        f"on those on which PGD reached the label too, L1 and IoU under PGD are {estimate(tried.pgd('l1_pgd'))} and "
        f"{number(tried.pgd('iou_pgd').value, 2)}, and the L1 differs from PGD's by {estimate(tried.fall_from_pgd)}"
    )


def _verdict(found: Sequence[_Tried]) -> str:
    """For which interpreters the label and the map can be chosen apart."""
    outcomes: dict[str, list[bool | None]] = {}
    for tried in found:
        outcomes.setdefault(tried.title, []).append(works(tried.rate))
    holds = [title for title, worked in outcomes.items() if all(worked)]
    fails = [title for title, worked in outcomes.items() if False in worked]
    undecided = [title for title in outcomes if title not in {*holds, *fails}]
    parts = [
        f"{what} for {listing(titles)}"
        for what, titles in (("holds", holds), ("does not hold", fails), ("is not decided at this n", undecided))
        if titles
    ]
    aims = listing(list(dict.fromkeys(tried.aim.replace("-", " ") for tried in found)))
    return f"Observation 8, by {aims}, {'; it '.join(parts)}."
