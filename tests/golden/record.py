"""Writes the golden records.

``python -m golden.record``, with ``src`` and ``tests`` on the path, writes those beside this file, which hold on any
machine. ``python -m golden.record OUT`` writes everything to the byte into the folder ``OUT``, for a ``diff -r`` of two
trees in one environment.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")  # as tests/conftest.py, before torch is loaded

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from golden.subjects import DYADIC, ORDINARY, Toy, World, attacked
from golden.values import Attacked, AuditOutput, StudyOutput

RECORDS = Path(__file__).parent / "records"
STUDIES = "study-*.parquet"

FIXED_POINT = 2**31
"""Images recorded by their values are kept in units of 1/2³¹, about 5e-10 of the pixel range."""

_OF_THE_MACHINE = ("image_sha256",)
"""Columns that depend on how a library compresses a PNG."""

_UNSEEN = frozenset({"class", "id", "style", "href", "src", "xmlns", "for", "name", "content", "charset"})
_SPOKEN = frozenset({"aria-label", "alt", "title"})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.labels: list[str] = []
        self.numbers: list[float] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("style", "script")
        for name, value in attrs:
            if name in _SPOKEN:
                self._say(value or "")
            elif name not in _UNSEEN:
                self.numbers += [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", value or "")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._say(data)

    def _say(self, text: str) -> None:
        label = " ".join(text.split())
        if label:
            self.labels.append(timeless(label))


def timeless(text: str) -> str:
    """``text`` with no date, version or SHA-256 in it."""
    text = re.sub(r"\b20\d\d-\d\d-\d\d(T[\d:+]+)?", "DATE", text)
    text = re.sub(r"\b\d+\.\d+\.\d+[\w.+]*\b", "VERSION", text)
    return re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)


def read_page(page: str) -> tuple[list[str], list[float]]:
    """What SVG or HTML says, piece by piece, and the numbers that it is drawn with, in order."""
    parser = _Page()
    parser.feed(page)
    return parser.labels, parser.numbers


def images_of(made: Attacked) -> dict[str, Any]:
    """What is recorded of an attack on the dyadic network, see :data:`golden.values.Kept`."""
    found: dict[str, Any] = {"kept": made.kept, "shape": list(made.images.shape), "passes": list(made.passes)}
    if made.kept == "exact":
        return found | {"sha256": _sha256(made.images)}
    if made.kept == "levels":
        return found | {"sha256": _sha256((made.images * 255).round().to(torch.uint8))}
    return found | {"values": (made.images.flatten() * FIXED_POINT).round().clamp(max=FIXED_POINT - 1).to(torch.int32)}


def portable(rows: pa.Table) -> pa.Table:
    """``rows`` without the columns that differ from machine to machine."""
    return rows.drop_columns([name for name in _OF_THE_MACHINE if name in rows.column_names])


def write_records(folder: Path, work: Path) -> None:
    """Write what is compared on any machine into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    toy = Toy(DYADIC, work)
    for name, study in toy.studies():
        _write_table(study.table, folder / f"study-{name}.parquet")
        labels, numbers = read_page(study.figure)
        pages.append({"page": name, "labels": [*labels, timeless(study.words)], "numbers": numbers})
    audit = toy.audited()
    _write_table(portable(audit.rows), folder / "audit.parquet")
    labels, numbers = read_page(audit.report)
    pages.append({"page": "report", "labels": labels, "numbers": numbers})
    _write_table(pa.Table.from_pylist(pages), folder / "pages.parquet")
    found, values = {}, []
    for name, made in attacked(DYADIC):
        entry = images_of(made)
        if "values" in entry:
            values.append({"attack": name, "values": entry.pop("values").tolist()})
        found[name] = entry
    schema = pa.schema({"attack": pa.string(), "values": pa.list_(pa.int32())})
    pq.write_table(
        pa.Table.from_pylist(values, schema=schema),
        folder / "images.parquet",
        compression="zstd",
        use_dictionary=["attack"],
        use_byte_stream_split=["values.list.element"],  # high bytes are alike, low ones are not
    )
    _write_json(folder / "images.json", found)
    _write_json(folder / "summary.json", audit.summary, indent=None)
    _write_json(folder / "pictures.json", [digest[:16] for digest in toy.pictures()])


def write_exactly(folder: Path, world: World, work: Path) -> None:
    """Write everything of ``world`` to the byte into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    toy = Toy(world, work)
    for name, study in toy.studies():
        _write_study(folder / name, study)
    _write_audit(folder / "audit", toy.audited())
    _write_json(folder / "pictures.json", toy.pictures())
    images = {name: {"sha256": _sha256(made.images), "passes": made.passes} for name, made in attacked(world)}
    _write_json(folder / "images.json", images)


def _write_study(folder: Path, study: StudyOutput) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "figure.svg").write_text(study.figure, encoding="utf-8")
    (folder / "words.txt").write_text(study.words + "\n", encoding="utf-8")
    _write_json(folder / "table.json", _to_the_byte(study.table))


def _write_audit(folder: Path, audit: AuditOutput) -> None:
    folder.mkdir(exist_ok=True)
    _write_json(folder / "rows.json", _to_the_byte(audit.rows))
    _write_json(folder / "summary.json", audit.summary)
    _write_json(folder / "pictures.json", audit.pictures)
    page = re.sub(r"\b20\d\d-\d\d-\d\d\b(?!T)", "DATE", audit.report)
    page = re.sub(r"data:[^\"')]+", lambda found: f"data:{hashlib.sha256(found[0].encode()).hexdigest()}", page)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _to_the_byte(table: pa.Table) -> list[dict[str, Any]]:
    """Of every column its name, type, values, and the SHA-256 of its values and nulls in memory."""
    found = []
    for field, column in zip(table.schema, table.columns, strict=True):
        whole = pa.table({"values": pa.array(column.to_pylist(), field.type)}).combine_chunks().column(0).chunk(0)
        digest = hashlib.sha256()
        for buffer in whole.buffers():
            digest.update(b"none" if buffer is None else buffer.to_pybytes())
        found.append(
            {
                "name": field.name,
                "type": str(field.type),
                "nullable": field.nullable,
                "sha256": digest.hexdigest(),
                "values": column.to_pylist(),
            }
        )
    return found


def _sha256(images: Tensor) -> str:
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=19)


def _write_json(path: Path, content: Mapping[str, Any] | Sequence[Any], *, indent: int | None = 1) -> None:
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def _main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        if len(sys.argv) == 1:
            write_records(RECORDS, Path(work, "work"))
        for world in (DYADIC, ORDINARY) if len(sys.argv) == 2 else ():
            write_exactly(Path(sys.argv[1], world.name), world, Path(work, world.name))


if __name__ == "__main__":
    _main()
