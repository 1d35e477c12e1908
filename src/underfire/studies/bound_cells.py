"""The table of the study of the bound: its columns, and what goes into a cell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import pyarrow as pa
import torch

from underfire.auditing.condition import Condition
from underfire.auditing.rows import Row
from underfire.images.files import printable
from underfire.stats import bootstrap_mean, rank_correlation, wilson
from underfire.studies.bound_sides import Measured, Sides
from underfire.studies.columns import fields_of_line, three

NOISE = "noise"

GAINS = (0.5, 0.9)
"""γ_prd: how much probability an effective attack moves at least."""
ATTRIBUTIONS = (1.0, 2.0, 4.0, 8.0)
"""γ_int: the most ‖Δm‖₁ it may have."""
DISTANCES = (0.05, 0.1, 0.2)
"""γ_int for the map that a person sees: the most L1 it may have."""

FALSE_ALARMS = 0.05
"""The share of images under harmless noise that a threshold on the measure over two classes lets through."""


@dataclass(frozen=True)
class Image:
    """One photo under one condition, as one interpreter shows it.

    Attributes:
        image_id: the photo.
        success: whether the prediction is the target.
        l1: between the map and the benign map, in [0, 1], as in the audit.
        sides: of the bounds.
        noise: the same photo under harmless noise.
    """

    image_id: str
    success: bool
    l1: float
    sides: Sides
    noise: Sides


@dataclass(frozen=True, kw_only=True)
class Line:
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
        above_noise: the share of photos on which ``two_class`` is larger than under harmless noise.
        caught: the share on which it is larger than on all but `FALSE_ALARMS` of the images under noise. The threshold
            is taken from the same photos, which flatters it.
        effective: how many of the n photos have ℓ_prd and a distance within a pair of thresholds.
    """

    condition: str
    map: str
    n: int
    failed: int
    unresolved: int
    unresolved_photos: str | None
    prediction: float | None
    prediction_low: float | None
    prediction_high: float | None
    attribution: float | None
    attribution_low: float | None
    attribution_high: float | None
    slack: float | None
    slack_low: float | None
    slack_high: float | None
    least_slack: float | None
    residual: float | None
    l1: float | None
    l1_low: float | None
    l1_high: float | None
    rho: float | None
    rho_low: float | None
    rho_high: float | None
    half_margin: float | None
    half_margin_low: float | None
    half_margin_high: float | None
    two_class: float | None
    two_class_low: float | None
    two_class_high: float | None
    times: float | None
    above_noise: float | None
    above_noise_low: float | None
    above_noise_high: float | None
    caught: float | None
    caught_low: float | None
    caught_high: float | None
    effective: Mapping[str, int]


def attribution_count(gain: float, most: float) -> str:
    """The column that counts ℓ_prd ≥ ``gain`` with ‖Δm‖₁ ≤ ``most``."""
    return f"prd>={gain:g} attr<={most:g}"


def distance_count(gain: float, most: float) -> str:
    """The column that counts ℓ_prd ≥ ``gain`` with an L1 of the map of at most ``most``."""
    return f"prd>={gain:g} l1<={most:g}"


Cell = tuple[list[Image], list[str]]
"""The photos of a condition as one interpreter shows them, and the names of those that are unresolved."""


def cells_of(rows: Sequence[Row], sides: Mapping[str, Measured]) -> dict[tuple[str, str], Cell]:
    """By condition and interpreter, the photos of ``sides``; of an attack on interpreters, only as these show it.

    Everything is compared with harmless noise on the same photo: where that is unresolved, so is the photo.
    """
    found: dict[tuple[str, str], Cell] = {}
    for row in sorted(rows, key=lambda row: row.image_id):
        measured = sides.get(row.image_id, {})
        condition = str(row.condition)
        if condition in measured and (not row.condition.is_joint or row.condition.is_own(row.interpreter)):
            images, unresolved = found.setdefault((condition, row.interpreter), ([], []))
            here, noise = measured[condition], measured[NOISE]
            if here is None or noise is None:
                unresolved.append(row.image_id)
            else:
                images.append(Image(row.image_id, row.success_8bit, row.l1_8bit, here, noise))
    return found


def line_of(condition: str, interpreter: str, images: Sequence[Image], unresolved: Sequence[str] = ()) -> Line:
    """The row of ``images`` that share a condition and an interpreter, and of the names of those ``unresolved``."""
    kept = counted(condition, images)
    noise = _numbers([i.noise.classes.discrepancy for i in images])
    threshold = float(torch.quantile(noise, 1 - FALSE_ALARMS)) if images else 0.0
    two = [(i.sides.classes, i.noise.classes) for i in kept]
    ratios = [c.discrepancy / c.half_margin for c, _ in two if c.half_margin > 0]
    above, over = (sum(c.discrepancy > n.discrepancy for c, n in two), sum(c.discrepancy > threshold for c, _ in two))
    compared = condition != NOISE
    columns: dict[str, Any] = {
        **three("prediction", bootstrap_mean([i.sides.proposition.prediction for i in kept])),
        **three("attribution", bootstrap_mean([i.sides.proposition.interpretation for i in kept])),
        **three("slack", bootstrap_mean([i.sides.proposition.slack for i in kept])),
        **three("l1", bootstrap_mean([i.l1 for i in kept])),
        **three("rho", rank_correlation([i.sides.proposition.interpretation for i in kept], [i.l1 for i in kept])),
        **three("half_margin", bootstrap_mean([c.half_margin for c, _ in two])),
        **three("two_class", bootstrap_mean([c.discrepancy for c, _ in two])),
        **three("above_noise", wilson(above, len(kept)) if compared else wilson(0, 0)),
        **three("caught", wilson(over, len(kept)) if compared else wilson(0, 0)),
    }
    return Line(
        condition=condition,
        map=interpreter,
        n=len(kept),
        failed=len(images) - len(kept),
        unresolved=len(unresolved),
        unresolved_photos=printable(", ".join(unresolved)) or None,
        least_slack=min((i.sides.proposition.slack for i in images), default=None),
        residual=max((i.sides.proposition.residual for i in images), default=None),
        times=median(ratios) if ratios else None,
        effective=_effective(kept),
        **columns,
    )


def counted(condition: str, images: Sequence[Image]) -> list[Image]:
    """Those of ``images`` that means are over: all under a control, else those that reached the label."""
    return [image for image in images if Condition.parse(condition).is_control or image.success]


def table(lines: Sequence[Line]) -> Any:
    """``lines`` as a pyarrow.Table; each count has a column."""
    counts = [pa.field(name, pa.int64(), nullable=False) for name in (lines[0].effective if lines else ())]
    rows = [{**asdict(line), **line.effective} for line in lines]
    for row in rows:
        del row["effective"]
    columns = fields_of_line(Line, without=("effective",))
    return pa.Table.from_pylist(rows, schema=pa.schema(columns + counts))


def _effective(images: Sequence[Image]) -> dict[str, int]:
    def count(gain: float, distances: Sequence[float], most: float) -> int:
        pairs = zip(images, distances, strict=True)
        return sum(i.sides.proposition.prediction >= gain and distance <= most for i, distance in pairs)

    norms, maps = [i.sides.proposition.interpretation for i in images], [i.l1 for i in images]
    return {
        **{attribution_count(gain, most): count(gain, norms, most) for gain in GAINS for most in ATTRIBUTIONS},
        **{distance_count(gain, most): count(gain, maps, most) for gain in GAINS for most in DISTANCES},
    }


def _numbers(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
