"""The figures of an audit, from its rows: each with its n, its exclusions and an interval.

An excluded photo is never counted. A figure "over successes" leaves failed attacks out, a figure "over all"
keeps them; both are given, as is and on the image saved as 8-bit PNG and read back. The summary depends on
the set of rows alone, not on their order. What a report shows photo by photo is in the rows; the summary has
only what needs several of them, so that its size does not grow with the photos.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from underfire.attacks.goals import MapWord
from underfire.auditing.agreement import MeasureAgreement
from underfire.auditing.condition import Condition
from underfire.auditing.distances import MapDistances, distances_of
from underfire.auditing.rows import Row
from underfire.diagnostics.attack_signs import Indicator
from underfire.diagnostics.map_checks import FaithfulnessFloor
from underfire.stats import NO_ESTIMATE, Estimate, Share

KEPT_IOU = 0.5
"""A map counts as kept when its IoU with the benign map (both binarised at 0.5) is at least this."""

TAUS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "kept": (0.25, KEPT_IOU, 0.75),
        "topk": (0.5, 0.25, 0.11),
        "l1": (0.5, 0.25, 0.11),
        "center": (0.1, 0.2, 0.3),
    }
)
"""The τ at which joint success rates are given, by what the map shall become, the mildest first.

A kept map has an IoU (cut at 0.5) of at least τ; of a moved one the top fifths have an IoU of at most τ, two random
fifths having 0.11, or the centre of mass is shifted by at least τ diagonals. The one in the middle is the headline's.
"""

SUMMARY_VERSION = 2
"""Raised when a field of the summary is removed or changes its meaning."""

MOST_NAMED = 50
"""So many excluded photos are named one by one; the rows have all of them."""

MOST_POINTS = 300
"""With more photos, a distribution has no points but their counts alone."""

BINS = 50
"""Steps of the range from 0 to 1 in which the photos of a distribution are counted."""

_NOT_IN_JSON = "not in JSON"

SEARCH = "square"
"""The attack without gradients that checks the others."""


@dataclass(frozen=True)
class Excluded:
    """A photo that was not attacked, and why."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class ExcludedFor:
    """How many photos were not attacked for one reason."""

    reason: str
    count: int


@dataclass(frozen=True)
class PhotoCounts:
    """How many photos the figures rest on. Files that could not be read are not here: they have no rows.

    ``attacked`` have at least one row of an attack; ``own_labels`` of all photos, and ``own_labels_attacked``
    of the attacked ones, had no label and took the model's own prediction. ``excluded`` are the first `MOST_NAMED`
    that were not attacked, ``reasons`` count all of them.
    """

    total: int
    attacked: int
    own_labels: int
    own_labels_attacked: int
    reasons: tuple[ExcludedFor, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True)
class OfAttack:
    """Something of one attack; in JSON its attack and source stand beside the condition."""

    condition: Condition


@dataclass(frozen=True)
class AttackFigures(OfAttack):
    """What one attack did to the prediction, over the photos it was run on.

    ``asr`` is the share whose prediction became the target; ``confidence`` the mean probability of the target
    over successes, ``confidence_all`` over all photos. ``passes`` (forward and backward) and ``seconds`` are
    per photo, ``steps`` the most that a photo took.
    """

    n: int
    asr: Share
    asr_8bit: Share
    confidence: Estimate
    confidence_all: Estimate
    confidence_8bit: Estimate
    confidence_8bit_all: Estimate
    linf: Estimate
    l2: Estimate
    steps: int
    passes: Estimate
    seconds: Estimate


@dataclass(frozen=True)
class Measure:
    """One distance between the maps of a cell and the benign maps; nothing succeeds under a control."""

    successes: Estimate
    every: Estimate
    successes_8bit: Estimate
    every_8bit: Estimate


@dataclass(frozen=True)
class Cell:
    """A cell of the transfer matrix: the maps of ``interpreter`` under ``condition``, against benign ones.

    ``own`` marks the diagonal (the attack was made on exactly this interpreter). ``l1_minus_pgd`` is the mean
    paired difference in L1 to PGD over the photos where both succeed (negative: nearer the benign map), and
    ``nearer_than_pgd_8bit`` on how many of these the saved image's map is nearer; None where the condition is no attack
    on an interpreter.
    """

    condition: Condition
    interpreter: str
    own: bool
    control: bool
    n: int
    distances: MapDistances[Measure]
    """None of a measure that the rows of this cell are too old for."""
    l1_minus_pgd: Estimate | None
    l1_minus_pgd_8bit: Estimate | None
    nearer_than_pgd_8bit: Share | None

    def mean(self, measure: str, *, eight_bit: bool = True) -> Estimate:
        """The figure that a table shows: over successes for an attack, over all photos for a control."""
        values = self.distances[measure]
        if values is None:
            return NO_ESTIMATE
        if self.control:
            return values.every_8bit if eight_bit else values.every
        return values.successes_8bit if eight_bit else values.successes


@dataclass(frozen=True)
class RateAt:
    """A joint success rate at one ``tau``, and that of noise of the same size, which nobody aimed."""

    tau: float
    jsr: Share
    noise: Share


@dataclass(frozen=True)
class GoalFigures:
    """How far an attack on one interpreter reached its goal, on the 8-bit image, over the photos that it was run on.

    ``label``: the label's part is met. ``rates``: both parts are, JSR@τ, for every τ of `TAUS`; of noise, which leaves
    labels alone, the share whose map would do, with a label as the goal wants it where that is to be kept.
    """

    condition: Condition
    goal: str
    interpreter: str
    n: int
    label: Share
    rates: tuple[RateAt, ...]

    @property
    def headline(self) -> RateAt | None:
        """The rate at the τ in the middle; None where the map is free."""
        return self.rates[len(self.rates) // 2] if self.rates else None


@dataclass(frozen=True)
class Headline:
    """What a decision-maker needs to know of one interpreter; all on the 8-bit image, over attacked photos.

    ``kept``: the attack on this interpreter chose the label and the map's IoU with the benign one is at least
    `KEPT_IOU`; ``kept_pgd``: PGD did so, without trying to. ``within_noise``: it chose the label and moved
    the map (L1) no more than harmless noise of the same size moves it on the same photo;
    ``within_noise_pgd``: PGD did so. ``faithfulness``: what the benign maps show of the model, without which the others
    say nothing of robustness; None where that was not looked at.
    """

    interpreter: str
    condition: Condition
    kept: Share
    kept_pgd: Share
    within_noise: Share
    within_noise_pgd: Share
    faithfulness: FaithfulnessFloor | None


@dataclass(frozen=True)
class Point:
    """One photo in a distribution."""

    image_id: str
    success: bool
    l1: float
    iou_50: float
    success_8bit: bool
    l1_8bit: float
    iou_50_8bit: float


@dataclass(frozen=True)
class Spread:
    """How a distance spreads over photos, from 0 to 1.

    Attributes:
        low, median, high: quartiles of the photos that a figure rests on; None without any.
        counts: of these photos, in `BINS` steps.
        missed: of the photos on which the attack missed its label, in the same steps.
    """

    low: float | None
    median: float | None
    high: float | None
    counts: tuple[int, ...]
    missed: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """The photos behind a cell, for plots: conditions noise, pgd and the attack on the interpreter itself.

    ``n`` photos are those that a figure rests on, for an attack those whose label was reached. All is of the saved
    image. ``points`` are the photos one by one, empty where there are more than `MOST_POINTS`.
    """

    condition: Condition
    interpreter: str
    n: int
    l1: Spread
    iou_50: Spread
    points: tuple[Point, ...] = field(metadata={_NOT_IN_JSON: True})


@dataclass(frozen=True)
class AttackSign(OfAttack):
    """On how many of the ``n`` photos that an attack was run on its course shows ``indicator``: ``k``."""

    indicator: Indicator
    k: int
    n: int


@dataclass(frozen=True)
class Comparison(OfAttack):
    """A search without gradients against an attack that follows them, on the ``n`` photos that both were run on.

    ``condition`` is that of the latter. ADV² on an interpreter is compared with the search on the same
    one, by label and map; PGD with all searches, by the label. ``better`` counts the photos on which the search did
    better (see `underfire.diagnostics.gradient_masking.lead`), ``reached`` those that it brought to the target class.
    """

    better: int
    reached: int
    n: int


@dataclass(frozen=True)
class Summary:
    """All figures of an audit.

    ``interpreters`` are those that maps were taken with, ``conditions`` the rows of the transfer matrix
    (none, noise, pgd, adv2-…), ``headlines`` one per interpreter that was attacked on its own, ``goals`` one per attack
    and interpreter that it was on, ``signs`` one per attack and indicator, those that no photo shows included,
    ``comparisons`` one per attack that a search without gradients checks, ``agreement`` whether all measures rank the
    interpreters alike, None for fewer than two that were attacked. ``level`` is that of every interval.
    """

    version: int
    level: float
    kept_iou: float
    photos: PhotoCounts
    interpreters: tuple[str, ...]
    conditions: tuple[Condition, ...]
    headlines: tuple[Headline, ...]
    goals: tuple[GoalFigures, ...]
    attacks: tuple[AttackFigures, ...]
    transfer: tuple[Cell, ...]
    distributions: tuple[Distribution, ...]
    signs: tuple[AttackSign, ...]
    comparisons: tuple[Comparison, ...]
    agreement: MeasureAgreement | None

    def attack(self, condition: Condition) -> AttackFigures | None:
        """The figures of one attack, None where it was not run."""
        return next((a for a in self.attacks if a.condition == condition), None)

    def cell(self, condition: Condition, interpreter: str) -> Cell | None:
        """One cell of the transfer matrix, None where it was not measured."""
        return next((c for c in self.transfer if (c.condition, c.interpreter) == (condition, interpreter)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, text, numbers and None: valid JSON, the same for the same rows."""
        return dict(_plain(self))


def _plain(value: Any) -> Any:
    """``value`` as JSON has it: conditions as text, the distances of a cell as fields of its own."""
    if isinstance(value, Condition):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for part in fields(value):
        item = getattr(value, part.name)
        if _NOT_IN_JSON not in part.metadata:
            found |= _plain(item) if isinstance(item, MapDistances) else {part.name: _plain(item)}
        if isinstance(value, OfAttack) and item is value.condition:
            found |= {"attack": value.condition.attack, "source": value.condition.source}
    return found


def maps_met(found: MapDistances[NDArray[np.float64]], wanted: MapWord, tau: float) -> NDArray[np.bool_]:
    """Where (N,) the map of the saved image is as it is ``wanted``; a measure that is NaN is not met."""
    match wanted:
        case "free":
            return np.ones(len(found.l1), dtype=bool)
        case "center":
            return np.asarray(found.center_shift) >= tau
        case "topk" | "l1":
            # A constant map has no top cells, and so none in common; nor does it correlate with anything.
            constant = (found.pearson == 0) & (found.spearman == 0) & (found.kendall == 0)
            return np.asarray((found.iou_top20 <= tau) & ~constant)
        case _:
            return found.iou_50 >= tau


def map_met(row: Row, wanted: MapWord, tau: float) -> bool:
    """`maps_met` of one row."""
    saved = row.saved.distances
    return bool(maps_met(distances_of(lambda name: np.array([saved[name]], dtype=np.float64)), wanted, tau)[0])
