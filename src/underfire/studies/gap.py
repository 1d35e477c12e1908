"""The prediction–interpretation gap: labels and maps chosen apart (Zhang et al. 2020, Observation 8).

Every photo is attacked towards a class that it is not and, at once, towards a map that has nothing to do with it. An
attacker who can show any map beside any label proves that prediction and interpretation see different aspects of the
model. The target maps come from one of these sources:

* ``random-class``: the benign map of another photo, drawn by the seed and the photo's name: of the target class, as the
  authors do, or where the set of photos has none, of a third class.
* ``random-patch``: a disc or a rotated rectangle somewhere (`underfire.attacks.target_maps`).
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from underfire.attacks.target_maps import random_patch
from underfire.auditing.condition import NONE, PGD
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.auditing.summary import KEPT_IOU
from underfire.choices import split_names
from underfire.files import printable
from underfire.images.png import read_shown
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present import svg
from underfire.present.pictures import Bytes, overlay
from underfire.present.plots import axes_of, blank, label_axes, mark
from underfire.present.tables import to_arrow
from underfire.present.text import class_title, interpreter_title
from underfire.present.words import written
from underfire.seeding import derive_seed
from underfire.stats import Estimate, Share, bootstrap_mean, bootstrap_paired, wilson
from underfire.studies.options import StudySource, option
from underfire.studies.reruns import Rerun, adv2_of, audit_of, benign_map, rerun_rows, taking_part
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

_IN_WORDS: dict[MapSource, str] = {"random-class": "random class", "random-patch": "random patch"}


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
    """One photo whose label and map were both chosen by an attacker.

    Attributes:
        attack: the row of ADV² towards the map; distances of all three are those to the target map.
        benign: that of no attack.
        pgd: that of an attack on the prediction alone.
    """

    attack: Row
    benign: Row
    pgd: Row

    @property
    def succeeds(self) -> bool:
        """The label is the chosen one, and the map came at least half of the way to the chosen one.

        The way begins where the map is nearer without an attack on it: at the benign map, or at that of the attack
        on the prediction alone if it reached the target.
        """
        starts = [self.benign, *([self.pgd] if self.pgd.success_8bit else [])]
        return self.attack.success_8bit and self.attack.l1_8bit <= HALF_WAY * min(row.l1_8bit for row in starts)


@dataclass(frozen=True)
class GapAttacks:
    """All attacks on one interpreter towards maps of one source, and their row of the table."""

    rerun: Rerun
    photos: tuple[ChosenMap, ...]
    row: GapRow

    @property
    def title(self) -> str:
        """The interpreter, as the literature writes it."""
        return interpreter_title(self.row.interpreter)

    @property
    def source(self) -> str:
        """Of the target maps, in words."""
        return _IN_WORDS[self.row.target]


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
            target_map = partial(_target_map, source, run, interpreter)
            rerun = Rerun(work / source / interpreter.name, interpreter, attack, target_map, controls=True)
            rows = rerun_rows(run, rerun, what=f"{source}, {interpreter_title(interpreter.name)}", note=note)
            chosen = chosen_maps(rows)
            found.append(GapAttacks(rerun, chosen, row_of(interpreter.name, source, chosen, count)))
    claims = _claims(found)
    return Study(
        name="gap",
        title="The gap between prediction and explanation",
        claim=CLAIM,
        claims=claims,
        table=to_arrow([one.row for one in found], GapRow),
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


def _target_map(source: MapSource, run: Run, interpreter: Interpreter, photo: PlannedPhoto) -> Tensor | None:
    """The map (h, w) to reach on ``photo``; None where all photos are of one class and another's is asked for."""
    if source == "random-patch":
        return random_patch(interpreter.grid, seed=run.plan.seed, key=photo.image_id)
    others = {p.image_id: p for p in run.photos if p.excluded != "misclassified"}
    labels = {name: other.label for name, other in others.items()}
    donor = companion(photo.image_id, photo.target, labels, seed=run.plan.seed)
    return None if donor is None else benign_map(run, others[donor], interpreter=interpreter.name)


def chosen_maps(rows: Sequence[Row]) -> tuple[ChosenMap, ...]:
    """One for each photo that was attacked."""
    known = {(row.image_id, row.condition): row for row in rows}
    attacks = [row for row in rows if row.condition.is_joint]
    return tuple(ChosenMap(row, known[row.image_id, NONE], known[row.image_id, PGD]) for row in attacks)


def row_of(interpreter: str, source: MapSource, chosen: Sequence[ChosenMap], count: int) -> GapRow:
    """The figures of ``chosen``, out of ``count`` photos."""
    reached = [one for one in chosen if one.attack.success_8bit]
    pairs = [one for one in reached if one.pgd.success_8bit]
    rate = wilson(sum(one.succeeds for one in chosen), len(chosen))
    l1, l1_benign = [one.attack.l1_8bit for one in reached], [one.benign.l1_8bit for one in reached]
    l1_pgd = [one.pgd.l1_8bit for one in pairs]
    return GapRow(
        interpreter=interpreter,
        target=source,
        n=len(reached),
        failed=len(chosen) - len(reached),
        left_out=count - len(chosen),
        pairs=len(pairs),
        succeeds=rate,
        reached=wilson(len(reached), len(chosen)),
        seen=wilson(sum(one.attack.iou_50_8bit >= KEPT_IOU for one in reached), len(chosen)),
        confidence=bootstrap_mean([one.attack.confidence_8bit for one in reached]),
        l1=bootstrap_mean(l1),
        l1_pgd=bootstrap_mean(l1_pgd),
        l1_benign=bootstrap_mean(l1_benign),
        l1_minus_pgd=bootstrap_paired([one.attack.l1_8bit for one in pairs], l1_pgd),
        l1_minus_benign=bootstrap_paired(l1, l1_benign),
        iou_50=bootstrap_mean([one.attack.iou_50_8bit for one in reached]),
        iou_50_pgd=bootstrap_mean([one.pgd.iou_50_8bit for one in pairs]),
        iou_50_benign=bootstrap_mean([one.benign.iou_50_8bit for one in reached]),
        verdict=majority(rate.k, rate.n, tests=1),
    )


# Judge, and words


def _claims(found: Sequence[GapAttacks]) -> tuple[Claim, ...]:
    """Observation 8 as a whole, for each interpreter, and for each of its sources of target maps."""

    def claim(parts: tuple[str, ...], statement: str, some: Sequence[GapAttacks]) -> Claim:
        rates = {f"{one.title}, {one.source}": one.row.succeeds for one in some}
        return Claim.over("/".join(parts), statement, together(one.row.verdict for one in some), rates)

    apart = "Label and map can be chosen apart on"
    whole = "An attacker can choose the label and, beside it, an unrelated map, on every interpreter."
    claims = [claim(("observation-8",), whole, found)]
    for name in dict.fromkeys(one.row.interpreter for one in found):
        own = [one for one in found if one.row.interpreter == name]
        claims.append(claim(("observation-8", name), f"{apart} {own[0].title}.", own))
    for one in found:
        statement = f"{apart} {one.title}, with maps of the source {one.row.target}."
        claims.append(claim(("observation-8", one.row.interpreter, one.row.target), statement, [one]))
    return tuple(claims)


def _words(found: Sequence[GapAttacks], claims: Sequence[Claim], taking: str) -> str:
    verdicts = {claim.id: claim.verdict for claim in claims}
    titles = {one.title: verdicts[f"observation-8/{one.row.interpreter}"] for one in found}
    by_verdict = {verdict: [title for title, known in titles.items() if known is verdict] for verdict in Verdict}
    return written(
        "underfire.studies",
        "gap.md.jinja",
        by_verdict={verdict: some for verdict, some in by_verdict.items() if some},
        sources=list(dict.fromkeys(one.source for one in found)),
        taking_part=taking,
        half_way=HALF_WAY,
        rows=[(one.title, one.source, one.row) for one in found],
    )


# Figure


_SIDE, _COLOURS = 120, 256  # of a picture in the file, which is to be looked at and no more
_WIDTH_IN, _MARGIN_IN = 6.6, 0.1
_PICTURE_IN, _GAP_IN = 1.2, 0.1
_HEADING_IN, _TITLE_IN, _CAPTION_IN, _SPACE_IN = 0.55, 0.24, 0.42, 0.14
_CHART_LEFT_IN, _CHART_TOP_IN, _CHART_ROW_IN, _AXIS_IN = 0.95, 0.62, 0.34, 0.62
_LONGEST = 21  # characters of a class's name below a picture
_SERIES = (
    (svg.NOISE, "benign photo", 0.2, "l1_benign"),
    (svg.PGD, "PGD", 0.0, "l1_pgd"),
    (svg.ADV2, "ADV² towards the map", -0.2, "l1"),
)
_PICTURE = re.compile(r"(?P<start>data:image/png;base64,)(?P<data>[^\"]+)")
_BLOCKS = "image-rendering:crisp-edges;image-rendering:pixelated"


def typical(chosen: Sequence[ChosenMap]) -> ChosenMap | None:
    """The photo that stands for all: of those that reached the label the median by distance to the target map.

    The lower one of two; equal distances are ordered by the photos' names. None if no attack reached the label.
    """
    by_distance = sorted(chosen, key=lambda one: (one.attack.l1_8bit, one.attack.image_id))
    reached = [one for one in by_distance if one.attack.success_8bit]
    return reached[(len(reached) - 1) // 2] if reached else None


def _figure(found: Sequence[GapAttacks], run: Run, classifier: Classifier) -> str:
    """An SVG: a chart per source of target maps, and below it a row of pictures per interpreter, of one source.

    Class names, photo names and titles are data: nothing in them is taken for a formula or markup.
    """
    sources = list(dict.fromkeys(one.source for one in found))
    shows = next((one.source for one in found if one.row.target == "random-patch"), sources[0])
    shown = [one for one in found if one.source == shows]
    chart = _CHART_TOP_IN + len(shown) * _CHART_ROW_IN + _AXIS_IN
    height = chart + _HEADING_IN + len(shown) * (_TITLE_IN + _PICTURE_IN + _CAPTION_IN + _SPACE_IN)
    figure = blank(_WIDTH_IN, height)
    _charts(figure, found, sources)
    _text(
        figure, _MARGIN_IN, height - chart - 0.12,
        f"The typical photo of each interpreter, {shows}: of the attacks that reached the label the\n"
        "median by distance to the target map", size=9.5, colour=svg.MUTED,
    )  # fmt: skip
    for place, one in enumerate(shown):
        top = height - chart - _HEADING_IN - place * (_TITLE_IN + _PICTURE_IN + _CAPTION_IN + _SPACE_IN)
        _pictures(figure, one, run, classifier, top)
    description = (
        f"Mean L1 to the target maps for {', '.join(dict.fromkeys(one.title for one in found))}, and for each a "
        "photo with its map before and after the attack; the table has the numbers."
    )
    return _lighter(svg.inline(figure, name="gap", description=description))


def _charts(figure: Figure, found: Sequence[GapAttacks], sources: Sequence[str]) -> None:
    """The mean L1 to the target maps of the benign photos, under PGD and under ADV²."""
    height = figure.get_figheight()
    figures: list[Estimate] = [getattr(one.row, name) for one in found for *_, name in _SERIES]
    upper = 1.08 * max((end for m in figures for end in (m.value, m.high) if end is not None), default=1.0)
    width = (_WIDTH_IN - _CHART_LEFT_IN - _MARGIN_IN - (len(sources) - 1) * 2 * _GAP_IN) / len(sources)
    for column, source in enumerate(sources):
        here = [one for one in reversed(found) if one.source == source]
        rows = len(here) * _CHART_ROW_IN
        left = _CHART_LEFT_IN + column * (width + 2 * _GAP_IN)
        bottom = height - _CHART_TOP_IN - rows
        axes = axes_of(figure, (left / _WIDTH_IN, bottom / height, width / _WIDTH_IN, rows / height))
        for centre, one in enumerate(here):
            for colour, _, shift, name in _SERIES:
                mean = getattr(one.row, name)
                solid = 2 * mean.n >= one.row.tries
                mark(axes, mean, centre + shift, colour, solid=solid, whisker=1.4, alpha=0.6, edge=1.0, zorders=(2, 2))
        label_axes(axes, x="L1 to the target map", size=9.5)
        axes.set_xlim(0, upper)
        axes.set_ylim(-0.5, len(here) - 0.5)
        axes.set_yticks(range(len(here)), [one.title if column == 0 else "" for one in here])
        axes.tick_params(axis="y", colors=svg.INK, labelsize=10.5, length=0)
        axes.grid(axis="x", color=svg.LINE, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(source, color=svg.INK, fontsize=10.5, loc="left")
    place = _CHART_LEFT_IN
    for colour, text, *_ in _SERIES:
        _text(figure, place, height - 0.08, f"● {text}", size=9.5, colour=colour)
        place += 0.3 + 0.075 * len(text)
    _text(figure, place, height - 0.08, "○ on less than half", size=9.5, colour=svg.MUTED)


def _pictures(figure: Figure, attacks: GapAttacks, run: Run, classifier: Classifier, top: float) -> None:
    """The photo that stands for all attacks on an interpreter, before and after, with its maps and the one aimed at."""
    chosen, height = typical(attacks.photos), figure.get_figheight()
    if chosen is None:
        text = f"{attacks.title}: the label was never reached"
        _text(figure, _MARGIN_IN, top, text, size=10.5, colour=svg.INK)
        return
    row = chosen.attack
    title = f"{attacks.title}: {_short(row.image_id, 60)}"
    _text(figure, _MARGIN_IN, top, title, size=10.5, colour=svg.INK)
    photo = next(p for p in run.photos if p.image_id == row.image_id)
    pictures = (run.picture(photo, NONE), attacks.rerun.picture(photo))
    benign, adversarial = (read_shown(path, run.picture_shape) for path in pictures)
    own_map, target_map = attacks.rerun.maps(photo, run.input_size)
    known_map = benign_map(run, photo, interpreter=attacks.row.interpreter)
    names = {str(index): name for index, name in enumerate(classifier.class_names)}
    label, target = (_short(class_title(index, names)) for index in (photo.label, photo.target))
    cells = (
        (benign, f"the photo, label\n{label}"),
        (overlay(benign, known_map.numpy()), "its map"),
        (overlay(benign, target_map.numpy()), "the map chosen"),
        (adversarial, f"attacked, {row.confidence_8bit:.2f}\n{target}"),
        (
            overlay(adversarial, own_map.numpy()),
            f"its map: L1 {row.l1_8bit:.3f},\nIoU {row.iou_50_8bit:.2f}",
        ),
    )
    bottom = top - _TITLE_IN - _PICTURE_IN
    for column, (picture, caption) in enumerate(cells):
        left = _MARGIN_IN + column * (_PICTURE_IN + _GAP_IN)
        axes: Any = figure.add_axes((left / _WIDTH_IN, bottom / height, _PICTURE_IN / _WIDTH_IN, _PICTURE_IN / height))
        axes.imshow(_small(picture), interpolation="none")  # as it is: the file holds these pixels as a PNG
        axes.set_axis_off()
        _text(figure, left, bottom - 0.05, caption, size=8, colour=svg.MUTED)


def _text(figure: Figure, left: float, top: float, text: str, *, size: float, colour: str) -> None:
    """Text whose upper left corner is at ``left``, ``top`` in inches."""
    figure.text(
        left / _WIDTH_IN, top / figure.get_figheight(), text, fontsize=size, color=colour, va="top", ha="left",
        parse_math=False, linespacing=1.25,
    )  # fmt: skip


def _small(picture: Bytes) -> Bytes:
    """``picture`` (H, W, 3) with at most `_SIDE` pixels a side."""
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


def _lighter(drawn: str) -> str:
    """The SVG ``drawn`` with its pictures in fewer colours, at half the bytes, and smooth where they are enlarged."""

    def again(match: re.Match[str]) -> str:
        with Image.open(io.BytesIO(base64.b64decode(match["data"])), formats=("PNG",)) as image:
            # The median cut would dim the few bright cells of a map.
            few = image.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        few.save(buffer, "PNG", optimize=True)
        return match["start"] + base64.b64encode(buffer.getvalue()).decode("ascii")

    return _PICTURE.sub(again, drawn).replace(_BLOCKS, "")


def _short(text: str, longest: int = _LONGEST) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
