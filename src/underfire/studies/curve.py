"""Security curves: the share of photos on which label and map are reached, as the budget grows.

One budget hides what a curve shows. Of every photo the smallest change is found with which the saved image has the
target class and the map stays (`underfire.attacks.MinimumNorm`); the share of photos with a change of at most ε is the
joint success rate at the budget ε, for every ε at once. The area under the curve, as a share of its largest, is the
mean over photos of what is left of the largest budget; it is 1 where no change is needed.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import torch

from underfire.attacks import MinimumNorm
from underfire.attacks.goals import THRESHOLD
from underfire.attacks.minimum_norm import PASSES
from underfire.attacks.perturbations.norms import NORMS, NormName
from underfire.auditing.cache import Cache
from underfire.auditing.look import calling
from underfire.auditing.names import make_interpreters, make_perturbation
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.summary import KEPT_IOU
from underfire.defenses.ensemble import settings_of
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import PhotoLoader
from underfire.images.png import from_8bit
from underfire.models.classifier import Classifier
from underfire.parsing import budgets
from underfire.present import svg
from underfire.present.plots import axes_of, blank, label_axes, mark
from underfire.present.tables import to_arrow
from underfire.present.text import budget, interpreter_title
from underfire.present.words import written
from underfire.stats import NO_ESTIMATE, Estimate, Share, bootstrap_mean, median, wilson
from underfire.studies.options import StudySource, option
from underfire.studies.reruns import taking_part
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, majority, together

CLAIM = (
    "An attack is judged at one budget, as a rule 8/255 in L∞ (Zhang et al. 2020 take 0.031). How much less would do "
    "is a question that the paper leaves open."
)

_SHARES = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the default budget: 1, 2, 4, 8, 16 /255 for L∞
_TO_8BIT_EPS = 1e-9  # relative; so that k/255 written as a decimal is that


@dataclass(frozen=True)
class CurveOptions:
    """What ``underfire study curve`` takes beside the options of an audit."""

    norm: NormName = option("linf", help="What is to be small.", choices=tuple(NORMS))
    grid: tuple[float, ...] | None = option(
        None,
        help="Budgets at which the curve is tabulated, rising, comma-separated; it ends at the last.",
        parse=budgets,
        metavar="VALUES",
        shown_default="five around the norm's default budget",
    )


@dataclass(frozen=True)
class SmallestChange:
    """The change of one photo, infinite where none was found up to the end of the curve, and what finding it took."""

    eps: float
    passes: int


@dataclass(frozen=True, kw_only=True)
class CurveRow:
    """A row of the table: of a ``point`` the rate at the budget ``eps``, of a ``curve`` what sums it up.

    ``median`` is the budget at which half of the photos are reached; it has no value beyond the end of the curve.
    """

    kind: Literal["point", "curve"]
    interpreter: str
    norm: NormName
    eps: float
    n: int
    jsr: Share
    area: Estimate = NO_ESTIMATE
    median: Estimate = NO_ESTIMATE
    passes: float | None = None


@dataclass(frozen=True)
class Curve:
    """What was found on one interpreter, by photo, and its rows of the table."""

    interpreter: str
    changes: Mapping[str, SmallestChange]
    points: tuple[CurveRow, ...]
    whole: CurveRow

    @property
    def title(self) -> str:
        """The interpreter, as the literature writes it."""
        return interpreter_title(self.interpreter)


def study(source: StudySource, options: CurveOptions) -> Study:
    """The study as the command line calls it."""
    for name in ("attacks", "perturbation", "eps", "steps"):
        source.refuse(name, "looks for the smallest change; --norm and --grid say of what kind and up to where")
    planned = source.planned()
    return curve_study(
        planned.plan, planned.photos, planned.classifier, work=source.work, note=source.note,
        norm=options.norm, grid=options.grid, passes=source.plan.passes or PASSES, skipped=planned.skipped,
    )  # fmt: skip


def curve_study(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    *,
    work: Path,
    note: Note = quiet,
    norm: NormName = "linf",
    grid: Sequence[float] | None = None,
    passes: int = PASSES,
    skipped: int = 0,
) -> Study:
    """Finds the smallest joint change of ``photos`` on each of the plan's interpreters, and draws the curves.

    Args:
        plan: interpreters, seed and batch size are taken from it.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        work: a folder for what is found, photo by photo; what is there is not looked for again.
        note: reports progress.
        norm: of the changes.
        grid: budgets at which the curve is tabulated, rising; None for five around the norm's default budget.
        passes: for each photo and interpreter.
        skipped: how many files beside ``photos`` could not be used; the words tell.

    Raises:
        InputError: the grid is none, or a photo cannot be used or is no longer what it was.
    """
    default = make_perturbation(norm, None).eps
    values = _checked([share * default for share in _SHARES] if grid is None else grid, norm)
    chosen = attacked(photos)
    curves = []
    for interpreter in make_interpreters(plan.interpreters, classifier, rts=plan.rts):
        attack = MinimumNorm(interpreter, norm=norm, iou=KEPT_IOU, eps=values[-1], passes=passes, seed=plan.seed)
        found = _found(attack, chosen, work, plan.batch_size, note)
        curves.append(curve_of(interpreter.name, norm, found, values))
    claims = _claims(curves, norm, default)
    return Study(
        name="curve",
        title="The smallest change that reaches label and map",
        claim=CLAIM,
        claims=claims,
        table=to_arrow([row for curve in curves for row in (*curve.points, curve.whole)], CurveRow),
        figure=_figure(curves, norm),
        words=_words(curves, claims, norm, passes, taking_part(photos, skipped)),
    )


# Collect


def _checked(grid: Sequence[float], norm: NormName) -> tuple[float, ...]:
    """The budgets of a ``grid`` that is one."""
    shown = ", ".join(f"{value:g}" for value in grid)
    if not grid or not all(a < b for a, b in pairwise(grid)):
        raise InputError(f"grid '{shown}' is no curve; give budgets, each larger than the one before")
    for value in grid:
        make_perturbation(norm, value)  # refuses what is none
    return tuple(map(float, grid))


def _found(
    attack: MinimumNorm, photos: Sequence[PlannedPhoto], work: Path, size: int, note: Note
) -> dict[str, SmallestChange]:
    """The smallest change of every photo, by its name, from ``work`` where it stands there already."""
    (interpreter,) = attack.interpreters
    facts = (attack.version, attack.classifier.fingerprint(), settings_of(interpreter))
    key = _hash(*facts, attack.norm.name, attack.eps, attack.passes, attack.seed)
    cache = Cache(work / f"{interpreter.name}-{key}", encode=_encoded, decode=_decoded)
    loader, title = PhotoLoader(attack.classifier.preprocessing), interpreter_title(interpreter.name)
    pieces = cache.get_or_make(
        photos,
        lambda photo: _hash(photo.image_id, photo.sha256, photo.label, photo.target),
        lambda some: _searched(attack, some, loader),
        size=size,
        made=lambda count: note(f"{title}: photo {count} of {len(photos)}"),
    )
    return {photo.image_id: change for photo, change in pieces}


def _searched(attack: MinimumNorm, photos: Sequence[PlannedPhoto], loader: PhotoLoader) -> list[SmallestChange]:
    loaded = [loader.load(photo.file) for photo in photos]
    changed = next((p for p, pixels in zip(photos, loaded, strict=True) if pixels.sha256 != p.sha256), None)
    if changed is not None:
        raise InputError(f"photo {quoted(changed.file)} is damaged, or another one than before; put it back")
    classifier, names = attack.classifier, [photo.image_id for photo in photos]
    x = from_8bit(torch.stack([pixels.pixels for pixels in loaded]), classifier.dtype).to(classifier.device)
    label, target = (
        torch.tensor([getattr(photo, kind) for photo in photos], device=x.device) for kind in ("label", "target")
    )
    with calling(names):
        result = attack(x, target, label=label, keys=names)
    return [SmallestChange(*pair) for pair in zip(result.eps.tolist(), result.passes.tolist(), strict=True)]


def _hash(*facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _encoded(change: SmallestChange) -> Mapping[str, Any]:
    return asdict(change) | ({} if math.isfinite(change.eps) else {"eps": None})  # JSON has no infinity


def _decoded(kept: Any) -> SmallestChange:
    return SmallestChange(math.inf if kept["eps"] is None else float(kept["eps"]), int(kept["passes"]))


# Judge


def curve_of(interpreter: str, norm: NormName, changes: Mapping[str, SmallestChange], values: Sequence[float]) -> Curve:
    """The curve of ``changes`` up to the last of the budgets ``values``."""
    sizes, end, n = [change.eps for change in changes.values()], values[-1], len(changes)
    points = tuple(
        CurveRow(kind="point", interpreter=interpreter, norm=norm, eps=value, n=n, jsr=_rate(sizes, value))
        for value in values
    )
    half = median(sizes)
    whole = CurveRow(
        kind="curve",
        interpreter=interpreter,
        norm=norm,
        eps=end,
        n=n,
        jsr=_rate(sizes, end),
        area=bootstrap_mean([1 - min(size, end) / end for size in sizes]),
        median=Estimate(_finite(half.value), _finite(half.low), _finite(half.high), n),
        passes=sum(change.passes for change in changes.values()) / n,
    )
    return Curve(interpreter, changes, points, whole)


def _rate(sizes: Sequence[float], eps: float) -> Share:
    return wilson(sum(size <= eps * (1 + _TO_8BIT_EPS) for size in sizes), len(sizes))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _claims(curves: Sequence[Curve], norm: NormName, default: float) -> tuple[Claim, ...]:
    """That half of the default budget does, for each interpreter and for all, and for which of two less does."""
    shown, pairs = budget(default / 2, norm), list(combinations(curves, 2))
    single = []
    for curve in curves:
        share = _rate([change.eps for change in curve.changes.values()], default / 2)
        verdict = majority(share.k, share.n, len(curves))
        statement = f"On most photos {shown} is enough to choose the label and keep the map of {curve.title}."
        single.append(Claim(f"half/{curve.interpreter}", statement, verdict, {"JSR": share}, share.n))
    overall = Claim.over(
        "half",
        f"On most photos {shown} is enough to choose the label and keep the map, whatever the interpreter.",
        together(claim.verdict for claim in single),
        {curve.title: claim.estimates["JSR"] for curve, claim in zip(curves, single, strict=True)},
    )
    return (overall, *single, *(_easier(one, other, len(pairs)) for one, other in pairs))


def _easier(one: Curve, other: Curve, tests: int) -> Claim:
    """That less is enough for ``one`` than for ``other``, on the photos on which they differ."""
    sizes = [(one.changes[name].eps, other.changes[name].eps) for name in one.changes if name in other.changes]
    apart = [(a, b) for a, b in sizes if a != b]
    share = wilson(sum(a < b for a, b in apart), len(apart))
    return Claim(
        f"less/{one.interpreter}/{other.interpreter}",
        f"Where they differ, most photos need a smaller change on {one.title} than on {other.title}.",
        majority(share.k, share.n, tests),
        {"share": share},
        share.n,
    )


# Words


def _words(curves: Sequence[Curve], claims: Sequence[Claim], norm: NormName, passes: int, taking_part: str) -> str:
    return written(
        "underfire.studies",
        "curve.md.jinja",
        curves=curves,
        claims=claims,
        comparisons=[claim for claim in claims if claim.id.startswith("less/")],
        half=budget(make_perturbation(norm, None).eps / 2, norm),
        end=budget(curves[0].whole.eps, norm),
        shown=lambda eps: budget(eps, norm),
        norm={"linf": "L∞", "l2": "L2"}[norm],
        iou=KEPT_IOU,
        cut=THRESHOLD,
        passes=passes,
        taking_part=taking_part,
    )


# Figure


_PANEL_IN, _HEIGHT_IN, _LEFT_IN, _BOTTOM_IN, _TOP_IN, _GAP_IN, _COLUMNS = 2.0, 1.7, 0.6, 0.55, 0.3, 0.25, 3


def _figure(curves: Sequence[Curve], norm: NormName) -> str:
    """A panel per interpreter: the curve, and at the tabulated budgets its interval."""
    columns, rows = min(_COLUMNS, len(curves)), math.ceil(len(curves) / _COLUMNS)
    width = _LEFT_IN + columns * (_PANEL_IN + _GAP_IN)
    cell = _HEIGHT_IN + _TOP_IN + _BOTTOM_IN
    figure, unit = blank(width, rows * cell), 255 if norm == "linf" else 1
    for place, curve in enumerate(curves):
        row, column = divmod(place, _COLUMNS)
        left, bottom = _LEFT_IN + column * (_PANEL_IN + _GAP_IN), (rows - 1 - row) * cell + _BOTTOM_IN
        box = (left / width, bottom / (rows * cell), _PANEL_IN / width, _HEIGHT_IN / (rows * cell))
        axes, end = axes_of(figure, box), curve.whole.eps * unit
        sizes = sorted(change.eps * unit for change in curve.changes.values() if change.eps <= curve.whole.eps)
        steps = [(0.0, 0.0), *((size, (k + 1) / curve.whole.n) for k, size in enumerate(sizes))]
        steps.append((end, steps[-1][1]))
        axes.step(*zip(*steps, strict=True), where="post", color=svg.ADV2, linewidth=1.6, zorder=2)
        for point in curve.points:
            mark(axes, Estimate(point.eps * unit, None, None, point.n), point.jsr, svg.ADV2, solid=True, whisker=1.2,
                 alpha=0.6, edge=1.0)  # fmt: skip
        name = "ε in grey levels" if norm == "linf" else "ε, length in L2"
        label_axes(axes, x=name if place + _COLUMNS >= len(curves) else "", y="" if column else "JSR")
        axes.set_xlim(0, end * 1.03)
        axes.set_ylim(-0.03, 1.05)
        axes.set_title(curve.title, color=svg.INK, fontsize=10.5, loc="left")
    titles = ", ".join(curve.title for curve in curves)
    description = f"The share of photos with label and map reached, rising with the budget, for {titles}."
    return svg.inline(figure, name="curve", description=description)
