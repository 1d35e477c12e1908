"""The rows of an audit: their columns, and the part files they are kept in.

A row is one photo under one attack, its map taken with one interpreter. A part is a Parquet file that is
written whole or not at all, so a run that is killed leaves finished parts and nothing else that counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from underfire.auditing.condition import NONE, Condition
from underfire.auditing.distances import MEASURES, MapDistances, distances_of
from underfire.diagnostics.attack_signs import ImageCourse, ImageTrace
from underfire.errors import InputError
from underfire.files import write_whole

SCHEMA_VERSION = 2
"""Raised when a column is added, removed or changes its meaning; a test holds the hash of the columns."""

_VERSION_KEY = b"underfire.rows"
_PART_PATTERN = "part-*.parquet"
_SAVED = "_8bit"
"""The ending of columns that are of the image saved as 8-bit PNG and read back."""

P = TypeVar("P")


@dataclass(frozen=True)
class RowPhoto:
    """Which photo, and which classes: ``label_given`` is False where the model's own prediction serves as label."""

    image_id: str
    image_sha256: str
    label: int
    label_given: bool
    target: int


@dataclass(frozen=True)
class Answer:
    """What the model says; ``confidence`` is the probability of the target class, ``clean_confidence`` of the label.

    ``success``: the prediction is the target class, and something was done to the photo to make it so.
    """

    success: bool
    prediction: int
    confidence: float
    clean_prediction: int
    clean_confidence: float


@dataclass(frozen=True)
class ImageChange:
    """How far the image is from the benign one, in units of the pixel range [0, 1]."""

    linf: float
    l2: float


@dataclass(frozen=True)
class Saved:
    """What is seen of the image saved as 8-bit PNG and read back."""

    success: bool
    confidence: float
    distances: MapDistances[float]


@dataclass(frozen=True)
class Spent:
    """What the attack took: steps, forward and backward passes, and one photo's share of its batch's seconds."""

    steps: int
    passes: int
    seconds: float


@dataclass(frozen=True)
class Allowed:
    """What the attack was allowed: ``perturbation`` is linf, l2 or flow, ``eps`` its budget.

    ``used`` is how much of the budget was taken before saving; both are in the perturbation's unit: of the pixel
    range, for ``flow`` in pixels of displacement.
    """

    seed: int
    perturbation: str
    eps: float
    used: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photo × attack × source interpreter × target interpreter.

    Attributes:
        photo: which one, its label and target class.
        condition: what was done to it. The benign input has the only rows of an excluded photo; under noise, a random
            change of full size, maps are taken for the label.
        interpreter: the one the map was taken with.
        excluded: why the photo is not attacked, or None.
        answer: what the model says of the image.
        distances: of the map from the benign map of the label.
        change: of the image.
        saved: model and map on the image as saved; in columns that end in ``_8bit``.
        spent: by the attack.
        allowed: to the attack.
        course: of the attack, None where nothing was attacked.

    Raises:
        ValueError: a number is not finite, or an excluded photo has a row of an attack.
    """

    photo: RowPhoto
    condition: Condition
    interpreter: str
    excluded: str | None
    answer: Answer
    distances: MapDistances[float]
    change: ImageChange
    saved: Saved
    spent: Spent
    allowed: Allowed
    course: ImageTrace | None = None

    def __post_init__(self) -> None:
        for name, value in self.columns().items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{self.image_id!r}: {name} is {value} ({self.condition}, map of {self.interpreter})")
        if self.excluded is not None and self.condition != NONE:
            raise ValueError(f"{self.image_id!r} is excluded ({self.excluded}) and yet has a row of {self.condition}")

    @property
    def image_id(self) -> str:
        """The photo's name."""
        return self.photo.image_id

    @property
    def image_sha256(self) -> str:
        """Of the photo's file."""
        return self.photo.image_sha256

    @property
    def target(self) -> int:
        """The target class."""
        return self.photo.target

    @property
    def attack(self) -> str:
        """The condition's attack."""
        return self.condition.attack

    @property
    def success_8bit(self) -> bool:
        """Whether the image as saved is the target class to the model."""
        return self.saved.success

    @property
    def confidence_8bit(self) -> float:
        """The target class's probability on the image as saved."""
        return self.saved.confidence

    @property
    def l1_8bit(self) -> float:
        """The map's mean L1 distance on the image as saved."""
        return self.saved.distances.l1

    @property
    def iou_50_8bit(self) -> float:
        """The map's IoU, binarised at 0.5, on the image as saved."""
        return self.saved.distances.iou_50

    @property
    def trace(self) -> ImageTrace | None:
        """The course as it is judged: of the prediction alone where the first look at the image saw no map."""
        if self.course is None or self.course.maps is None or self.course.maps.first is not None:
            return self.course
        return replace(self.course, maps=None)

    def columns(self) -> dict[str, Any]:
        """The row as it is kept: a plain value by the name of every column, in the order of `SCHEMA`."""
        return {
            **vars(self.photo),
            "attack": self.condition.attack,
            "source": self.condition.source,
            "interpreter": self.interpreter,
            "excluded": self.excluded,
            **vars(self.answer),
            **vars(self.distances),
            **vars(self.change),
            f"success{_SAVED}": self.saved.success,
            f"confidence{_SAVED}": self.saved.confidence,
            **{f"{measure}{_SAVED}": self.saved.distances[measure] for measure in MEASURES},
            **vars(self.spent),
            **vars(self.allowed),
            **_course_columns(self.course),
        }

    @classmethod
    def of_columns(cls, values: Mapping[str, Any]) -> "Row":
        """The row whose `columns` are ``values``; raises `ValueError` as the class does, or for a condition."""

        def part(kind: type[P]) -> P:
            return kind(**{name: values[name] for name in get_type_hints(kind)})

        def distances(ending: str = "") -> MapDistances[float]:
            return distances_of(lambda measure: float(values[f"{measure}{ending}"]))

        return cls(
            photo=part(RowPhoto),
            condition=Condition.of_columns(values["attack"], values["source"]),
            interpreter=values["interpreter"],
            excluded=values["excluded"],
            answer=part(Answer),
            distances=distances(),
            change=part(ImageChange),
            saved=Saved(values[f"success{_SAVED}"], values[f"confidence{_SAVED}"], distances(_SAVED)),
            spent=part(Spent),
            allowed=part(Allowed),
            course=_course(values),
        )


_LOSSES = {"nll": "prediction", "gap": "maps"}
"""The beginnings of the columns of an attack's course, and the parts of `ImageTrace` that they are of."""

_PLACES = tuple(place.name for place in fields(ImageCourse))


def _course_columns(course: ImageTrace | None) -> dict[str, float | None]:
    found = {"stuck": course and course.stuck}
    for beginning, part in _LOSSES.items():
        loss = getattr(course, part, None)
        found |= {f"{beginning}_{place}": getattr(loss, place, None) for place in _PLACES}
    return found


def _course(values: Mapping[str, Any]) -> ImageTrace | None:
    if values["stuck"] is None:
        return None
    prediction, maps = (
        ImageCourse(**{place: values[f"{beginning}_{place}"] for place in _PLACES}) for beginning in _LOSSES
    )
    return ImageTrace(values["stuck"], prediction, None if maps == ImageCourse(None, None, None) else maps)


def write_part(path: Path, rows: Sequence[Row]) -> None:
    """Writes ``rows`` to ``path`` (``part-*.parquet``), whole or not at all, replacing what was there.

    Raises:
        ValueError: The name is not one that `read_rows` would find.
        OSError: The disk refused.
    """
    if not path.match(_PART_PATTERN):
        raise ValueError(f"a part is named {_PART_PATTERN}, not {path.name!r}")
    sink = pa.BufferOutputStream()
    pq.write_table(table_of(rows), sink, write_page_checksum=True)
    write_whole(path, sink.getvalue().to_pybytes())


def table_of(rows: Sequence[Row]) -> pa.Table:
    """``rows`` as a pyarrow.Table with the columns of `SCHEMA`."""
    return pa.Table.from_pylist([row.columns() for row in rows], schema=SCHEMA)


def read_rows(folder: Path) -> list[Row]:
    """All rows of a run directory (or of its ``rows`` folder), in the order of the parts' names.

    Unfinished files are ignored; a run without a part has no rows.

    Raises:
        InputError: There is no such folder, or a part is damaged or of another schema version.
    """
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder; give the directory of a run (audit's --out)")
    inner = folder / "rows"
    parts = sorted((inner if inner.is_dir() else folder).glob(_PART_PATTERN))
    return [row for part in parts for row in _read_part(part)]


def _read_part(path: Path) -> list[Row]:
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())  # Arrow's messages may run over several lines
        raise InputError(
            f"{str(path)!r} cannot be read as a part of a run ({reason}); "
            "delete it and run the same audit again to redo its photos"
        ) from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION) or not table.schema.equals(SCHEMA):
        raise InputError(
            f"{str(path)!r} has rows of schema version {version} with columns this version of underfire "
            f"(schema version {SCHEMA_VERSION}) does not know; run the audit again into a new directory"
        )
    try:
        return [Row.of_columns(values) for values in table.to_pylist()]
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} holds a row that no audit writes ({error}); "
            "delete it and run the same audit again to redo its photos"
        ) from error


def _schema() -> Any:
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    kinds: dict[str, Any] = {
        **get_type_hints(RowPhoto),
        **dict.fromkeys(("attack", "source", "interpreter"), str),
        "excluded": str | None,
        **get_type_hints(Answer),
        **dict.fromkeys(MEASURES, float),
        **get_type_hints(ImageChange),
        f"success{_SAVED}": bool,
        f"confidence{_SAVED}": float,
        **dict.fromkeys((f"{measure}{_SAVED}" for measure in MEASURES), float),
        **get_type_hints(Spent),
        **get_type_hints(Allowed),
        **dict.fromkeys(_course_columns(None), float | None),
    }
    columns = []
    for name, hint in kinds.items():
        some = get_args(hint) or (hint,)
        (kind,) = (k for k in some if k is not NoneType)
        columns.append(pa.field(name, arrow[kind], nullable=NoneType in some))
    return pa.schema(columns, metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()})


SCHEMA = _schema()
"""The Arrow schema of a part, derived from the parts of a `Row`."""
