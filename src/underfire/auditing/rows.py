"""The rows of an audit: their columns, and the part files they are kept in.

A row is one photo under one attack, its map taken with one interpreter. A part is a Parquet file that is
written whole or not at all, so a run that is killed leaves finished parts and nothing else that counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from underfire.diagnostics.attack_signs import ImageCourse, ImageTrace
from underfire.errors import InputError
from underfire.files import write_whole

SCHEMA_VERSION = 2
"""Raised when a column is added, removed or changes its meaning."""

NO_SOURCE = "-"
"""The ``source`` of a row whose image was made without an interpreter."""

_VERSION_KEY = b"underfire.rows"
_PART_PATTERN = "part-*.parquet"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photo × attack × source interpreter × target interpreter.

    ``attack`` is ``none`` (the benign input; the only rows of an excluded photo), ``noise`` (a random change of full
    size, maps taken for the label), ``pgd``, ``adv2``, ``stadv`` or ``square``. ``source`` names the attacked
    interpreters, joined with ``+``, or is ``-``; ``interpreter`` is the one the map was taken with. l1, iou_* compare
    that map with the benign map of the label; columns ending in ``_8bit`` are the same on the image saved as 8-bit PNG
    and read back. ``confidence`` is the probability of ``target`` on the attacked image, ``clean_confidence`` that of
    ``label`` on the benign input. ``linf``, ``l2`` are in units of the pixel range [0, 1]. ``perturbation`` says what
    was allowed (linf, l2, flow), ``eps`` how much and ``used`` how much of that was taken before saving, both in its
    unit: of the pixel range, for ``flow`` in pixels of displacement. ``seconds`` is one photo's share of its batch.
    ``stuck``, ``nll_*`` and ``gap_*`` are the attack's course (see ``trace``), None where nothing was attacked;
    ``gap_*`` also where no map was, and where a search never came to ask for one.

    Raises:
        ValueError: A number is not finite, or an excluded photo has a row of an attack.
    """

    image_id: str
    image_sha256: str
    label: int
    label_given: bool
    target: int
    attack: str
    source: str
    interpreter: str
    excluded: str | None
    success: bool
    prediction: int
    confidence: float
    clean_prediction: int
    clean_confidence: float
    l1: float
    iou_50: float
    iou_25: float
    iou_75: float
    iou_top20: float
    linf: float
    l2: float
    success_8bit: bool
    confidence_8bit: float
    l1_8bit: float
    iou_50_8bit: float
    iou_25_8bit: float
    iou_75_8bit: float
    iou_top20_8bit: float
    steps: int
    passes: int
    seconds: float
    seed: int
    perturbation: str
    eps: float
    used: float
    stuck: float | None = None
    nll_first: float | None = None
    nll_half: float | None = None
    nll_kept: float | None = None
    gap_first: float | None = None
    gap_half: float | None = None
    gap_kept: float | None = None

    def __post_init__(self) -> None:
        for column in fields(self):
            value = getattr(self, column.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"{self.image_id!r}: {column.name} is {value} ({self.condition}, map of {self.interpreter})"
                )
        if self.excluded is not None and self.attack != "none":
            raise ValueError(f"{self.image_id!r} is excluded ({self.excluded}) and yet has a row of {self.condition}")

    @property
    def condition(self) -> str:
        """What was done to the photo, as in the artifacts: none, noise, pgd, adv2-cam, adv2-cam+grad …."""
        return condition(self.attack, self.source)

    @property
    def trace(self) -> ImageTrace | None:
        """The course of the attack, None where there was none."""
        if self.stuck is None:
            return None
        prediction = ImageCourse(self.nll_first, self.nll_half, self.nll_kept)
        maps = None if self.gap_first is None else ImageCourse(self.gap_first, self.gap_half, self.gap_kept)
        return ImageTrace(self.stuck, prediction, maps)


def condition(attack: str, source: str = NO_SOURCE) -> str:
    """The name of an attack on a source, as used for artifacts and in the summary: ``pgd``, ``adv2-cam``."""
    return attack if source == NO_SOURCE else f"{attack}-{source}"


def write_part(path: Path, rows: Sequence[Row]) -> None:
    """Writes ``rows`` to ``path`` (``part-*.parquet``), whole or not at all, replacing what was there.

    Raises:
        ValueError: The name is not one that `read_rows` would find.
        OSError: The disk refused.
    """
    if not path.match(_PART_PATTERN):
        raise ValueError(f"a part is named {_PART_PATTERN}, not {path.name!r}")
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    write_whole(path, sink.getvalue().to_pybytes())


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
        return [Row(**values) for values in table.to_pylist()]
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} holds a row that no audit writes ({error}); "
            "delete it and run the same audit again to redo its photos"
        ) from error


def _schema() -> Any:
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = []
    for name, hint in get_type_hints(Row).items():
        kinds = get_args(hint) or (hint,)
        (kind,) = (k for k in kinds if k is not NoneType)
        columns.append(pa.field(name, arrow[kind], nullable=NoneType in kinds))
    return pa.schema(columns, metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()})


SCHEMA = _schema()
"""The Arrow schema of a part, derived from `Row`."""
