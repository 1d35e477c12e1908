"""A study on disk: a table, a figure and a page of words, each written whole or not at all.

``NAME.parquet`` holds everything, the words and the figure in its metadata, and is written last: a study that is there
is there whole, and what a report shows of it was made together. ``NAME.svg`` and ``NAME.md`` are for people.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from underfire.errors import InputError
from underfire.files import write_whole
from underfire.images.files import printable
from underfire.present.palette import with_colours
from underfire.studies.study import Study
from underfire.studies.wording import shown

NAMES = ("transfer", "bound", "frontier", "gap", "defence")
"""The studies, in the order in which they are shown."""

STUDY_VERSION = 1
"""Raised when what is saved with a table changes its meaning."""

_KEY = b"underfire.study"
_LIBRARIES = ("underfire", "torch", "numpy", "pyarrow")


@dataclass(frozen=True)
class Made:
    """What made a study: enough to make it again."""

    command: str
    seed: int
    date: str
    """UTC, ISO 8601."""
    versions: Mapping[str, str]


@dataclass(frozen=True)
class SavedStudy:
    """A study as it was read back; the ``figure`` of its ``study`` brings its own colours."""

    study: Study
    made: Made


def save(study: Study, out: Path, *, command: str, seed: int) -> None:
    """Writes NAME.svg, NAME.md and NAME.parquet of ``study`` into the folder ``out``, replacing what was there.

    Raises:
        ValueError: ``study`` has a name that no report looks for.
        OSError: the disk refused.
    """
    if study.name not in NAMES:
        raise ValueError(f"a study is named {', '.join(NAMES)}, not {study.name!r}")
    made = Made(
        command=printable(command),
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    )
    figure = with_colours(study.figure)
    content = {
        "version": STUDY_VERSION,
        "name": study.name,
        "title": study.title,
        "claim": study.claim,
        "words": study.words,
        "figure": figure,
        "made": asdict(made),
    }
    table = study.table.replace_schema_metadata({_KEY: json.dumps(content).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    write_whole(out / f"{study.name}.svg", figure.encode())
    write_whole(out / f"{study.name}.md", printable(_page(study, made)).encode())
    write_whole(out / f"{study.name}.parquet", sink.getvalue().to_pybytes())


def read(out: Path) -> tuple[SavedStudy, ...]:
    """The studies in the folder ``out``, in the order of `NAMES`; none where there is no such folder.

    Raises:
        InputError: a study is damaged, or of another version.
    """
    return tuple(_read(path) for name in NAMES if (path := out / f"{name}.parquet").is_file())


def _read(path: Path) -> SavedStudy:
    again = f"run `underfire study {path.stem}` again, or delete it"
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        content = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())  # Arrow's messages may run over several lines
        raise InputError(f"{str(path)!r} cannot be read as a study ({reason}); {again}") from error
    if not isinstance(content, dict) or content.get("version") != STUDY_VERSION or content.get("name") != path.stem:
        raise InputError(f"{str(path)!r} is not a study that this version of underfire can read; {again}")
    try:
        words = {key: str(content[key]) for key in ("name", "title", "claim", "figure", "words")}
        return SavedStudy(Study(table=table.replace_schema_metadata(None), **words), Made(**content["made"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} lacks a part of the study ({error}); {again}") from error


def _page(study: Study, made: Made) -> str:
    """The study as Markdown; its figure is linked, its table is the whole of it."""
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    return "\n".join(
        [
            f"# {study.title}",
            "",
            f"Claim: {study.claim}",
            "",
            study.words,
            "",
            f"![{study.title}]({study.name}.svg)",
            "",
            *_markdown(study.table),
            "",
            f"Made by `{made.command}` with seed {made.seed} on {made.date[:10]} ({versions}).",
            "",
        ]
    )


def _markdown(table: Any) -> list[str]:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in cells)} |"

    names, rows = shown(table)
    return [line(names), line(["---"] * len(names)), *map(line, rows)]
