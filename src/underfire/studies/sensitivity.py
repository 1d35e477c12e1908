"""Sensitivity by random points, as published, beside what an attack finds in the same ball.

Captum's ``sensitivity_max`` and Quantus' ``MaxSensitivity`` take the largest change of a map at a few random points for
the largest there is within a radius. That largest change is what an attack on the map looks for, with the label kept.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from underfire.attacks import MapAttack
from underfire.attacks.map_sensitivity import RADIUS, SAMPLES, Sensitivity, sensitivity
from underfire.auditing.cache import Cache, facts_key
from underfire.auditing.look import calling
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import PASSES, AuditPlan, PlannedPhoto
from underfire.decoding import decoded
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import load_photo
from underfire.images.png import from_8bit
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.parsing import count, number
from underfire.present import svg
from underfire.present.plots import ForestBlock, ForestRow, forest
from underfire.present.tables import to_arrow
from underfire.present.text import interpreter_title
from underfire.present.words import written
from underfire.stats import Estimate, Share, bootstrap_mean, median, wilson
from underfire.studies.observers import weights_of
from underfire.studies.options import StudySource, option
from underfire.studies.reruns import taking_part
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Claim, Study, Verdict, majority, together

CLAIM = (
    "How far a map can move within a small distance of a photo is seen at a few random points there: max-sensitivity "
    "is estimated by sampling (Yeh et al. 2019, as Captum and Quantus compute it)."
)

TWICE = 2.0
"""The factor up to which random points see what there is to see, roughly."""


@dataclass(frozen=True)
class SensitivityOptions:
    """What ``underfire study sensitivity`` takes beside the options of an audit."""

    radius: float = option(RADIUS, help="By so much each pixel value may change, of [0, 1].", parse=number, metavar="R")
    samples: int = option(SAMPLES, help="Random points for each photo.", parse=count, metavar="N")


@dataclass(frozen=True)
class PhotoSensitivity:
    """The figures of one photo, as in `Sensitivity`."""

    sampled: float
    attacked: float
    sampled_lipschitz: float
    attacked_lipschitz: float
    points_kept: float
    label_kept: bool

    @property
    def factor(self) -> float | None:
        """By how much the attack found more; None where sampling saw no change and the attack did."""
        if self.attacked == self.sampled:
            return 1.0
        return self.attacked / self.sampled if self.sampled else None

    @property
    def beyond(self) -> bool:
        """The attack found more than twice as much."""
        return self.attacked > TWICE * self.sampled


@dataclass(frozen=True)
class SensitivityRow:
    """One interpreter: medians over ``n`` photos, but for ``points_kept``, a mean.

    ``beyond`` are photos whose factor is above `TWICE`; the factor is of those on which sampling saw a change.
    """

    interpreter: str
    n: int
    sampled: Estimate
    attacked: Estimate
    factor: Estimate
    factor_least: float | None
    factor_most: float | None
    beyond: Share
    sampled_lipschitz: Estimate
    attacked_lipschitz: Estimate
    points_kept: Estimate
    label_kept: Share
    verdict: Verdict


def study(source: StudySource, options: SensitivityOptions) -> Study:
    """The study as the command line calls it."""
    for name in ("attacks", "goals"):
        source.refuse(name, "runs an attack of its own")
    source.refuse("eps", "has its budget by --radius")
    source.refuse("perturbation", "changes pixel values")
    source.refuse("steps", "counts passes")
    planned = source.planned()
    return sensitivity_study(
        planned.plan, planned.photos, planned.classifier, options, work=source.work, note=source.note,
        skipped=planned.skipped,
    )  # fmt: skip


def sensitivity_study(
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    classifier: Classifier,
    options: SensitivityOptions,
    *,
    work: Path,
    note: Note = quiet,
    skipped: int = 0,
) -> Study:
    """Measures the sensitivity of the maps of ``photos`` for each of the plan's interpreters.

    Args:
        plan: interpreters, passes, seed and batch size; its own attacks play no part.
        photos: all of an audit; those that it would exclude are left out and counted.
        classifier: the plan's.
        options: radius and samples.
        work: a folder for the figures of each photo; what is there is not measured again.
        note: reports progress.
        skipped: how many files beside ``photos`` could not be used; the words tell.

    Raises:
        InputError: the plan, an option or a photo cannot be used.
    """
    interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    passes = PASSES[plan.preset] if plan.passes is None else plan.passes
    rows = []
    for interpreter in interpreters:
        found = _measured(interpreter, attacked(photos), plan, options, passes, work, note)
        rows.append(row_of(interpreter.name, found, tests=len(interpreters)))
    claims = _claims(rows)
    return Study(
        name="sensitivity",
        title="Sensitivity of maps: random points and an attack",
        claim=CLAIM,
        claims=claims,
        table=to_arrow(rows, SensitivityRow),
        figure=_figure(rows),
        words=_words(rows, options, passes, taking_part(photos, skipped)),
    )


# Collect


def _measured(
    interpreter: Interpreter,
    photos: Sequence[PlannedPhoto],
    plan: AuditPlan,
    options: SensitivityOptions,
    passes: int,
    work: Path,
    note: Note,
) -> list[PhotoSensitivity]:
    """The figures of ``photos``, from ``work`` where they are there."""
    facts = (options, passes, plan.seed, weights_of(interpreter), interpreter.classifier.fingerprint())
    version = (Sensitivity.version, MapAttack.version)
    cache = Cache(
        work / interpreter.name / facts_key(version, *facts), encode=asdict, decode=partial(decoded, PhotoSensitivity)
    )
    title = interpreter_title(interpreter.name)
    pieces = cache.get_or_make(
        photos,
        lambda photo: facts_key(photo.image_id, photo.sha256),
        lambda some: _measure(interpreter, some, options, passes, plan.seed),
        size=plan.batch_size,
        made=lambda done: note(f"{title}: photo {done} of {len(photos)}"),
    )
    return [one for _, one in pieces]


def _measure(
    interpreter: Interpreter, photos: Sequence[PlannedPhoto], options: SensitivityOptions, passes: int, seed: int
) -> list[PhotoSensitivity]:
    classifier = interpreter.classifier
    loaded = [load_photo(photo.file, classifier.preprocessing) for photo in photos]
    changed = next((photo for photo, pixels in zip(photos, loaded, strict=True) if pixels.sha256 != photo.sha256), None)
    if changed is not None:
        raise InputError(f"photo {quoted(changed.file)} is another one than before; put it back")
    x = from_8bit(torch.stack([pixels.pixels for pixels in loaded]), classifier.dtype).to(classifier.device)
    y = torch.tensor([photo.label for photo in photos], device=classifier.device)
    names = [photo.image_id for photo in photos]
    with calling(names):
        found = sensitivity(
            interpreter, x, y, radius=options.radius, samples=options.samples, passes=passes, seed=seed, keys=names
        )
    columns = (
        found.sampled, found.attacked, found.sampled_lipschitz, found.attacked_lipschitz,
        found.sampled_kept, found.label_kept,
    )  # fmt: skip
    return [PhotoSensitivity(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def row_of(interpreter: str, photos: Sequence[PhotoSensitivity], *, tests: int) -> SensitivityRow:
    """The figures of ``photos``, whose verdict is one of so many ``tests``."""
    n = len(photos)
    factors = [factor for one in photos if (factor := one.factor) is not None]
    beyond = wilson(sum(one.beyond for one in photos), n)
    return SensitivityRow(
        interpreter=interpreter,
        n=n,
        sampled=median([one.sampled for one in photos]),
        attacked=median([one.attacked for one in photos]),
        factor=median(factors),
        factor_least=min(factors, default=None),
        factor_most=max(factors, default=None),
        beyond=beyond,
        sampled_lipschitz=median([one.sampled_lipschitz for one in photos]),
        attacked_lipschitz=median([one.attacked_lipschitz for one in photos]),
        points_kept=bootstrap_mean([one.points_kept for one in photos]),
        label_kept=wilson(sum(one.label_kept for one in photos), n),
        verdict=majority(n - beyond.k, n, tests=tests),
    )


# Judge, and words


def _claims(rows: Sequence[SensitivityRow]) -> tuple[Claim, ...]:
    """Whether random points find at least half of what the attack finds: on every interpreter, and on each."""
    whole = "Random points find at least half of the change that an attack finds, on every interpreter."
    shares = {interpreter_title(row.interpreter): row.beyond for row in rows}
    claims = [Claim.over("sampled", whole, together(row.verdict for row in rows), shares)]
    for row in rows:
        statement = f"Random points find at least half of the change of {interpreter_title(row.interpreter)}."
        figures = {"sampled": row.sampled, "attacked": row.attacked, "factor": row.factor, "beyond": row.beyond}
        claims.append(Claim(f"sampled/{row.interpreter}", statement, row.verdict, figures, row.n))
    return tuple(claims)


def _words(rows: Sequence[SensitivityRow], options: SensitivityOptions, passes: int, taking: str) -> str:
    by_verdict = {
        verdict: [interpreter_title(row.interpreter) for row in rows if row.verdict is verdict] for verdict in Verdict
    }
    orders = {
        name: [
            interpreter_title(row.interpreter) for row in sorted(rows, key=lambda row: getattr(row, name).value or 0.0)
        ]
        for name in ("sampled", "attacked")
    }
    return written(
        "underfire.studies",
        "sensitivity.md.jinja",
        by_verdict={verdict: some for verdict, some in by_verdict.items() if some},
        orders=orders if len(rows) > 1 else {},
        taking_part=taking,
        options=options,
        passes=passes,
        rows=rows,
        twice=f"{TWICE:g}",
    )


# Figure


def _figure(rows: Sequence[SensitivityRow]) -> str:
    """An SVG: for each interpreter the median change at random points and under the attack."""
    blocks = [
        ForestBlock(
            interpreter_title(row.interpreter),
            (
                ForestRow("random points", row.sampled, svg.NOISE),
                ForestRow("attack", row.attacked, svg.ADV2, note=_times(row), strong=True),
            ),
        )
        for row in rows
    ]
    names = ", ".join(interpreter_title(row.interpreter) for row in rows)
    return forest(
        blocks,
        label="change of the map, ‖g(x′) − g(x)‖ / ‖g(x)‖, median",
        name="sensitivity",
        description=f"The median change of {names} at random points and under an attack; the table has the numbers.",
    )


def _times(row: SensitivityRow) -> str:
    return "" if row.factor.value is None else f"× {row.factor.value:.1f}"
