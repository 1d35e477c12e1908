"""The rows of an audit: their columns, and the part files they are kept in.

A row is one photo under one attack, its map taken with one interpreter. A part is a Parquet file that is
written whole or not at all, so a run that is killed leaves finished parts and nothing else that counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from underfire.auditing.condition import NONE, Condition
from underfire.auditing.distances import MEASURES, RANGE, MapDistances, distances_of, measures_of
from underfire.auditing.parquet import open_parquet
from underfire.diagnostics.attack_signs import ImageCourse, ImageTrace
from underfire.errors import InputError
from underfire.files import quoted, write_whole

SCHEMA_VERSION = 3
"""Raised when a column is added, removed or changes its meaning; a test holds the hash of the columns."""

OLDEST_SCHEMA = 2
"""The first version whose rows are still read; what they lack is None."""

_VERSION_KEY = b"underfire.rows"
_PART_PATTERN = "part-*.parquet"
_MOST_ROWS = 2**20  # of a part

REDO = "delete it and run the same command again to redo its photos"
"""What to do about a part that cannot be used."""

_GOALS_SINCE = 3  # the version of the rows' schema that has a goal

_SAVED = "_8bit"
"""The ending of columns that are of the image saved as 8-bit PNG and read back."""

P = TypeVar("P")


def _within(low: float, high: float) -> Mapping[str, Any]:
    """Metadata of a field whose value lies in [low, high]."""
    return {RANGE: (low, high)}


_MANY = 1e15  # no count, time or length is beyond; sums of what is within are finite
_LOSSES_WITHIN = (-1e100, 1e100)
_SLACK = 1e-6  # of the rounding of sums


@dataclass(frozen=True)
class RowPhoto:
    """Which photo, and which classes: ``label_given`` is False where the model's own prediction serves as label."""

    image_id: str
    image_sha256: str
    label: int = field(metadata=_within(0, _MANY))
    label_given: bool
    target: int = field(metadata=_within(0, _MANY))


@dataclass(frozen=True)
class Answer:
    """What the model says; ``confidence`` is the probability of the target class, ``clean_confidence`` of the label.

    ``success``: the prediction is the target class, and something was done to the photo to make it so. Where the goal
    is another than a target class, the class in its place is the one that the label was left for, or the label that is
    kept; to be kept its probability must have stayed within 0.1.
    """

    success: bool
    prediction: int = field(metadata=_within(0, _MANY))
    confidence: float = field(metadata=_within(0, 1))
    clean_prediction: int = field(metadata=_within(0, _MANY))
    clean_confidence: float = field(metadata=_within(0, 1))


@dataclass(frozen=True)
class ImageChange:
    """How far the image is from the benign one, in units of the pixel range [0, 1]."""

    linf: float = field(metadata=_within(0, 1))
    l2: float = field(metadata=_within(0, _MANY))


@dataclass(frozen=True)
class Saved:
    """What is seen of the image saved as 8-bit PNG and read back."""

    success: bool
    confidence: float
    distances: MapDistances[float]


@dataclass(frozen=True)
class Spent:
    """What the attack took: steps, forward and backward passes, and one photo's share of its batch's seconds."""

    steps: int = field(metadata=_within(0, _MANY))
    passes: int = field(metadata=_within(0, _MANY))
    seconds: float = field(metadata=_within(0, _MANY))


@dataclass(frozen=True)
class Allowed:
    """What the attack was allowed: ``perturbation`` is linf, l2 or flow, ``eps`` its budget.

    ``used`` is how much of the budget was taken before saving; both are in the perturbation's unit: of the pixel
    range, for ``flow`` in pixels of displacement.
    """

    seed: int
    perturbation: str
    eps: float = field(metadata=_within(0, _MANY))
    used: float = field(metadata=_within(0, _MANY))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photo × attack × source interpreter × target interpreter.

    Attributes:
        photo: which one, its label and target class.
        condition: what was done to it; the column ``goal`` is empty where it is the attack's own. The benign input has
            the only rows of an excluded photo; under noise, a random change of full size, maps are taken for the label.
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
        ValueError: a number is not finite or out of its range, or an excluded photo has a row of an attack.
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
        columns = self.columns()
        for name, (low, high) in RANGES.items():
            value = columns[name]
            if value is not None and not low - _SLACK <= value <= high + _SLACK:  # NaN is not, either
                raise ValueError(
                    f"{quoted(self.image_id)}: {name} is {value}, not within {low:g} and {high:g} "
                    f"({self.condition}, map of {self.interpreter})"
                )
        if self.excluded is not None and self.condition != NONE:
            raise ValueError(
                f"{quoted(self.image_id)} is excluded ({self.excluded}) and yet has a row of {self.condition}"
            )

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
        return _judged(self.course)

    def columns(self) -> dict[str, Any]:
        """The row as it is kept: a plain value by the name of every column, in the order of `SCHEMA`."""
        return {
            **vars(self.photo),
            "attack": self.condition.attack,
            "source": self.condition.source,
            "goal": self.condition.goal,
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
            return kind(**{name: values[name] for name in _NAMES[kind]})

        def distances(ending: str = "") -> MapDistances[float]:
            return distances_of(lambda measure: number(values[f"{measure}{ending}"], optional=measure not in _ALWAYS))

        def number(value: Any, *, optional: bool) -> float | None:
            return None if optional and value is None else float(value)

        return cls(
            photo=part(RowPhoto),
            condition=Condition.of_columns(values["attack"], values["source"], values["goal"]),
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


_ALWAYS = measures_of(OLDEST_SCHEMA)
"""The measures that every row has."""

_PARTS: tuple[type[Any], ...] = (RowPhoto, Answer, ImageChange, Spent, Allowed)
_NAMES = {kind: [part.name for part in fields(kind)] for kind in _PARTS}


def _ranges() -> dict[str, tuple[float, float]]:
    """Of every column that is a number but the seed, by the metadata of the fields that columns are made of."""
    found: dict[str, tuple[float, float]] = {}
    for kind in (RowPhoto, Answer, MapDistances, ImageChange, Spent, Allowed):
        found |= {part.name: part.metadata[RANGE] for part in fields(kind) if RANGE in part.metadata}
    saved = {f"{name}{_SAVED}": found[name] for name in ("confidence", *MEASURES)}
    losses = {f"{beginning}_{place}": _LOSSES_WITHIN for beginning in _LOSSES for place in _PLACES}
    return {**found, **saved, "stuck": (0.0, 1.0), **losses}


RANGES = _ranges()
"""The lowest and the highest value of every column that is a number but the seed."""


def _course_columns(course: ImageTrace | None) -> dict[str, float | None]:
    found: dict[str, float | None] = {"stuck": None if course is None else course.stuck}
    for beginning, part in _LOSSES.items():
        loss = getattr(course, part, None)
        found |= {f"{beginning}_{place}": getattr(loss, place, None) for place in _PLACES}
    return found


def _judged(course: ImageTrace | None) -> ImageTrace | None:
    if course is None or course.maps is None or course.maps.first is not None:
        return course
    return replace(course, maps=None)


def traces_of(table: Any) -> list[ImageTrace | None]:
    """Of every line of a pyarrow.Table with the columns of `SCHEMA`, its `Row.trace`."""
    return [_judged(_course(values)) for values in table.select(list(_course_columns(None))).to_pylist()]


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
        InputError: There is no such folder, or a part is damaged or of a schema version that is not read.
    """
    if not folder.is_dir():
        raise InputError(f"{quoted(folder)} is not a folder; give the directory of a run (audit's --out)")
    inner = folder / "rows"
    return [row for part in parts_in(inner if inner.is_dir() else folder) for row in read_part(part)]


def parts_in(folder: Path) -> list[Path]:
    """Whatever lies in ``folder`` under the name of a part, in the order of their names."""
    return sorted(folder.glob(_PART_PATTERN))


def read_part(path: Path) -> list[Row]:
    """The rows of one part; raises `InputError` as `read_table` does."""
    return rows_of_table(read_table(path))


def read_table(path: Path) -> Any:
    """The rows of one part, which others may have written, by this or an older version.

    Returns:
        A pyarrow.Table with the columns of `SCHEMA`, of which older versions lack some: they are null. Every line of it
        is a `Row`.

    Raises:
        InputError: it is damaged, of a schema version that is not read, or has more rows than a part or numbers out of
            range.
    """
    try:
        file = open_parquet(path, most_rows=_MOST_ROWS)
        version = _checked_version(path, file)
        table = file.read(use_threads=False)
        table.validate(full=True)
    except InputError as error:
        if quoted(path) in str(error):
            raise
        raise _unreadable(path, error) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        for name in _distance_columns(version):
            if table.column(name).null_count:
                raise ValueError(f"{name} is missing")
        whole = _completed(table)
        _check_lines(whole)
    except (ValueError, TypeError) as error:  # a missing value where there must be one is None
        raise InputError(f"{quoted(path)} holds a row that no audit writes ({error}); {REDO}") from error
    return whole


def _completed(table: Any) -> Any:
    """``table`` with all columns of `SCHEMA`."""
    if table.schema.names == SCHEMA.names:
        return table.cast(SCHEMA)
    none = {name: pa.nulls(len(table), SCHEMA.field(name).type) for name in SCHEMA.names}
    return pa.table(none | {name: table.column(name) for name in table.schema.names}, schema=SCHEMA)


def rows_of_table(table: Any) -> list[Row]:
    """The lines of a pyarrow.Table with the columns of `SCHEMA`; raises `ValueError` where one is no row."""
    return [Row.of_columns(values) for values in table.to_pylist()]


def numbers(table: Any, name: str) -> NDArray[np.float64]:
    """The column ``name`` (rows,) of numbers, or of truths as 0 and 1; NaN where it is null."""
    return table.column(name).to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def codes(table: Any, name: str, known: Mapping[Any, int]) -> NDArray[np.int64]:
    """The column ``name`` (rows,) of texts as the numbers that ``known`` has for them, −1 for one that it has not."""
    encoded = table.column(name).combine_chunks().dictionary_encode()
    by_place = [known.get(text, -1) for text in encoded.dictionary.to_pylist()]
    numbered = np.array([*by_place, known.get(None, -1)], dtype=np.int64)
    return np.asarray(numbered[encoded.indices.fill_null(-1).to_numpy()])


def conditions_of(table: Any) -> tuple[tuple[Condition, ...], NDArray[np.int64]]:
    """The conditions of a table's lines, in the order of the first of each, and (rows,) which of them each line has.

    Raises:
        ValueError: there is no such condition.
    """
    texts = [table.column(name).to_pylist() for name in ("attack", "source", "goal")]
    known: dict[tuple[str, str, str | None], int] = {}
    places = [known.setdefault(named, len(known)) for named in zip(*texts, strict=True)]
    return tuple(Condition.of_columns(*named) for named in known), np.array(places, dtype=np.int64)


def _check_lines(table: Any) -> None:
    """Raises `ValueError` unless every line of ``table`` is a `Row`: looked for in columns, and told by the row."""
    wrong = np.zeros(len(table), dtype=bool)
    for name, (low, high) in RANGES.items():
        column = table.column(name)
        values = numbers(table, name)
        inside = (values >= low - _SLACK) & (values <= high + _SLACK)
        wrong |= ~inside if not column.null_count else ~inside & column.is_valid().to_numpy()
    required = [field.name for field in SCHEMA if not field.nullable and table.column(field.name).null_count]
    for name in required:
        wrong |= table.column(name).is_null().to_numpy()
    conditions_of(table)
    wrong |= table.column("excluded").is_valid().to_numpy() & (codes(table, "attack", {NONE.attack: 0}) != 0)
    for index in np.flatnonzero(wrong)[:1].tolist():
        raise ValueError(_problem_of(table.slice(index, 1).to_pylist()[0]))


def _problem_of(values: Mapping[str, Any]) -> str:
    """Why a line is no row."""
    try:
        Row.of_columns(values)
    except (ValueError, TypeError) as error:
        return str(error)
    return f"{quoted(str(values['image_id']))} lacks a value"


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())  # Arrow's messages may run over several lines
    return InputError(f"{quoted(path)} cannot be read as a part of a run ({reason}); {REDO}")


def _checked_version(path: Path, file: Any) -> int:
    """The schema's version, before a page of it is unpacked."""
    schema = file.schema_arrow
    told = (schema.metadata or {}).get(_VERSION_KEY, b"none").decode(errors="replace")
    version = next((known for known in range(OLDEST_SCHEMA, SCHEMA_VERSION + 1) if told == str(known)), None)
    if version is None or not schema.equals(schema_of(version)):
        raise InputError(
            f"{quoted(path)} has rows of schema version {quoted(told)} with columns this version of underfire "
            f"(schema versions {OLDEST_SCHEMA} to {SCHEMA_VERSION}) does not know; run the audit again into a new "
            "directory"
        )
    return version


def _distance_columns(version: int) -> dict[str, Any]:
    """The columns of distances in rows of the schema's ``version``, with their kinds."""
    measures = {measure: float if measure in _ALWAYS else float | None for measure in measures_of(version)}
    return measures | {f"{measure}{_SAVED}": kind for measure, kind in measures.items()}


@cache
def schema_of(version: int) -> Any:
    """The Arrow schema of a part of the schema's ``version``, derived from the parts of a `Row`."""
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    distances = _distance_columns(version)
    measures = measures_of(version)
    kinds: dict[str, Any] = {
        **get_type_hints(RowPhoto),
        **dict.fromkeys(("attack", "source"), str),
        **({"goal": str | None} if version >= _GOALS_SINCE else {}),
        "interpreter": str,
        "excluded": str | None,
        **get_type_hints(Answer),
        **{measure: distances[measure] for measure in measures},
        **get_type_hints(ImageChange),
        f"success{_SAVED}": bool,
        f"confidence{_SAVED}": float,
        **{f"{measure}{_SAVED}": distances[measure] for measure in measures},
        **get_type_hints(Spent),
        **get_type_hints(Allowed),
        **dict.fromkeys(_course_columns(None), float | None),
    }
    columns = []
    for name, hint in kinds.items():
        some = get_args(hint) or (hint,)
        (kind,) = (k for k in some if k is not NoneType)
        columns.append(pa.field(name, arrow[kind], nullable=NoneType in some))
    return pa.schema(columns, metadata={_VERSION_KEY: str(version).encode()})


SCHEMA = schema_of(SCHEMA_VERSION)
"""That of the parts that are written now."""
