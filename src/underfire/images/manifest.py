"""Lists of photos with their classes: CSV or JSON Lines.

A CSV manifest begins with the header ``file_name,label`` or ``file_name,label,target``; a JSON Lines manifest
has one object with these keys a line. Other columns are ignored. Paths are relative to the manifest's folder.
A class is an index or a name (a JSON number is always an index); an empty cell or ``null`` means that it is
not known.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from underfire.errors import InputError
from underfire.files import quoted, read_regular_file, shortened
from underfire.images.records import Skipped

MANIFEST_SUFFIXES = (".csv", ".jsonl")
MANIFEST_NAMES = tuple(stem + suffix for stem in ("labels", "manifest", "metadata") for suffix in MANIFEST_SUFFIXES)
"""A folder that holds one of these files at its root is read by it."""

MAX_MANIFEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ManifestEntry:
    """One photo of a manifest as it was written: nothing is checked but the types."""

    line: int
    file_name: str
    label: str | int | None
    target: str | int | None


def read_manifest(path: Path) -> tuple[list[ManifestEntry], list[Skipped]]:
    """The entries of the manifest at ``path`` in its own order, and the lines that are none.

    Raises:
        InputError: the file cannot be read as a manifest: not UTF-8, no header, no entries, too large.
    """
    name = quoted(path)
    try:
        text = read_regular_file(path, limit=MAX_MANIFEST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The manifest {name} is not UTF-8 text; save it as UTF-8.") from error
    except InputError as error:
        raise InputError(f"The manifest {name} cannot be read: {error}.") from error
    rows = _csv_rows(text, name) if path.suffix.lower() == ".csv" else _json_rows(text)
    entries: list[ManifestEntry] = []
    skipped: list[Skipped] = []
    objects = 0
    for line, row in rows:
        try:
            if isinstance(row, InputError):
                raise row
            objects += 1
            entries.append(_entry(line, row))
        except InputError as problem:
            written = row.get("file_name") if isinstance(row, Mapping) else None
            named = written if isinstance(written, str) and written else f"{path.name}, line {line}"
            skipped.append(Skipped(shortened(named), f"{problem} (line {line} of the manifest)"))
    if not objects:
        raise InputError(
            f"The manifest {name} lists no photos; write the header file_name,label and one photo a line, "
            "or one JSON object a line."
        )
    return entries, skipped


_Row = Mapping[str, object] | InputError


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, _Row]]:
    # strict: a quote that is never closed is an error, not a cell that swallows the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        raise InputError(f"The header of the manifest {name} is not CSV ({error}).") from error
    if any(header.count(column) != 1 for column in ("file_name", "label")) or header.count("target") > 1:
        raise InputError(
            f"The manifest {name} begins with {quoted(','.join(header))}; "
            "it needs one column file_name, one column label and at most one column target."
        )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, InputError(f"the line is not CSV: {error}")
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield line, InputError(f"the line has {len(cells)} cells where the header has {len(header)}")
            continue
        row = dict(zip(header, cells, strict=True))
        yield line, row | {column: row.get(column, "").strip() or None for column in ("label", "target")}


def _json_rows(text: str) -> Iterator[tuple[int, _Row]]:
    # Only \n ends a line of JSON Lines; str.splitlines would also cut at U+2028 inside a name.
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except (ValueError, RecursionError) as error:
            # A number of thousands of digits and a thousand open brackets are refused by Python, not by JSON.
            yield line, InputError(f"the line is not JSON: {shortened(str(error))}")
            continue
        yield line, row if isinstance(row, dict) else InputError("the line is not a JSON object")


def _entry(line: int, row: Mapping[str, object]) -> ManifestEntry:
    missing = [column for column in ("file_name", "label") if column not in row]
    if missing:
        raise InputError(f"the line has no {missing[0]!r}")
    file_name = row["file_name"]
    if not isinstance(file_name, str) or not file_name:
        raise InputError("the line names no file")
    return ManifestEntry(line, file_name, _class("label", row["label"]), _class("target", row.get("target")))


def _class(column: str, value: object) -> str | int | None:
    if isinstance(value, float) and value.is_integer():  # as pandas writes integers beside nulls
        return int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise InputError(f"the {column} {quoted(json.dumps(value))} is neither a class index nor a class name")
    return value
