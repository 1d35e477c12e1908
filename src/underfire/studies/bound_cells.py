"""The table of the study of the bound: its columns, and what goes into a cell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import torch

from underfire.analysis.ranks import rank_correlation
from underfire.audit.rows import NO_SOURCE, Row
from underfire.audit.summary import CONTROLS
from underfire.metrics import bootstrap_mean, wilson
from underfire.studies.bound_sides import Sides
from underfire.studies.cells import spread

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
        failed: photos on which it did not; they are in ``residual``, ``least_slack`` and the counts alone.
        prediction: ℓ_prd, in units of probability.
        attribution: ‖Δm‖₁, in the same, summed over all values of the image.
        slack: ‖Δm‖₁ − ℓ_prd; ``least_slack`` is the least over all photos.
        residual: the largest completeness residual.
        l1: of the map, from the benign map.
        rho: the rank correlation of ‖Δm‖₁ and L1 over photos.
        half_margin: half the change of the margin between the two logits, the lower bound of ``two_class``.
        two_class: the measure over two classes, in units of the logits.
        times: the median of ``two_class`` over ``half_margin``.
        above_noise: the share of photos on which ``two_class`` is larger than under harmless noise.
        caught: the share on which it is larger than on all but `FALSE_ALARMS` of the images under noise. The threshold
            is taken from the same photos, which flatters it.
        effective: how many of the n + failed photos have ℓ_prd and a distance within a pair of thresholds.
    """

    condition: str
    map: str
    n: int
    failed: int
    prediction: float | None
    prediction_low: float | None
    prediction_high: float | None
    attribution: float | None
    attribution_low: float | None
    attribution_high: float | None
    slack: float | None
    slack_low: float | None
    slack_high: float | None
    least_slack: float
    residual: float
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


def images_of(rows: Sequence[Row], sides: Mapping[str, Mapping[str, Sides]]) -> dict[tuple[str, str], list[Image]]:
    """By condition and interpreter, the photos of ``sides``; of an attack on interpreters, only as these show it."""
    found: dict[tuple[str, str], list[Image]] = {}
    for row in sorted(rows, key=lambda row: row.image_id):
        measured = sides.get(row.image_id, {})
        general = row.condition in CONTROLS or row.source == NO_SOURCE
        if row.condition in measured and (general or row.interpreter in row.source.split("+")):
            image = Image(row.image_id, row.success_8bit, row.l1_8bit, measured[row.condition], measured[NOISE])
            found.setdefault((row.condition, row.interpreter), []).append(image)
    return found


def line_of(condition: str, interpreter: str, images: Sequence[Image]) -> Line:
    """The row of ``images``, one or more, that share a condition and an interpreter."""
    kept = counted(condition, images)
    threshold = float(torch.quantile(_numbers([i.noise.classes.discrepancy for i in images]), 1 - FALSE_ALARMS))
    two = [(i.sides.classes, i.noise.classes) for i in kept]
    ratios = [c.discrepancy / c.half_margin for c, _ in two if c.half_margin > 0]
    above, over = (sum(c.discrepancy > n.discrepancy for c, n in two), sum(c.discrepancy > threshold for c, _ in two))
    compared = condition != NOISE
    columns: dict[str, Any] = {
        **spread("prediction", bootstrap_mean([i.sides.proposition.prediction for i in kept])),
        **spread("attribution", bootstrap_mean([i.sides.proposition.interpretation for i in kept])),
        **spread("slack", bootstrap_mean([i.sides.proposition.slack for i in kept])),
        **spread("l1", bootstrap_mean([i.l1 for i in kept])),
        **spread("rho", rank_correlation([i.sides.proposition.interpretation for i in kept], [i.l1 for i in kept])),
        **spread("half_margin", bootstrap_mean([c.half_margin for c, _ in two])),
        **spread("two_class", bootstrap_mean([c.discrepancy for c, _ in two])),
        **spread("above_noise", wilson(above, len(kept)) if compared else wilson(0, 0)),
        **spread("caught", wilson(over, len(kept)) if compared else wilson(0, 0)),
    }
    return Line(
        condition=condition,
        map=interpreter,
        n=len(kept),
        failed=len(images) - len(kept),
        least_slack=min(i.sides.proposition.slack for i in images),
        residual=max(i.sides.proposition.residual for i in images),
        times=median(ratios) if ratios else None,
        effective=_effective(images),
        **columns,
    )


def counted(condition: str, images: Sequence[Image]) -> list[Image]:
    """Those of ``images`` that means are over: all under a control, else those that reached the label."""
    return [image for image in images if condition in CONTROLS or image.success]


def table(lines: Sequence[Line]) -> Any:
    """``lines`` as a pyarrow.Table; each count has a column."""
    hints = get_type_hints(Line)
    arrow = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    columns = []
    for name in (field.name for field in fields(Line) if field.name != "effective"):
        kinds = get_args(hints[name]) or (hints[name],)
        (kind,) = (k for k in kinds if k is not NoneType)
        columns.append(pa.field(name, arrow[kind], nullable=NoneType in kinds))
    counts = [pa.field(name, pa.int64(), nullable=False) for name in (lines[0].effective if lines else ())]
    rows = [{**asdict(line), **line.effective} for line in lines]
    for row in rows:
        del row["effective"]
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
