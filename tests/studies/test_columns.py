"""The columns of a study's table, from the fields of its lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from underfire.studies.columns import fields_of_line


@dataclass(frozen=True)
class _Line:
    name: str
    kind: Literal["one", "other"]
    count: int
    share: float | None
    note: Literal["a"] | None
    counts: Mapping[str, int]


def test_a_column_has_the_kind_of_its_field_and_may_be_empty_where_that_may() -> None:
    assert fields_of_line(_Line, without=("counts",)) == [
        pa.field("name", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("share", pa.float64(), nullable=True),
        pa.field("note", pa.string(), nullable=True),
    ]
