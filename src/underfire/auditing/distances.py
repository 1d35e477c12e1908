"""The distances between maps that rows hold: a new one is a function in `underfire.metrics` and a field here."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Generic, TypeVar

from torch import Tensor

from underfire import metrics

T = TypeVar("T")

RANGE = "range"
"""Under this name the metadata of a field has the lowest and the highest value that it can take."""

SINCE = "since"
"""Under this name the metadata of a field has the first version of the rows' schema that has its columns."""

_DISTANCE = "distance"


def _by(
    measure: Callable[[Tensor, Tensor], Tensor], *, low: float = 0.0, since: int = 1, distance: bool = False
) -> dict[str, Any]:
    """``distance``: that it is small where the maps are alike, and not large."""
    return {"measure": measure, RANGE: (low, 1.0), SINCE: since, _DISTANCE: distance}


@dataclass(frozen=True)
class MapDistances(Generic[T]):
    """How far a map is from another, by every measure: a number, (N,) of a batch, or statistics of several.

    The names of the fields are those of the rows' columns and of the gates, in their order. What older rows lack is
    None of theirs.
    """

    l1: T = field(metadata=_by(metrics.l1, distance=True))
    iou_50: T = field(metadata=_by(partial(metrics.iou, threshold=0.5)))
    iou_25: T = field(metadata=_by(partial(metrics.iou, threshold=0.25)))
    iou_75: T = field(metadata=_by(partial(metrics.iou, threshold=0.75)))
    iou_top20: T = field(metadata=_by(partial(metrics.iou_top, share=0.2)))
    topk_20: T | None = field(metadata=_by(partial(metrics.topk, share=0.2), since=3))
    spearman: T | None = field(metadata=_by(metrics.spearman, low=-1.0, since=3))
    kendall: T | None = field(metadata=_by(metrics.kendall, low=-1.0, since=3))
    pearson: T | None = field(metadata=_by(metrics.pearson, low=-1.0, since=3))
    center_shift: T | None = field(metadata=_by(metrics.center_shift, since=3, distance=True))
    ssim: T | None = field(metadata=_by(metrics.ssim, low=-1.0, since=3))

    def __getitem__(self, measure: str) -> T | None:
        """The field ``measure``, one of `MEASURES`."""
        value: T | None = getattr(self, measure)
        return value


MEASURES: tuple[str, ...] = tuple(measure.name for measure in fields(MapDistances))
"""The names of the distances."""


def is_distance(measure: str) -> bool:
    """Whether ``measure`` is small where two maps are alike, and not large."""
    return any(one.metadata[_DISTANCE] for one in fields(MapDistances) if one.name == measure)


def measures_of(version: int) -> tuple[str, ...]:
    """The names of those that rows of the schema's ``version`` have."""
    return tuple(measure.name for measure in fields(MapDistances) if measure.metadata[SINCE] <= version)


def distances_of(value: Callable[[str], T | None]) -> MapDistances[T]:
    """``value`` of every measure's name."""
    values: dict[str, Any] = {measure: value(measure) for measure in MEASURES}
    return MapDistances(**values)


def map_distances(maps: Tensor, others: Tensor) -> MapDistances[Tensor]:
    """All measures (N,) between two batches of maps (N, h, w) in [0, 1]."""
    return MapDistances(**{measure.name: measure.metadata["measure"](maps, others) for measure in fields(MapDistances)})


def distances_at(distances: MapDistances[Tensor], index: int) -> MapDistances[float]:
    """The distances of one pair of a batch."""
    values = vars(distances)
    return distances_of(lambda measure: float(values[measure][index]))
