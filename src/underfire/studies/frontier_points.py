"""What a frontier is made of: attacks on photos at points, their means, and what changes from point to point.

Differences are always on the same photo, so that an attack that reaches more photos is not compared with itself on
fewer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal, get_args

from underfire.present.text import interpreter_title
from underfire.stats import Estimate, bootstrap_mean, bootstrap_paired

Measure = Literal["confidence", "l1", "iou"]


@dataclass(frozen=True)
class PointResult:
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


@dataclass(frozen=True)
class PointMeans:
    """All attacks of one kind at one point.

    Attributes:
        point: see `PointResult`.
        tries: how many photos were attacked.
        confidence, l1, iou: means over the photos whose label was reached.
    """

    point: float
    tries: int
    confidence: Estimate
    l1: Estimate
    iou: Estimate

    @property
    def n(self) -> int:
        """How many photos' label was reached."""
        return self.confidence.n


@dataclass(frozen=True)
class Frontier:
    """All attacks on one interpreter: ADV², and PGD on the prediction alone, whose maps are the interpreter's too.

    ``points`` are in rising order.
    """

    interpreter: str
    points: tuple[float, ...]
    adv2: tuple[PointResult, ...]
    pgd: tuple[PointResult, ...]

    @property
    def title(self) -> str:
        """The interpreter, as the literature writes it."""
        return interpreter_title(self.interpreter)

    @cached_property
    def adv2_means(self) -> tuple[PointMeans, ...]:
        """Of ADV², by point."""
        return tuple(_means(at(self.adv2, point), point) for point in self.points)

    @cached_property
    def pgd_means(self) -> tuple[PointMeans, ...]:
        """Of PGD, by point."""
        return tuple(_means(at(self.pgd, point), point) for point in self.points)

    @cached_property
    def changes(self) -> Mapping[str, Estimate]:
        """By measure, its mean change from a photo's first success with ADV² to its last."""
        return {measure: change(self.adv2, measure) for measure in get_args(Measure)}


def at(results: Sequence[PointResult], point: float) -> list[PointResult]:
    """Those of ``results`` at ``point``."""
    return [result for result in results if result.point == point]


def changes(results: Iterable[PointResult], measure: Measure) -> dict[str, float]:
    """By photo: ``measure`` at the last point that reached the label, minus that at the first one.

    Photos whose label was reached at fewer than two points have none.
    """
    reached = _reached(results)
    ends = {photo: (min(points), max(points)) for photo, points in reached.items() if len(points) > 1}
    return {
        photo: getattr(reached[photo][last], measure) - getattr(reached[photo][first], measure)
        for photo, (first, last) in ends.items()
    }


def change(results: Iterable[PointResult], measure: Measure) -> Estimate:
    """The mean of :func:`changes` with its interval."""
    return bootstrap_mean(list(changes(results, measure).values()))


def difference(one: Iterable[PointResult], other: Iterable[PointResult], measure: Measure) -> Estimate:
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
    one: Iterable[PointResult], other: Iterable[PointResult], measure: Measure
) -> tuple[list[float], list[float]]:
    """The changes of ``one`` and of ``other``, photo by photo, on the photos that have both, see :func:`changes`.

    Only points at which both reached the label count, so that both changes are between the same two points.
    """
    ours, theirs = list(one), list(other)
    both = {(a.photo, a.point) for a in ours if a.success} & {(a.photo, a.point) for a in theirs if a.success}
    mine, yours = (changes([a for a in side if (a.photo, a.point) in both], measure) for side in (ours, theirs))
    photos = sorted(mine.keys() & yours.keys())
    return [mine[photo] for photo in photos], [yours[photo] for photo in photos]


def difference_of_changes(one: Iterable[PointResult], other: Iterable[PointResult], measure: Measure) -> Estimate:
    """The mean change of ``one`` minus that of ``other``, see :func:`changes_in_common`."""
    return bootstrap_paired(*changes_in_common(one, other, measure))


def _reached(results: Iterable[PointResult]) -> Mapping[str, dict[float, PointResult]]:
    """By photo and point, the attacks that reached the label."""
    found: dict[str, dict[float, PointResult]] = defaultdict(dict)
    for result in results:
        if result.success:
            found[result.photo][result.point] = result
    return found


def _means(results: Sequence[PointResult], point: float) -> PointMeans:
    reached = [result for result in results if result.success]
    means = {measure: bootstrap_mean([getattr(result, measure) for result in reached]) for measure in get_args(Measure)}
    return PointMeans(point, len(results), **means)
