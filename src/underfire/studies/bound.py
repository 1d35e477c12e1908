"""Proposition 1: does a change of the prediction force a change of the explanation?"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from matplotlib.axes import Axes

from underfire.auditing.cache import Cache, cache_key
from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.look import calling
from underfire.auditing.names import known_interpreters
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.decoding import decoded
from underfire.errors import InputError
from underfire.files import printable, quoted, shortened
from underfire.images.png import read_pngs
from underfire.interpreters.base import BACK_PROPAGATION
from underfire.interpreters.path import IncompleteError
from underfire.models.classifier import Classifier
from underfire.parsing import positive
from underfire.present import plots, svg
from underfire.present.tables import to_arrow
from underfire.present.words import written
from underfire.stats import Estimate, Share, bootstrap_mean, bootstrap_paired, rank_correlation, wilson
from underfire.studies.bound_statistics import Proposition1, TwoClass, logit_attributions, proposition_1, two_class
from underfire.studies.options import StudySource, option
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, Verdict, above, together
from underfire.studies.transfer import check_attacks, comparable

CLAIM = (
    "Section 5, Proposition 1: what an attack adds to the probability of the target class is at most the L1 norm of "
    "the attribution of that change (ℓ_prd ≤ ‖Δm‖₁). From it the paper explains that prediction and map conflict in "
    "attacks on back-propagation interpreters, and adds that the bound may be loose."
)

TOLERANCE = 0.01
"""Of the integrals in Proposition 1, in units of probability."""
LOGIT_TOLERANCE = 1.0
"""Of those from a black image to a photo, in units of the logits; their norms are in the thousands."""

GAINS = (0.5, 0.9)
"""γ_prd: how much probability an effective attack moves at least."""
LIMITS: Mapping[Literal["attr", "l1"], tuple[float, ...]] = {"attr": (1.0, 2.0, 4.0, 8.0), "l1": (0.05, 0.1, 0.2)}
"""γ_int: the most that ‖Δm‖₁ may be, and the most L1 that the map a person sees may have."""

FALSE_ALARMS = 0.05
"""The share of images under benign noise that a threshold on the measure over two classes lets through."""

_NAMED = 5  # unresolved photos
_LEAST = 1e-2  # of the logarithmic axes, in units of the logits


def effective_count(gain: float, distance: Literal["attr", "l1"], most: float) -> str:
    """The column that counts ℓ_prd ≥ ``gain`` with a ``distance``, ‖Δm‖₁ or L1 of the map, of at most ``most``."""
    return f"prd>={gain:g} {distance}<={most:g}"


_COUNTS = [effective_count(gain, name, most) for name, limits in LIMITS.items() for gain in GAINS for most in limits]


@dataclass(frozen=True)
class Tolerances:
    """Of completeness residuals: in units of probability, and of the logits."""

    probability: float
    logit: float


@dataclass(frozen=True)
class ImageBounds:
    """Both sides of both bounds for one photo under one condition."""

    proposition: Proposition1
    classes: TwoClass


Measured = Mapping[Condition, ImageBounds | None]
"""Of a photo, by condition; None where an integral does not come within its tolerance."""


@dataclass(frozen=True)
class MeasuredMap:
    """One photo under one condition as one interpreter shows it: its row, and the bounds under it and benign noise."""

    row: Row
    bounds: ImageBounds
    noise: ImageBounds


@dataclass(frozen=True)
class BoundCell:
    """The photos of a condition as one interpreter shows them, and the names of those that are unresolved."""

    condition: Condition
    map: str
    images: tuple[MeasuredMap, ...]
    unresolved: tuple[str, ...] = ()

    @property
    def counted(self) -> list[MeasuredMap]:
        """Those that means are over: all under a control, else those that reached the label."""
        return [image for image in self.images if self.condition.is_control or image.row.success_8bit]


@dataclass(frozen=True, kw_only=True)
class BoundRecord:
    """One row of the table: a condition, seen by one interpreter; all on images as saved in 8 bit.

    Attributes:
        condition: what was done to the images: noise, pgd, adv2-cam ….
        map: the interpreter; for an attack on an interpreter, that one.
        n: photos that the means rest on: for an attack those on which it reached its label.
        failed: photos on which it did not; they are in ``residual`` and ``least_slack`` alone.
        unresolved: photos that are in nothing, for an integral on them, or on what they are compared with, does not
            come within its tolerance; ``unresolved_photos`` are their names.
        prediction: ℓ_prd, in units of probability.
        attribution: ‖Δm‖₁, in the same, summed over all values of the image.
        slack: ‖Δm‖₁ − ℓ_prd; ``least_slack`` is the least over all resolved photos.
        residual: the largest completeness residual of them.
        l1: of the map, from the benign map.
        rho: the rank correlation of ‖Δm‖₁ and L1 over photos.
        half_margin: half the change of the margin between the two logits, the lower bound of ``two_class``.
        two_class: the measure over two classes, in units of the logits.
        times: the median of ``two_class`` over ``half_margin``.
        above_noise: the share of photos on which ``two_class`` is larger than under benign noise.
        caught: the share on which it is larger than on all but `FALSE_ALARMS` of the images under noise. The threshold
            is taken from the same photos, which flatters it.
        effective: how many of the n photos have ℓ_prd and a distance within a pair of thresholds.
    """

    condition: Condition
    map: str
    n: int
    failed: int
    unresolved: int
    unresolved_photos: str | None
    prediction: Estimate
    attribution: Estimate
    slack: Estimate
    least_slack: float | None
    residual: float | None
    l1: Estimate
    rho: Estimate
    half_margin: Estimate
    two_class: Estimate
    times: float | None
    above_noise: Share
    caught: Share
    effective: Mapping[str, int] = field(metadata={"columns": _COUNTS})


@dataclass(frozen=True)
class BoundOptions:
    """What the command takes beside the options of an audit."""

    tolerance: float = option(TOLERANCE, help="Completeness tolerance for integrals of a probability.", parse=positive)
    logit_tolerance: float = option(LOGIT_TOLERANCE, help="Completeness tolerance for logit integrals.", parse=positive)


def study(source: StudySource, options: BoundOptions) -> Study:
    """The study as the command line calls it."""
    run = source.audited()
    classifier = run.classifier(source.plan.device)
    return bound_study(
        run, classifier, work=source.work, limit=source.limit, note=source.note,
        tolerance=options.tolerance, logit_tolerance=options.logit_tolerance,
    )  # fmt: skip


def bound_study(
    run: Run,
    classifier: Classifier,
    *,
    work: Path,
    limit: int | None = None,
    tolerance: float = TOLERANCE,
    logit_tolerance: float = LOGIT_TOLERANCE,
    note: Note = quiet,
) -> Study:
    """Both sides of Proposition 1 on every attacked image of ``run``, with the measure over two classes beside them.

    All on images as saved in 8 bit. One image takes about a hundred passes. ``work`` keeps what was measured, photo by
    photo; the same call goes on from there. An image whose integrals do not come within their tolerances is left out
    and named.

    Args:
        run: an audit; it needs an attack on an interpreter.
        classifier: that of the audit.
        work: a folder.
        limit: at most so many of the attacked photos, the first ones.
        tolerance: of the completeness residual, in units of probability.
        logit_tolerance: of that of the logits.
        note: called with a line for every photo.

    Raises:
        InputError: ``run`` has no attack on an interpreter, an image is missing, or no image is resolved.
        BoundViolationError: ℓ_prd is above ‖Δm‖₁, or the measure over two classes below its bound, by more than the
            tolerance. Attributions that are complete exclude both, so it is a mistake in this code.
    """
    photos = attacked(run.photos)
    check_attacks(run)
    tolerances = Tolerances(tolerance, logit_tolerance)
    measured = measure(run, classifier, tolerances, limit=limit, work=work, note=note)
    cells = sorted(cells_of(run.records, measured), key=lambda cell: run.plan.conditions.index(cell.condition))
    if not any(cell.images for cell in cells):
        raise InputError(
            f"no image of the run {quoted(run.path)} has integrals that are complete within the tolerances "
            f"{tolerance:g} and {logit_tolerance:g} (of logits); give larger ones, or where that does not help, "
            "see whether the model's gradients are those of its output"
        )
    records = [record_of(cell) for cell in cells]
    claims = judge(cells, records)
    left_out, alike = len(photos) - len(measured), comparable(run.records)
    return Study(
        name="bound",
        title="Does a change of the prediction force a change of the explanation?",
        claim=CLAIM,
        claims=claims,
        table=to_arrow(records, BoundRecord),
        figure=_figure(cells),
        words=words_of(cells, records, claims, tolerances, left_out=left_out, alike=alike),
    )


def measure(
    run: Run, classifier: Classifier, tolerances: Tolerances, *, limit: int | None, work: Path, note: Note
) -> dict[str, Measured]:
    """By photo and condition (all but the benign input) both sides of the bounds, on the images as saved in 8 bit.

    Each photo is cached in ``work`` when it is done. An image whose integral does not come within its tolerance is
    unresolved, and so is the photo whose benign image does not. For the arguments see `bound_study`.

    Raises:
        InputError: an image of the run is missing or damaged, a number is not finite, or ``limit`` is below 1.
        BoundViolationError: an inequality that cannot fail has failed.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give a whole number of at least 1")
    photos = attacked(run.photos)[:limit]
    cache = Cache(work / cache_key(run, classifier.fingerprint(), tolerances), encode=_encoded, decode=_decoded)
    pieces = cache.get_or_make(
        photos,
        lambda photo: photo.key,
        lambda some: [_measured(run, classifier, photo, tolerances) for photo in some],
        made=lambda count: note(f"both sides of the bounds: photo {count} of {len(photos)}"),
    )
    return {photo.image_id: found for photo, found in pieces}


def _measured(run: Run, classifier: Classifier, photo: PlannedPhoto, tolerances: Tolerances) -> Measured:
    classes = {"label": photo.label, "target": photo.target}

    def picture(condition: Condition) -> torch.Tensor:
        return read_pngs([run.picture(photo, condition)], run.picture_shape, classifier.dtype)[0].to(classifier.device)

    found: dict[Condition, ImageBounds | None] = {c: None for c in run.plan.target_conditions if c != NONE}
    benign = picture(NONE)
    with calling([photo.image_id] * 4), suppress(IncompleteError):  # of whichever point of a pass
        before = logit_attributions(classifier, benign, **classes, tolerance=tolerances.logit)
        for condition in found:
            with suppress(IncompleteError):
                x = picture(condition)
                after = logit_attributions(classifier, x, **classes, tolerance=tolerances.logit)
                sides = proposition_1(classifier, benign, x, **classes, tolerance=tolerances.probability)
                found[condition] = ImageBounds(sides, two_class(before, after))
    return found


def _encoded(measured: Measured) -> dict[str, Any]:
    return {str(condition): None if found is None else asdict(found) for condition, found in measured.items()}


def _decoded(content: Any) -> Measured:
    return {
        Condition.parse(name): None if found is None else decoded(ImageBounds, found) for name, found in content.items()
    }


def cells_of(rows: Sequence[Row], measured: Mapping[str, Measured]) -> list[BoundCell]:
    """A cell per condition and interpreter of the photos ``measured``; an attack on interpreters only as these show it.

    Everything is compared with benign noise on the same photo: where that is unresolved, so is the photo.
    """
    found: dict[tuple[Condition, str], tuple[list[MeasuredMap], list[str]]] = {}
    for row in sorted(rows, key=lambda row: row.image_id):
        here, condition = measured.get(row.image_id, {}), row.condition
        if condition in here and (not condition.is_joint or condition.is_own(row.interpreter)):
            images, unresolved = found.setdefault((condition, row.interpreter), ([], []))
            bounds, noise = here[condition], here[NOISE]
            if bounds is None or noise is None:
                unresolved.append(row.image_id)
            else:
                images.append(MeasuredMap(row, bounds, noise))
    return [BoundCell(*key, tuple(images), tuple(names)) for key, (images, names) in found.items()]


def record_of(cell: BoundCell) -> BoundRecord:
    """The row of a cell."""
    kept = cell.counted
    propositions = [i.bounds.proposition for i in kept]
    classes = [(i.bounds.classes, i.noise.classes) for i in kept]
    noise = torch.tensor([i.noise.classes.discrepancy for i in cell.images], dtype=torch.float64)
    threshold = float(torch.quantile(noise, 1 - FALSE_ALARMS)) if cell.images else 0.0
    compared = len(kept) if cell.condition != NOISE else 0
    above_noise, caught = (
        sum(c.discrepancy > n.discrepancy for c, n in classes[:compared]),
        sum(c.discrepancy > threshold for c, _ in classes[:compared]),
    )
    ratios = [c.discrepancy / c.half_margin for c, _ in classes if c.half_margin > 0]
    every = [i.bounds.proposition for i in cell.images]
    norms, maps = [p.interpretation for p in propositions], [i.row.l1_8bit for i in kept]
    distances = {"attr": norms, "l1": maps}
    counts = [
        sum(
            p.prediction >= gain and distance <= most for p, distance in zip(propositions, distances[name], strict=True)
        )
        for name, limits in LIMITS.items()
        for gain in GAINS
        for most in limits
    ]
    return BoundRecord(
        condition=cell.condition,
        map=cell.map,
        n=len(kept),
        failed=len(cell.images) - len(kept),
        unresolved=len(cell.unresolved),
        unresolved_photos=printable(", ".join(cell.unresolved)) or None,
        prediction=bootstrap_mean([p.prediction for p in propositions]),
        attribution=bootstrap_mean(norms),
        slack=bootstrap_mean([p.slack for p in propositions]),
        least_slack=min((p.slack for p in every), default=None),
        residual=max((p.residual for p in every), default=None),
        l1=bootstrap_mean(maps),
        rho=rank_correlation(norms, maps),
        half_margin=bootstrap_mean([c.half_margin for c, _ in classes]),
        two_class=bootstrap_mean([c.discrepancy for c, _ in classes]),
        times=median(ratios) if ratios else None,
        above_noise=wilson(above_noise, compared),
        caught=wilson(caught, compared),
        effective=dict(zip(_COUNTS, counts, strict=True)),
    )


def judge(cells: Sequence[BoundCell], records: Sequence[BoundRecord]) -> tuple[Claim, Claim, Claim]:
    """That the bound holds, that it explains the conflict, and that the measure over two classes finds attacks.

    Where no back-propagation interpreter was attacked, or no attack reached its label, the latter are not decided.
    """
    back, _ = by_family(records)
    reached = _attacks(records)
    rhos, caught = {_key(record): record.rho for record in back}, {str(r.condition): r.caught for r in reached}
    return (
        Claim(
            "proposition-1",
            "Of every image ℓ_prd is at most ‖Δm‖₁, up to the tolerance.",
            Verdict.HOLDS,
            {_key(record): record.slack for record in records},
            len({image.row.image_id for cell in cells for image in cell.images}),
        ),
        Claim.over(
            "conflict",
            "Under attacks on back-propagation interpreters, images with a larger ‖Δm‖₁ have maps further from the "
            "benign ones.",
            together(map(above, rhos.values())),
            rhos,
        ),
        Claim.over(
            "noise-threshold",
            "One threshold on D tells attacked images from those under benign noise.",
            together(above(share, 1 - 2 * FALSE_ALARMS) for share in caught.values()),
            caught,
        ),
    )


def _key(record: BoundRecord) -> str:
    return f"{record.condition}/{record.map}"


def by_family(records: Sequence[BoundRecord]) -> tuple[list[BoundRecord], list[BoundRecord]]:
    """The attacks on a back-propagation interpreter, and those on others."""
    families = {name: cls.family for name, cls in known_interpreters().items()}
    joint = [record for record in records if record.condition.is_joint]
    back = [record for record in joint if families.get(record.map) == BACK_PROPAGATION]
    return back, [record for record in joint if record not in back]


def _attacks(records: Sequence[BoundRecord]) -> list[BoundRecord]:
    """One record per attack that reached its label: what is taken from it does not depend on the interpreter."""
    found: dict[Condition, BoundRecord] = {}
    for record in records:
        if record.n and not record.condition.is_control:
            found.setdefault(record.condition, record)
    return list(found.values())


def words_of(
    cells: Sequence[BoundCell],
    records: Sequence[BoundRecord],
    claims: tuple[Claim, Claim, Claim],
    tolerances: Tolerances,
    *,
    left_out: int,
    alike: frozenset[Condition],
) -> str:
    """The words, from ``cells`` of which one has an image, their rows, and what `judge` says of them.

    ``left_out`` photos were attacked and not measured at all; conditions that are ``alike`` may be compared with PGD.
    """
    images = {(cell.condition, i.row.image_id): i for cell in cells for i in cell.images}
    every = [image.bounds for image in images.values()]
    reached, high = _attacks(records), max(GAINS)
    back, others = by_family(records)
    _, conflict, threshold = claims
    attacks = [r for r in records if r.condition != NOISE]
    joint, pgd = ([r for r in attacks if (r.condition == PGD) == alone] for alone in (False, True))

    def within(some: Sequence[BoundRecord], distance: Literal["attr", "l1"]) -> str:
        """On how many images of ``some`` the prediction changed and the distance is within its limits."""
        return _slashed(
            [sum(r.effective[effective_count(high, distance, most)] for r in some) for most in LIMITS[distance]]
        )

    return written(
        "underfire.studies",
        "bound.md.jinja",
        images=len(every),
        photos=len({photo for _, photo in images}),
        left_out=left_out,
        residual=f"{max(b.proposition.residual for b in every):.1g}",
        tolerance=f"{tolerances.probability:g}",
        points=f"{median(b.proposition.points for b in every):.0f}",
        unsettled=max(
            (abs(p.coarse / p.interpretation - 1) for p in (b.proposition for b in every) if p.interpretation > 0),
            default=0.0,
        ),
        unresolved=_unresolved(cells),
        gain=f"{high:g}",
        reached=reached,
        attributions=_slashed(LIMITS["attr"]),
        distances=_slashed(LIMITS["l1"]),
        within=within(reached, "attr"),
        near=[
            (within(some, "l1"), who, some)
            for who, some in (("of the attacked maps", joint), ("of those under PGD", pgd))
            if some
        ],
        conflict=conflict.verdict,
        back=[(record, _minus_pgd(record, cells, alike)) for record in back],
        others=[(record, _minus_pgd(record, cells, alike)) for record in others],
        class_residual=f"{max(b.classes.residual for b in every):.2g}",
        measured=[record for record in reached if record.times is not None],
        noise=next((record for record in records if record.condition == NOISE), None),
        threshold=threshold.verdict,
    )


def _unresolved(cells: Sequence[BoundCell]) -> dict[str, object]:
    """How many images are left out, and the first of their photos by name; the table has all."""
    photos: dict[str, list[str]] = {}
    for condition, photo in dict.fromkeys((cell.condition, photo) for cell in cells for photo in cell.unresolved):
        photos.setdefault(photo, []).append(condition.title)
    named = [f"{shortened(photo)} ({', '.join(some)})" for photo, some in sorted(photos.items())[:_NAMED]]
    return {"images": sum(map(len, photos.values())), "named": named, "more": len(photos) - len(named)}


def _minus_pgd(record: BoundRecord, cells: Sequence[BoundCell], alike: frozenset[Condition]) -> Estimate | None:
    """‖Δm‖₁ minus that of PGD on the same photos, None where the two cannot be compared."""

    def norms(condition: Condition, name: str | None = None) -> dict[str, float]:
        return {
            i.row.image_id: i.bounds.proposition.interpretation
            for cell in cells
            if cell.condition == condition and condition in alike and name in (None, cell.map)
            for i in cell.images
            if i.row.success_8bit
        }

    own, pgd = norms(record.condition, record.map), norms(PGD)
    photos = [photo for photo in own if photo in pgd]
    return bootstrap_paired([own[photo] for photo in photos], [pgd[photo] for photo in photos]) if photos else None


def _slashed(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)


def _figure(cells: Sequence[BoundCell]) -> str:
    """One SVG. Left ‖Δm‖₁ over ℓ_prd, right the measure over two classes over its bound; hollow: label missed."""
    shown: dict[Condition, BoundCell] = {}
    for cell in cells:
        if cell.images:
            shown.setdefault(cell.condition, cell)
    every = [image.bounds for cell in shown.values() for image in cell.images]
    figure = plots.blank(8.4, 4.4)
    left, right = (plots.axes_of(figure, (x, 0.3, 0.4, 0.64)) for x in (0.08, 0.58))
    _draw(left, shown.values(), lambda b: (b.proposition.prediction, b.proposition.interpretation))
    top = max(b.proposition.interpretation for b in every)
    left.plot([0, 1], [0, 1], color=svg.INK, linewidth=1)
    left.set_xlim(-0.05, 1.08)
    left.set_ylim(-0.03 * top, max(top, 1.0) * 1.06)
    plots.label_axes(left, x="ℓ_prd, change of the probability", y="‖Δm‖₁, norm of the attribution")
    _draw(right, shown.values(), lambda b: (max(b.classes.half_margin, _LEAST), b.classes.discrepancy))
    end = 2 * max(max(b.classes.half_margin for b in every), _LEAST)
    right.plot([_LEAST, end], [_LEAST, end], color=svg.INK, linewidth=1)
    right.set_xscale("log")
    right.set_yscale("log")
    plots.label_axes(right, x="half the change of the margin (logits)", y="D, measure over two classes (logits)")
    plots.legend_below(figure, left)
    medians = ". ".join(_medians(cell) for cell in shown.values())
    said = f"Up to the tolerances every image lies above the lines of equal sides. Medians. {medians}."
    return svg.inline(figure, name="bound", description=said)


def _draw(axes: Axes, cells: Iterable[BoundCell], place: Callable[[ImageBounds], tuple[float, float]]) -> None:
    series = []
    for cell in cells:
        solid, hollow = (
            tuple(place(i.bounds) for i in cell.images if (i.row.success_8bit or cell.condition == NOISE) == reached)
            for reached in (True, False)
        )
        colour = {NOISE: svg.NOISE, PGD: svg.PGD}.get(cell.condition, svg.ADV2)
        series.append(plots.Points(cell.condition.title, colour, solid, hollow))
    plots.scatter(axes, series)


def _medians(cell: BoundCell) -> str:
    def middle(value: Callable[[ImageBounds], float]) -> float:
        values = sorted(value(image.bounds) for image in cell.images)
        return values[len(values) // 2]

    return (
        f"{cell.condition.title}: ℓ_prd {middle(lambda b: b.proposition.prediction):.2f}, "
        f"‖Δm‖₁ {middle(lambda b: b.proposition.interpretation):.2f}, "
        f"half the margin {middle(lambda b: b.classes.half_margin):.1f}, "
        f"D {middle(lambda b: b.classes.discrepancy):.0f}"
    )
