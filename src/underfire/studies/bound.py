"""Proposition 1: does a change of the prediction force a change of the explanation?"""

from pathlib import Path

from underfire.errors import InputError
from underfire.images.files import quoted
from underfire.models.classifier import Classifier
from underfire.studies.bound_cells import cells_of, line_of, table
from underfire.studies.bound_figure import bound_figure
from underfire.studies.bound_sides import Tolerances, sides_of
from underfire.studies.bound_words import CLAIM, bound_words
from underfire.studies.cells import comparable
from underfire.studies.source import Note, Run, attacked, quiet
from underfire.studies.study import Study

TOLERANCE = 0.01
"""Of the integrals in Proposition 1, in units of probability."""

LOGIT_TOLERANCE = 1.0
"""Of those from a black image to a photo, in units of the logits; their norms are in the thousands."""


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
        note: is told of every photo.

    Raises:
        InputError: ``run`` has no attack on an interpreter, an image is missing, or no image is resolved.
        BoundViolationError: ℓ_prd is above ‖Δm‖₁, or the measure over two classes below its bound, by more than the
            tolerance. Attributions that are complete exclude both, so it is a mistake in this code.
    """
    photos = attacked(run.photos)
    if not any(row.condition.is_joint for row in run.records):
        raise InputError(
            f"the run {quoted(run.path)} has no attack on an interpreter; run an audit with --attacks pgd,adv2"
        )
    tolerances = Tolerances(tolerance, logit_tolerance)
    sides = sides_of(run, classifier, tolerances, limit=limit, work=work, note=note)
    order = [str(c) for c in run.plan.conditions]
    cells = dict(sorted(cells_of(run.records, sides).items(), key=lambda item: order.index(item[0][0])))
    images = {key: some for key, (some, _) in cells.items() if some}
    if not images:
        raise InputError(
            f"no image of the run {quoted(run.path)} has integrals that are complete within the tolerances "
            f"{tolerance:g} and {logit_tolerance:g} (of logits); give larger ones, or where that does not help, see "
            "whether the model's gradients are those of its output"
        )
    lines = [line_of(*key, some, unresolved) for key, (some, unresolved) in cells.items()]
    return Study(
        name="bound",
        title="Does a change of the prediction force a change of the explanation?",
        claim=CLAIM,
        claims=(),
        table=table(lines),
        figure=bound_figure(images),
        words=bound_words(
            images,
            lines,
            tolerances,
            unresolved={key: names for key, (_, names) in cells.items() if names},
            left_out=len(photos) - len(sides),
            alike=frozenset(map(str, comparable(run.records))),
        ),
    )
