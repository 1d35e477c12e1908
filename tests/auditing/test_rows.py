"""Rows on disk: what is written comes back, whole or not at all."""

import contextlib
import errno
import hashlib
import math
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.rows import row
from underfire.auditing.distances import MEASURES, measures_of
from underfire.auditing.rows import (
    OLDEST_SCHEMA,
    RANGES,
    SCHEMA,
    SCHEMA_VERSION,
    Row,
    read_rows,
    schema_of,
    table_of,
    write_part,
)
from underfire.diagnostics.attack_signs import ImageCourse, ImageTrace
from underfire.errors import InputError

ROW = row(
    label=3, target=7, interpreter="grad", success=True, confidence=0.9, clean_confidence=0.8, l1=0.1, iou_50=0.5,
    iou_25=0.25, iou_75=0.75, iou_top20=0.2, topk_20=0.3, spearman=-0.4, kendall=-0.3, pearson=0.6, ssim=0.7,
    linf=8 / 255, l2=1.5, confidence_8bit=0.85, l1_8bit=0.11, iou_50_8bit=0.51, iou_25_8bit=0.26, iou_75_8bit=0.76,
    iou_top20_8bit=0.21, topk_20_8bit=0.31, spearman_8bit=-0.41, kendall_8bit=-0.31, pearson_8bit=0.61,
    ssim_8bit=0.71, steps=300, passes=301, seconds=1.25, used=8 / 255,
)  # fmt: skip


def test_rows_come_back_in_the_order_of_parts(tmp_path: Path) -> None:
    first = [ROW, row(ROW, attack="none", source="-", excluded="misclassified")]
    second = [row(ROW, image_id="b.jpg")]
    write_part(tmp_path / "rows" / "part-00001.parquet", second)
    write_part(tmp_path / "rows" / "part-00000.parquet", first)
    assert read_rows(tmp_path) == [*first, *second]
    assert read_rows(tmp_path / "rows") == [*first, *second]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(-1e100, 1e100))
def test_any_name_and_number_come_back(tmp_path: Path, name: str, number: float) -> None:
    changed = row(ROW, image_id=name, stuck=0.0, nll_kept=number)
    write_part(tmp_path / "part-0.parquet", [changed])
    assert read_rows(tmp_path) == [changed]


# Of the columns' names, types and order in the versions of the schema that are read. Another hash of the newest asks
# for another version.
SCHEMA_HASHES = {
    2: "c9467518a9b6ba524c7e86d8b4bca04a3d564d725378fdf4191ed4685946ca1b",
    3: "fad10125580d8e8a9ab378e74e897d3d25594afa2e4210350c2d416c6efbd2ed",
}


def test_the_schemas_are_those_of_their_versions() -> None:
    assert list(SCHEMA_HASHES) == list(range(OLDEST_SCHEMA, SCHEMA_VERSION + 1))
    for version, recorded in SCHEMA_HASHES.items():
        columns = [(field.name, str(field.type), field.nullable) for field in schema_of(version)]
        assert hashlib.sha256(repr(columns).encode()).hexdigest() == recorded


def test_the_schema_is_the_row() -> None:
    assert SCHEMA.names == list(ROW.columns())
    course = ["stuck", "nll_first", "nll_half", "nll_kept", "gap_first", "gap_half", "gap_kept"]
    younger = [f"{name}{ending}" for ending in ("", "_8bit") for name in MEASURES if name not in measures_of(2)]
    assert [field.name for field in SCHEMA if field.nullable] == ["goal", "excluded", *younger, *course]
    assert SCHEMA.field("success_8bit").type == pa.bool_()
    assert SCHEMA.field("passes").type == pa.int64()
    assert SCHEMA.field("l1").type == pa.float64()
    assert table_of([ROW]).to_pylist() == [ROW.columns()]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_stops_with_the_photos_name(value: float) -> None:
    with pytest.raises(ValueError, match=r"'a.jpg': iou_75_8bit is .* \(adv2-cam, map of grad\)"):
        row(ROW, iou_75_8bit=value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, -0.01) for name in ("l1", "iou_50_8bit", "iou_top20", "confidence", "linf")),
        *((name, 1.01) for name in ("l1", "iou_50_8bit", "iou_top20", "confidence", "linf", "topk_20", "ssim_8bit")),
        *((name, -1.01) for name in ("spearman", "kendall_8bit", "pearson", "ssim")), ("topk_20", -0.01),
        ("l2", -1.0), ("passes", -1), ("seconds", 1e308), ("eps", -1.0), ("prediction", -1), ("nll_kept", 1e308),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_named(column: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"'a.jpg': {column} is {re.escape(str(value))}, not within"):
        Row.of_columns(ROW.columns() | {"stuck": 0.0, column: value})


def test_every_number_has_a_range() -> None:
    numbers = {field.name for field in SCHEMA if field.type in (pa.int64(), pa.float64())}
    assert numbers - RANGES.keys() == {"seed"}
    assert all(-1e100 <= low < high <= 1e100 for low, high in RANGES.values())  # sums of many are finite


def test_the_course_of_an_attack_comes_back(tmp_path: Path) -> None:
    attacked = row(ROW, stuck=0.5, nll_first=9.0, nll_half=1.0, nll_kept=0.5)
    joint = row(attacked, gap_first=0.3, gap_kept=0.1)
    write_part(tmp_path / "part-0.parquet", [ROW, attacked, joint])
    assert [read.trace for read in read_rows(tmp_path)] == [
        None,
        ImageTrace(0.5, ImageCourse(9.0, 1.0, 0.5), None),
        ImageTrace(0.5, ImageCourse(9.0, 1.0, 0.5), ImageCourse(0.3, None, 0.1)),
    ]
    with pytest.raises(ValueError, match="gap_half is inf"):
        row(joint, gap_half=math.inf)


def test_an_excluded_photo_has_no_row_of_an_attack() -> None:
    with pytest.raises(ValueError, match=r"'a.jpg' is excluded \(misclassified\).*adv2-cam"):
        row(ROW, excluded="misclassified")


def test_a_part_without_rows_and_a_run_without_parts_are_empty(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    write_part(tmp_path / "part-0.parquet", [])
    assert read_rows(tmp_path) == []


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("underfire.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_part(part, [ROW, row(ROW, image_id="b.jpg")])
    assert read_rows(tmp_path) == [ROW]
    assert [path.name for path in tmp_path.iterdir()] == ["part-0.parquet"]


def test_what_a_killed_process_left_is_ignored(tmp_path: Path) -> None:
    write_part(tmp_path / "part-0.parquet", [ROW])
    (tmp_path / f".part-1.parquet.{os.getpid()}.tmp").write_bytes(b"PAR1 half a file")
    assert read_rows(tmp_path) == [ROW]
    write_part(tmp_path / "part-1.parquet", [ROW])  # the leftover of the same name is no obstacle
    assert read_rows(tmp_path) == [ROW, ROW]


@pytest.mark.parametrize("name", ["rows.parquet", "part-0.csv", ".part-0.parquet"])
def test_a_part_that_reading_would_miss_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="part-"):
        write_part(tmp_path / name, [ROW])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"not parquet", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_damaged_part_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "part-00003.parquet").write_bytes(damage)
    with pytest.raises(InputError, match=r"part-00003\.parquet' cannot be read .*delete it"):
        read_rows(tmp_path)


def test_a_part_cut_anywhere_is_named(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])
    whole = part.read_bytes()
    for length in range(0, len(whole), 997):
        part.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"part-0\.parquet"):
            read_rows(tmp_path)


def test_a_changed_byte_never_changes_a_row_silently(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])
    whole = part.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    for place in range(4, len(whole) - footer, 29):  # the pages; the footer is not checksummed by the format
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(InputError):  # unused bytes may change without harm
            assert read_rows(tmp_path) == [ROW]


def test_other_schemas_are_refused(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({"underfire.rows": "999"}), part)
    with pytest.raises(InputError, match="schema version '999'"):
        read_rows(tmp_path)
    pq.write_table(table.drop_columns(["l1"]), part)
    with pytest.raises(InputError, match=r"part-0\.parquet"):
        read_rows(tmp_path)
    pq.write_table(pa.table({"x": [1]}), part)
    with pytest.raises(InputError, match="schema version 'none'"):
        read_rows(tmp_path)


def test_a_row_that_no_audit_writes_is_named(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])
    table = pq.read_table(part)
    index = table.schema.get_field_index("l1")
    pq.write_table(table.set_column(index, SCHEMA.field("l1"), pa.array([math.nan])), part)
    with pytest.raises(InputError, match=r"part-0\.parquet.*l1 is nan"):
        read_rows(tmp_path)


@pytest.mark.parametrize("column", list(RANGES))
def test_a_number_out_of_range_in_any_line_of_a_part_is_named(tmp_path: Path, column: str) -> None:
    part = tmp_path / "part-0.parquet"
    rows = [row(ROW, image_id=f"{index}.jpg", stuck=0.0, nll_kept=0.1, gap_kept=0.1) for index in range(3)]
    write_part(part, rows)
    assert read_rows(tmp_path) == rows
    table, kind = pq.read_table(part), SCHEMA.field(column).type
    above = 2 * RANGES[column][1] + 1
    values = [*table.column(column).to_pylist()[:2], int(above) if kind == pa.int64() else above]
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, SCHEMA.field(column), pa.array(values, kind)), part)
    with pytest.raises(InputError, match=rf"part-0\.parquet.*'2\.jpg': {column} is "):
        read_rows(tmp_path)


def test_an_excluded_photo_with_a_row_of_an_attack_is_named(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])
    table = pq.read_table(part)
    place = table.schema.get_field_index("excluded")
    pq.write_table(table.set_column(place, SCHEMA.field("excluded"), pa.array(["misclassified"])), part)
    with pytest.raises(InputError, match=r"part-0\.parquet.*excluded \(misclassified\) and yet has a row of adv2-cam"):
        read_rows(tmp_path)


def as_of_version_2(part: Path) -> list[str]:
    """Makes ``part`` one that version 2 of the schema wrote, and tells which columns that had not."""
    table = pq.read_table(part)
    lacking = [f"{name}{ending}" for name in MEASURES if name not in measures_of(2) for ending in ("", "_8bit")]
    lacking.append("goal")
    pq.write_table(table.drop_columns(lacking).replace_schema_metadata({"underfire.rows": "2"}), part)
    return lacking


def test_rows_of_version_2_lack_what_it_did_not_measure(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [ROW])
    lacking = as_of_version_2(part)
    assert len(lacking) == 13
    assert read_rows(tmp_path) == [Row.of_columns(ROW.columns() | dict.fromkeys(lacking))]
    write_part(tmp_path / "part-1.parquet", [ROW])  # whoever finishes the run measures it
    assert [row.distances.spearman for row in read_rows(tmp_path)] == [None, -0.4]


@pytest.mark.parametrize("column", ["spearman", "ssim_8bit"])
def test_rows_of_today_lack_nothing(tmp_path: Path, column: str) -> None:
    part = tmp_path / "part-0.parquet"
    write_part(part, [Row.of_columns(ROW.columns() | {column: None})])
    with pytest.raises(InputError, match=rf"part-0\.parquet.*{column} is missing"):
        read_rows(tmp_path)


def test_a_missing_folder_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_rows(tmp_path / "nowhere")
