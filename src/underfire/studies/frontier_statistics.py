"""What a stronger attack buys: the prediction's confidence against the map (Zhang et al. 2020, section 5).

The paper explains the low IoU of back-propagation interpreters by a conflict: by its Proposition 1 the prediction loss
of an attack is at most its interpretation loss, so that confidence has to be paid for with the map. Here is what such
a price would look like on photos, always as differences on the same photo, so that an attack that reaches more photos
is not compared with itself on fewer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Literal

from underfire.stats import Estimate, bootstrap_mean, bootstrap_paired

Measure = Literal["confidence", "l1", "iou"]


class Finding(StrEnum):
    """What the numbers say about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "is not decided at this n"


@dataclass(frozen=True)
class Attempt:
    """One attack on one photo at one point of a frontier, measured on the image as saved.

    Attributes:
        photo: its name.
        point: how far the attack was allowed to go there, such as its ε.
        success: whether the prediction is the target.
        confidence: the probability of the target.
        l1, iou: between the map and the benign map, in [0, 1].
    """

    photo: str
    point: float
    success: bool
    confidence: float
    l1: float
    iou: float


def changes(attempts: Iterable[Attempt], measure: Measure) -> dict[str, float]:
    """By photo: ``measure`` at the last point that reached the label, minus that at the first one.

    Photos whose label was reached at fewer than two points have none.
    """
    reached = _reached(attempts)
    ends = {photo: (min(points), max(points)) for photo, points in reached.items() if len(points) > 1}
    return {
        photo: getattr(reached[photo][last], measure) - getattr(reached[photo][first], measure)
        for photo, (first, last) in ends.items()
    }


def change(attempts: Iterable[Attempt], measure: Measure) -> Estimate:
    """The mean of :func:`changes` with its interval."""
    return bootstrap_mean(list(changes(attempts, measure).values()))


def difference(one: Iterable[Attempt], other: Iterable[Attempt], measure: Measure) -> Estimate:
    """``measure`` of ``one`` minus that of ``other``: per photo the mean over the points that both reached.

    One value per photo goes into the mean, for values of one photo at several points are not independent.
    """
    ours, theirs = _reached(one), _reached(other)
    shared = {photo: sorted(ours[photo].keys() & theirs[photo].keys()) for photo in ours.keys() & theirs.keys()}
    photos = sorted(photo for photo, points in shared.items() if points)
    mine, yours = (
        [fmean(getattr(side[photo][point], measure) for point in shared[photo]) for photo in photos]
        for side in (ours, theirs)
    )
    return bootstrap_paired(mine, yours)


def changes_in_common(
    one: Iterable[Attempt], other: Iterable[Attempt], measure: Measure
) -> tuple[list[float], list[float]]:
    """The changes of ``one`` and of ``other``, photo by photo, on the photos that have both, see :func:`changes`.

    Only points at which both reached the label count, so that both changes are between the same two points.
    """
    ours, theirs = list(one), list(other)
    both = {(a.photo, a.point) for a in ours if a.success} & {(a.photo, a.point) for a in theirs if a.success}
    mine, yours = (changes([a for a in side if (a.photo, a.point) in both], measure) for side in (ours, theirs))
    photos = sorted(mine.keys() & yours.keys())
    return [mine[photo] for photo in photos], [yours[photo] for photo in photos]


def difference_of_changes(one: Iterable[Attempt], other: Iterable[Attempt], measure: Measure) -> Estimate:
    """The mean change of ``one`` minus that of ``other``, see :func:`changes_in_common`."""
    return bootstrap_paired(*changes_in_common(one, other, measure))


def rises(figure: Estimate) -> bool:
    """Whether ``figure`` is above zero, by its interval."""
    return figure.low is not None and figure.low > 0


def below_zero(figures: Sequence[Estimate]) -> Finding:
    """Whether every one of ``figures`` is below zero, by their intervals.

    Holds if each interval is below zero, does not if one is above; without a figure it is open.
    """
    if any(map(rises, figures)):
        return Finding.FAILS
    if figures and all(figure.high is not None and figure.high < 0 for figure in figures):
        return Finding.HOLDS
    return Finding.OPEN


def _reached(attempts: Iterable[Attempt]) -> Mapping[str, dict[float, Attempt]]:
    """By photo and point, the attempts that reached the label."""
    found: dict[str, dict[float, Attempt]] = defaultdict(dict)
    for attempt in attempts:
        if attempt.success:
            found[attempt.photo][attempt.point] = attempt
    return found
