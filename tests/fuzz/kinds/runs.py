"""Run directories that others filled, and what studies left in them.

Whatever is changed, the figures are those of the original, or a sentence tells of it. Only what is made up from
beginning to end, each number in its range, is taken: nobody signs a run. Such inputs are called forged here.
"""

import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fuzz.case import Case, Ended, Originals
from fuzz.kinds.originals import EVIDENCE, OTHER, STUDIED, resume
from fuzz.mutate import as_json, odd, spoilt_bytes, spoilt_json
from support.scripts import foreign_scripts
from support.toy_photos import MODEL_OPTIONS, rows_of
from underfire.auditing.rows import RANGES
from underfire.studies.study import read

_POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
    b"(ran) (w) file dup (hi) writestring closefile\nshowpage\n"
)
_FORGED, _TWICE = "forged", "plan and config"


def run(draw: Random, home: Path, originals: Originals) -> Case:
    """A copy of the audit with one or two changes, through one of the doors."""
    copy = home / "run"
    shutil.copytree(originals.run, copy)
    if draw.random() < 0.7:
        shutil.rmtree(copy / "studies")
    told = draw.choice(_SPOIL)(draw, copy, originals)
    with suppress(Exception):  # what was spoilt first may leave nothing to spoil
        told += "; " + draw.choice(_SPOIL)(draw, copy, originals) if draw.random() < 0.25 else ""
    door = draw.choice(("report", "report", "resume", "resume", "study"))
    study_name = draw.choice(list(STUDIED))
    command = {
        "report": ("report", "run"),
        "resume": resume(originals, "run"),
        "study": ("study", study_name, "run", *draw.choice(((), MODEL_OPTIONS)), *STUDIED[study_name]),
    }[door]

    def wrong(ended: tuple[Ended, ...]) -> str | None:
        if ended[0].code or _FORGED in told or (door == "study" and _TWICE in told):
            return None
        if door == "study":
            return _other_study(copy, originals, study_name)
        return _other_figures(copy, originals, ended[0])

    return Case(f"{door}: {told}", (tuple(command),), wrong)


def evidence(draw: Random, home: Path, originals: Originals) -> Case:
    """A copy of the audit with a change, of which the evidence is written."""
    copy = home / "run"
    shutil.copytree(originals.run, copy)
    told = draw.choice(_SPOIL)(draw, copy, originals)

    def wrong(ended: tuple[Ended, ...]) -> str | None:
        if ended[0].code == 2 or _FORGED in told:
            return None
        mine, theirs = (
            json.loads((folder / "results.json").read_text(encoding="utf-8"))
            for folder in (home / EVIDENCE, originals.path / EVIDENCE)
        )
        same = all(mine[key] == theirs[key] for key in ("figures", "samples", "unreliable"))
        return None if same else "other figures, and nothing is told"

    return Case(told, (("evidence", "run", "--out", EVIDENCE),), wrong, (0, 1, 2))


def study(draw: Random, home: Path, originals: Originals) -> Case:
    """What a study keeps and leaves is spoilt: its file, its cache."""
    copy = home / "run"
    shutil.copytree(originals.run, copy)
    name = draw.choice(list(STUDIED))
    saved = copy / "studies" / f"{name}.parquet"
    if draw.random() < 0.5:
        told = draw.choice((_study_facts, _study_facts, _study_table, _spoil_file, _in_place))(draw, saved)
        command: tuple[str, ...] = draw.choice((("report", "run"), resume(originals, "run")))
        return Case(f"{name}: {told}", (command,), lambda ended: _unsafe_page(copy) if ended[0].code == 0 else None)
    kept = sorted(path for path in (copy / "studies" / "work").rglob("*") if path.is_file())
    path = draw.choice(kept)
    told = draw.choice((_spoil_file, _spoil_file, _in_place, _cached))(draw, path)
    command = ("study", name, "run", *(MODEL_OPTIONS if STUDIED[name] else ()), *STUDIED[name])

    def wrong(ended: tuple[Ended, ...]) -> str | None:
        return None if ended[0].code or _FORGED in told else _other_study(copy, originals, name)

    return Case(f"{path.relative_to(copy)}: {told}", (command,), wrong)


# --- what must be the same ---


def _other_figures(copy: Path, originals: Originals, ended: Ended) -> str | None:
    if "unfinished" in ended.complained:
        return None
    if _summary(copy) != _summary(originals.run):
        return "other figures, and nothing is told"
    if rows_of(copy) != rows_of(originals.run):
        return "other rows, and nothing is told"
    return _unsafe_page(copy)


def _summary(copy: Path) -> Any:
    return _timeless(json.loads((copy / "summary.json").read_text(encoding="utf-8")))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if "seconds" not in name}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _unsafe_page(copy: Path) -> str | None:
    page = (copy / "report.html").read_text(encoding="utf-8")
    return "the page has a script that is not its own" if foreign_scripts(page) else None


def _other_study(copy: Path, originals: Originals, name: str) -> str | None:
    mine, theirs = ({s.study.name: s.study for s in read(path / "studies")}[name] for path in (copy, originals.run))
    if (mine.claims, mine.words) != (theirs.claims, theirs.words) or not _same(mine.table, theirs.table):
        return f"the study {name} has other figures, and nothing is told"
    return None


def _same(mine: pa.Table, theirs: pa.Table) -> bool:
    timed = [name for name in theirs.column_names if "seconds" in name]
    return bool(mine.drop_columns(timed).equals(theirs.drop_columns(timed)))


# --- run.json ---


def _facts(draw: Random, copy: Path, _: Originals) -> str:
    path = copy / "run.json"
    content, told = spoilt_json(draw, json.loads(path.read_text(encoding="utf-8")))
    path.write_bytes(as_json(content))
    return f"run.json {told}"


def _fact_of_a_section(draw: Random, copy: Path, _: Originals) -> str:
    path = copy / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    section = draw.choice(("plan", "config", "threat_model", "model", "photos", "skipped", "model_checks", "versions"))
    content[section], told = spoilt_json(draw, content[section])
    path.write_bytes(as_json(content))
    return f"run.json {section} {told}"


def _same_fact_twice(draw: Random, copy: Path, _: Originals) -> str:
    """Plan and configuration agree on something odd."""
    path = copy / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    name = draw.choice(sorted(set(content["plan"]) & set(content["config"])))
    value = draw.choice(
        (odd(draw), odd(draw), 1, 2, "evil:go", ["evil:go"], ["grad"], ["cam", "grad"], {"spec": "evil:go"})
    )
    content["plan"][name] = content["config"][name] = value
    path.write_bytes(as_json(content))
    return f"run.json {_TWICE} {name} {str(value)[:40]!r}"


def _key(draw: Random, copy: Path, _: Originals) -> str:
    path = copy / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    photo = draw.choice(content["photos"])
    key = draw.choice(
        (
            str(copy.parents[1] / "outside"),
            "../../outside",
            "..",
            ".",
            "",
            "*",
            "00000-*",
            photo["key"] + "/..",
            "../rows",
            "x" * 300,
            photo["key"].upper(),
        )
    )
    photo["key"] = key
    if draw.random() < 0.3:
        photo["sha256"] = (key + photo["sha256"])[:64]
    path.write_bytes(as_json(content))
    return f"run.json key {key[:30]!r}"


# --- rows ---


def _part(draw: Random, copy: Path) -> Path:
    return draw.choice(sorted((copy / "rows").glob("*.parquet")))


def _row_bytes(draw: Random, copy: Path, _: Originals) -> str:
    return f"part {_spoil_file(draw, _part(draw, copy))}"


_VALUES: tuple[Any, ...] = (
    0,
    1,
    7,
    -1,
    9,
    2**62,
    0.0,
    0.5,
    1.0,
    7.5,
    -4.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    "",
    "x",
    "cam",
    "grad",
    "none",
    "../x",
    True,
    False,
    None,
)


def _column(draw: Random, copy: Path, _: Originals) -> str:
    """One value, or all, of a column, past the checks of a row; those of measurements are forged where in range."""
    path = _part(draw, copy)
    table = pq.read_table(path)
    name = draw.choice(table.column_names)
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    values = table[name].to_pylist()
    for index in range(len(values)) if draw.random() < 0.5 else [draw.randrange(len(values))]:
        values[index] = draw.choice((*_VALUES, *values))
    try:
        column = pa.array(values, field.type)
        if not field.nullable and column.null_count:
            field = field.with_nullable(True)
    except (pa.ArrowException, TypeError, OverflowError, ValueError):
        column = pa.array([str(value) for value in values])
        field = pa.field(name, pa.string())
    pq.write_table(table.set_column(place, field, column), path, write_page_checksum=True)
    return f"{_FORGED if name in _MEASURED else 'column'} {name} {str(values)[:60]}"


_MEASURED = (RANGES.keys() | {"success", "success_8bit"}) - {"label", "target"}


def _rows(draw: Random, copy: Path, originals: Originals) -> str:
    path = _part(draw, copy)
    table = pq.read_table(path)
    count = len(table)
    how = draw.choice(("fewer", "twice", "none", "shuffle", "columns", "other", "all", "groups", "compressed"))
    options: dict[str, Any] = {"write_page_checksum": True}
    if how == "fewer":
        table = table.take(pa.array(sorted(draw.sample(range(count), draw.randrange(count))), pa.int64()))
    elif how == "twice":
        table = pa.concat_tables([table] * draw.choice((2, 50)))
    elif how == "none":
        table = table.slice(0, 0)
    elif how == "shuffle":
        table = table.take(draw.sample(range(count), count))
    elif how == "columns":
        table = table.drop_columns([draw.choice(table.column_names)])
    elif how == "other":
        table = pq.read_table(originals.path / OTHER / "rows" / path.name)
    elif how == "all":
        table = pa.concat_tables([pq.read_table(one) for one in sorted(path.parent.glob("*.parquet"))])
    elif how == "groups":
        options["row_group_size"] = 1
    else:
        options["compression"] = draw.choice(("gzip", "zstd", "brotli", "none"))
        table = pa.concat_tables([table] * draw.choice((1, 3000)))
    pq.write_table(table, path, **options)
    return f"rows {how}"


def _parts(draw: Random, copy: Path, originals: Originals) -> str:
    path = _part(draw, copy)
    how = draw.choice(("lost", "swapped", "further", "further", "of another run", "renamed"))
    if how == "lost":
        path.unlink()
    elif how == "swapped":
        first, last = (lambda all_parts: (all_parts[0], all_parts[-1]))(sorted(path.parent.glob("*.parquet")))
        data = first.read_bytes()
        first.write_bytes(last.read_bytes())
        last.write_bytes(data)
    elif how == "of another run":
        shutil.copy(originals.path / OTHER / "rows" / path.name, path)
    else:
        names = ("00007", "1", "00001", "x", "-1", "9" * 20)
        to = path.with_name(f"part-{draw.choice(names)}.parquet")
        data = path.read_bytes()
        if how == "renamed":
            path.unlink()
        to.write_bytes(data)
    return f"part {how}"


# --- artifacts, links, pipes ---


def _picture(draw: Random, copy: Path, originals: Originals) -> str:
    path = draw.choice(sorted((copy / "artifacts").rglob("*.png")))
    how = draw.choice(("postscript", "format", "size", "mode", "bytes", "of another", "lost"))
    if how == "postscript":
        path.write_bytes(_POSTSCRIPT)
    elif how in ("format", "size", "mode"):
        side = draw.choice((1, 31, 33, 4000)) if how == "size" else 32
        buffer = io.BytesIO()
        kind = draw.choice(("JPEG", "GIF", "BMP", "TIFF", "PPM")) if how == "format" else "PNG"
        mode = draw.choice(("L", "1", "RGBA" if kind == "PNG" else "L")) if how == "mode" else "RGB"
        Image.new(mode, (side, side)).save(buffer, kind)
        path.write_bytes(buffer.getvalue())
    elif how == "of another":
        path.write_bytes(draw.choice(sorted((copy / "artifacts").rglob("*.png"))).read_bytes())
        return f"{_FORGED} picture {path.name}"
    elif how == "lost":
        path.unlink()
    else:
        return f"{_FORGED} {path.name} {_spoil_file(draw, path)}"
    return f"{path.name} {how}"


def _maps(draw: Random, copy: Path, _: Originals) -> str:
    path = draw.choice(sorted((copy / "artifacts").rglob("*.safetensors")))
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    how = draw.choice(("bytes", "header", "shape", "type", "values", "large"))
    if how == "bytes":
        return f"{_FORGED} maps {_spoil_file(draw, path)}"
    entry = header[draw.choice([name for name in header if name != "__metadata__"])]
    if how == "header":
        header, how = spoilt_json(draw, header)
    elif how == "shape":
        entry["shape"] = draw.choice(([], [0, 8], [2**40, 2**30], [1] * 9, entry["shape"][::-1], [64, 1]))
    elif how == "type":
        entry["dtype"] = draw.choice(("F64", "BF16", "F16", "I8", "BOOL", "F8_E4M3", "C64"))
    elif how == "large":
        entry.update(shape=[10**4, 10**4], data_offsets=[len(rest), len(rest) + 4 * 10**8])
        rest += bytes(10**6)
    else:
        value = struct.pack("<f", draw.choice((float("nan"), float("inf"), -1.0, 2.0, 1e30)))
        rest = value * (len(rest) // 4)
    written = as_json(header)
    path.write_bytes(struct.pack("<Q", len(written)) + written + rest)
    return f"{_FORGED} maps {how}"


def _entry(draw: Random, copy: Path, _: Originals) -> str:
    """Anything of the run is replaced by a link, a pipe, a folder, a device, nothing."""
    path = draw.choice(
        [*sorted(copy.rglob("*")), copy / ".lock", copy / "studies", copy / "report.html", copy / "summary.json"]
    )
    return f"{path.relative_to(copy)} {_in_place(draw, path)}"


def _stranger(draw: Random, copy: Path, _: Originals) -> str:
    place = draw.choice([copy, *(path for path in copy.rglob("*") if path.is_dir())])
    path = place / draw.choice(
        (
            "x",
            ".x",
            "run.json.bak",
            "part-00009.parquet.tmp",
            ".part-00000.parquet.1.tmp",
            "evil.py",
            "x.png",
            "transfer.parquet",
            "\x1b[31m",
            "conftest.py",
        )
    )
    if draw.random() < 0.5:
        path.write_bytes(draw.choice((b"", b"x", b"{}")))
        return f"stranger {path.name!r}"
    path.mkdir(exist_ok=True)
    return f"stranger folder {path.name!r}"


def _in_place(draw: Random, path: Path) -> str:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    how = draw.choice(("link", "link", "pipe", "folder", "empty", "nothing", "device"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "link":
        target = draw.choice(
            (
                str(path.parents[len(path.parts) - 2] / "dev/zero"),
                "../../outside",
                "../../../outside",
                "../../outside/thesis",
                ".",
                "nowhere",
                "run.json",
                "/dev/null",
            )
        )
        path.symlink_to(target)
        how = f"link to {target[-20:]}"
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "device" and os.geteuid() == 0:
        os.mknod(path, 0o020666, os.makedev(1, 5))
    elif how != "nothing":
        path.touch()
    return how


def _spoil_file(draw: Random, path: Path) -> str:
    data, told = spoilt_bytes(draw, path.read_bytes() or b"x")
    path.write_bytes(data)
    return f"bytes {told}"


# --- studies ---


def _study_facts(draw: Random, path: Path) -> str:
    table = pq.read_table(path)
    (key, content), *_ = ((k, v) for k, v in table.schema.metadata.items() if b"underfire" in k)
    changed, told = spoilt_json(draw, json.loads(content))
    pq.write_table(table.replace_schema_metadata({key: as_json(changed)}), path, write_page_checksum=True)
    return told


def _study_table(draw: Random, path: Path) -> str:
    table = pq.read_table(path)
    how = draw.choice(("fewer", "type", "nested", "twice", "many", "odd"))
    metadata = table.schema.metadata
    if how == "fewer":
        table = table.drop_columns([draw.choice(table.column_names)])
    elif how == "many":
        table = table.take([0] * 200_000)
    elif how == "twice":
        table = pa.table([*table.columns, table.column(0)], [*table.column_names, table.column_names[0]])
    else:
        values: Any = {
            "type": [b"\xff"] * len(table), "nested": [[{"a": [1]}]] * len(table), "odd": [draw.choice((float("nan"),
            float("inf"), 1e308, -0.0))] * len(table),
        }[how]  # fmt: skip
        table = table.set_column(
            draw.randrange(table.num_columns), draw.choice(("n", "l1", "x_low", "<b>", "")), pa.array(values)
        )
    pq.write_table(table.replace_schema_metadata(metadata), path, write_page_checksum=True)
    return f"table {how}"


def _cached(draw: Random, path: Path) -> str:
    if path.suffix != ".json":
        return _spoil_file(draw, path)
    content, told = spoilt_json(draw, json.loads(path.read_text(encoding="utf-8")))
    path.write_bytes(as_json(content))
    return f"{_FORGED} {told}"


Spoil = Callable[[Random, Path, Originals], str]
_SPOIL: tuple[Spoil, ...] = (
    _facts, _facts, _fact_of_a_section, _fact_of_a_section, _same_fact_twice, _same_fact_twice, _key, _row_bytes,
    _column, _column,
    _rows, _parts,
    _picture, _maps, _entry, _entry, _stranger,
)  # fmt: skip
