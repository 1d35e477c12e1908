"""The prediction–interpretation gap: labels and maps chosen apart (Zhang et al. 2020, Observation 8).

Every photo is attacked towards a class that it is not and, at once, towards a map that has nothing to do with it. An
attacker who can show any map beside any label proves that prediction and interpretation see different aspects of the
model. The target maps come from one of these sources:

* ``random-class``: the benign map of another photo, drawn by the seed and the photo's name: of the target class, as the
  authors do, or where the set of photos has none, of a third class.
* ``random-patch``: a disc or a rotated rectangle somewhere (`underfire.attacks.target_maps`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from underfire.attacks.target_maps import random_patch
from underfire.auditing.condition import NONE, PGD
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.auditing.summary import KEPT_IOU
from underfire.choices import split_names
from underfire.images.png import read_pixels
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.tables import to_arrow
from underfire.present.text import class_title, interpreter_title
from underfire.present.words import written
from underfire.seeding import derive_seed
from underfire.stats import Estimate, Share, bootstrap_mean, bootstrap_paired, wilson
from underfire.studies.gap_figure import Distances, Exhibit, PhotoExample, gap_figure
from underfire.studies.options import StudySource, option
from underfire.studies.reruns import Rerun, adv2_of, artifacts_of, audit_of, benign_map, rerun_rows, taking_part
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, Verdict, majority, together

MapSource = Literal["random-class", "random-patch"]
"""Where the target maps come from."""

CLAIM = (
    "Prediction and interpretation see different aspects of a model: an attacker can choose a label and, beside it, a "
    "map that has nothing to do with the photo, be it that of another class or a random patch (Zhang et al. 2020, "
    "Observation 8)."
)

HALF_WAY = 0.5
"""The share of the distance to the target map that may be left: of each interpreter's own scale, and without an
opinion about which of two maps looks like a third."""

_MISCLASSIFIED = "misclassified"


@dataclass(frozen=True)
class GapOptions:
    """What ``underfire study gap`` takes beside the options of an audit."""

    aims: tuple[MapSource, ...] = option(
        get_args(MapSource),
        help="The maps to show, comma-separated: another photo's, of another class, or a random patch.",
        parse=partial(split_names, known=get_args(MapSource), kind="aim"),
        shown_default=",".join(get_args(MapSource)),
    )


@dataclass(frozen=True)
class GapRow:
    """One interpreter and source of target maps; ``left_out`` are photos for which there is no such map.

    ``target`` is the source of the target maps; ``n`` are photos whose label was reached, ``pairs`` those on which PGD
    reached it too.
    """

    interpreter: str
    target: MapSource
    n: int
    failed: int
    left_out: int
    pairs: int
    succeeds: Share
    reached: Share
    seen: Share
    confidence: Estimate
    l1: Estimate
    l1_pgd: Estimate
    l1_benign: Estimate
    l1_minus_pgd: Estimate
    l1_minus_benign: Estimate
    iou_50: Estimate
    iou_50_pgd: Estimate
    iou_50_benign: Estimate
    verdict: Verdict

    @property
    def tries(self) -> int:
        """How many photos were attacked."""
        return self.n + self.failed


@dataclass(frozen=True)
class ChosenMap:
    """One photo whose label and map were both chosen by an attacker, on the image as saved.

    Attributes:
        photo: its name.
        success: whether the prediction is the target.
        confidence: the probability of the target.
        l1, iou: between the attacked image's map and the target map, in [0, 1].
        l1_benign, iou_benign: the same for the benign photo's map.
        l1_pgd, iou_pgd: the same for the map of an attack on the prediction alone.
        pgd_success: whether that attack reached the target too.
    """

    photo: str
    success: bool
    confidence: float
    l1: float
    iou: float
    l1_benign: float
    iou_benign: float
    l1_pgd: float
    iou_pgd: float
    pgd_success: bool

    @property
    def succeeds(self) -> bool:
        """The label is the chosen one, and the map came at least half of the way to the chosen one.

        The way begins where the map is nearer without an attack on it: at the benign map, or at that of the attack
        on the prediction alone if it reached the target.
        """
        start = min(self.l1_benign, self.l1_pgd) if self.pgd_success else self.l1_benign
        return self.success and self.l1 <= HALF_WAY * start


@dataclass(frozen=True)
class _Attacks:
    """All attacks on one interpreter towards maps of one source, and their row of the table."""

    rerun: Rerun
    source: MapSource
    photos: tuple[ChosenMap, ...]
    row: GapRow

    @property
    def title(self) -> str:
        return interpreter_title(self.rerun.interpreter.name)


def study(source: StudySource, options: GapOptions) -> Study:
    """The study as the command line calls it."""
    source.refuse("attacks", "runs PGD and ADV²")
    planned = source.planned()
    return gap_study(
        planned.plan, planned.photos, planned.classifier, work=source.work, note=source.note,
        aims=options.aims, skipped=planned.skipped,
    )  # fmt: skip


def gap_study(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    *,
    work: Path,
    note: Note = quiet,
    aims: Sequence[MapSource] = get_args(MapSource),
    skipped: int = 0,
) -> Study:
    """Attacks ``photos`` with ADV² towards maps that are not theirs, on each of the plan's interpreters.

    Args:
        plan: the settings of every attack; its own choice of attacks plays no part.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        work: a folder for an audit with PGD and for the attacks; what is finished there is not done again.
        note: reports progress.
        aims: where the target maps come from.
        skipped: how many files beside ``photos`` could not be used; the words tell.

    Raises:
        InputError: the plan or a photo cannot be used, or ``work`` holds attacks with other settings.
    """
    count = len(attacked(photos))
    interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    attacks = [adv2_of(plan, interpreter) for interpreter in interpreters]
    run = audit_of(replace(plan, attacks=("pgd",)), photos, classifier, work / "pgd", what="PGD", note=note)
    found = []
    for source in aims:
        for interpreter, attack in zip(interpreters, attacks, strict=True):
            target_map = partial(_TARGET_MAPS[source], run, interpreter)
            rerun = Rerun(work / source / interpreter.name, interpreter, attack, target_map, controls=True)
            rows = rerun_rows(run, rerun, what=f"{source}, {interpreter_title(interpreter.name)}", note=note)
            chosen = tuple(_chosen_maps(rows))
            found.append(_Attacks(rerun, source, chosen, _row(interpreter.name, source, chosen, count)))
    claims = _claims(found)
    return Study(
        name="gap",
        title="The gap between prediction and explanation",
        claim=CLAIM,
        claims=claims,
        table=to_arrow([attacks.row for attacks in found], GapRow),
        figure=_figure(found, run, classifier),
        words=_words(found, claims, taking_part(photos, skipped)),
    )


# Collect


def companion(photo: str, target: int, labels: Mapping[str, int], *, seed: int) -> str | None:
    """Another photo of ``labels`` to take a map from: one of the class ``target``, as the authors do, if there is one.

    Else, since a set of photos rarely has one, a photo whose class is neither that of ``photo`` nor ``target``; None if
    there is none of those either. Drawn by (``seed``, ``photo``): every candidate has a number of its own and the
    lowest is taken, so that a photo added to or taken from the set changes the choice for few others.
    """
    others = {name: label for name, label in labels.items() if label != labels[photo]}
    candidates = [name for name, label in others.items() if label == target] or list(others)
    return min(candidates, key=lambda name: (derive_seed(seed, photo, name, "companion"), name), default=None)


def _random_class(run: Run, interpreter: Interpreter, photo: PlannedPhoto) -> Tensor | None:
    """The benign map of another photo; None where all photos are of one class."""
    others = {p.image_id: p for p in run.photos if p.excluded != _MISCLASSIFIED}
    labels = {name: other.label for name, other in others.items()}
    donor = companion(photo.image_id, photo.target, labels, seed=run.plan.seed)
    return None if donor is None else benign_map(run, others[donor], interpreter=interpreter.name)


def _random_patch(run: Run, interpreter: Interpreter, photo: PlannedPhoto) -> Tensor:
    return random_patch(interpreter.grid, seed=run.plan.seed, key=photo.image_id)


_TARGET_MAPS: Mapping[MapSource, Callable[[Run, Interpreter, PlannedPhoto], Tensor | None]] = {
    "random-class": _random_class,
    "random-patch": _random_patch,
}


def _chosen_maps(rows: Sequence[Row]) -> Iterator[ChosenMap]:
    """One for each photo that was attacked."""
    by_condition = {(row.image_id, row.condition): row for row in rows}
    for row in rows:
        if row.condition.is_joint:
            benign, pgd = by_condition[row.image_id, NONE], by_condition[row.image_id, PGD]
            yield ChosenMap(
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


def _row(interpreter: str, source: MapSource, chosen: Sequence[ChosenMap], count: int) -> GapRow:
    """The figures of ``chosen``, out of ``count`` photos."""
    reached = [one for one in chosen if one.success]
    pairs = [one for one in reached if one.pgd_success]
    rate = successes(chosen)
    return GapRow(
        interpreter=interpreter,
        target=source,
        n=len(reached),
        failed=len(chosen) - len(reached),
        left_out=count - len(chosen),
        pairs=len(pairs),
        succeeds=rate,
        reached=wilson(len(reached), len(chosen)),
        seen=wilson(sum(one.iou >= KEPT_IOU for one in reached), len(chosen)),
        confidence=bootstrap_mean([one.confidence for one in reached]),
        l1=bootstrap_mean([one.l1 for one in reached]),
        l1_pgd=bootstrap_mean([one.l1_pgd for one in pairs]),
        l1_benign=bootstrap_mean([one.l1_benign for one in reached]),
        l1_minus_pgd=bootstrap_paired([one.l1 for one in pairs], [one.l1_pgd for one in pairs]),
        l1_minus_benign=bootstrap_paired([one.l1 for one in reached], [one.l1_benign for one in reached]),
        iou_50=bootstrap_mean([one.iou for one in reached]),
        iou_50_pgd=bootstrap_mean([one.iou_pgd for one in pairs]),
        iou_50_benign=bootstrap_mean([one.iou_benign for one in reached]),
        verdict=majority(rate.k, rate.n, tests=1),
    )


def successes(chosen: Iterable[ChosenMap]) -> Share:
    """The share that succeeds, of all photos that were attacked."""
    outcomes = [one.succeeds for one in chosen]
    return wilson(sum(outcomes), len(outcomes))


# Judge


def _claims(found: Sequence[_Attacks]) -> tuple[Claim, ...]:
    """Observation 8 as a whole, for each interpreter, and for each of its sources of target maps."""
    names = dict.fromkeys(attacks.row.interpreter for attacks in found)
    by_name = {name: [attacks for attacks in found if attacks.row.interpreter == name] for name in names}
    whole = "An attacker can choose the label and, beside it, an unrelated map, on every interpreter."
    return (
        _claim("observation-8", whole, found),
        *(
            _claim(f"observation-8/{name}", f"Label and map can be chosen apart on {interpreter_title(name)}.", own)
            for name, own in by_name.items()
        ),
        *(
            _claim(
                f"observation-8/{attacks.row.interpreter}/{attacks.source}",
                f"Label and map can be chosen apart on {attacks.title}, with maps of the source {attacks.source}.",
                [attacks],
            )
            for attacks in found
        ),
    )


def _claim(name: str, statement: str, found: Sequence[_Attacks]) -> Claim:
    rates = {f"{attacks.title}, {_words_of(attacks.source)}": attacks.row.succeeds for attacks in found}
    verdict = together(attacks.row.verdict for attacks in found)
    return Claim(name, statement, verdict, rates, min((rate.n for rate in rates.values()), default=0))


# Figure and words


def typical(chosen: Sequence[ChosenMap]) -> ChosenMap | None:
    """The photo that stands for all: of those that reached the label the median by distance to the target map.

    The lower one of two; equal distances are ordered by the photos' names. None if no attack reached the label.
    """
    reached = sorted((one for one in chosen if one.success), key=lambda one: (one.l1, one.photo))
    return reached[(len(reached) - 1) // 2] if reached else None


def _figure(found: Sequence[_Attacks], run: Run, classifier: Classifier) -> str:
    distances = [
        Distances(a.title, _words_of(a.source), a.row.l1_benign, a.row.l1_pgd, a.row.l1, a.row.tries) for a in found
    ]
    shows: MapSource = "random-patch" if any(a.source == "random-patch" for a in found) else "random-class"
    examples = [_example(attacks, run, classifier) for attacks in found if attacks.source == shows]
    return gap_figure(distances, examples, shows=_words_of(shows))


def _example(attacks: _Attacks, run: Run, classifier: Classifier) -> PhotoExample:
    """The photo that stands for all attacks on an interpreter."""
    chosen = typical(attacks.photos)
    if chosen is None:
        return PhotoExample(attacks.title, None)
    photo = next(p for p in run.photos if p.image_id == chosen.photo)
    left = artifacts_of(run, attacks.rerun, photo)
    names = {str(index): name for index, name in enumerate(classifier.class_names)}
    return PhotoExample(
        attacks.title,
        Exhibit(
            photo=photo.image_id,
            label=class_title(photo.label, names),
            target=class_title(photo.target, names),
            confidence=chosen.confidence,
            l1=chosen.l1,
            iou=chosen.iou,
            benign=read_pixels(left.benign, run.input_size),
            adversarial=read_pixels(left.adversarial, run.input_size),
            benign_map=left.benign_map.numpy(),
            adversarial_map=left.adversarial_map.numpy(),
            target_map=left.target_map.numpy(),
        ),
    )


def _words(found: Sequence[_Attacks], claims: Sequence[Claim], taking: str) -> str:
    verdicts = {claim.id: claim.verdict for claim in claims}
    titles = {attacks.row.interpreter: attacks.title for attacks in found}
    by_verdict = {
        verdict: [title for name, title in titles.items() if verdicts[f"observation-8/{name}"] is verdict]
        for verdict in Verdict
    }
    return written(
        "underfire.studies",
        "gap.md.jinja",
        by_verdict={verdict: titles for verdict, titles in by_verdict.items() if titles},
        sources=list(dict.fromkeys(_words_of(attacks.source) for attacks in found)),
        taking_part=taking,
        half_way=HALF_WAY,
        rows=[(attacks.title, _words_of(attacks.source), attacks.row) for attacks in found],
    )


def _words_of(source: MapSource) -> str:
    return {"random-class": "random class", "random-patch": "random patch"}[source]
