"""Parquet files that others may have written, looked at before a page of them is unpacked."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from underfire.errors import InputError
from underfire.files import read_regular_file

_MOST_BYTES = 2**28  # packed, and unpacked


def open_parquet(path: Path, *, most_rows: int) -> Any:
    """The `pyarrow.parquet.ParquetFile` at ``path``, none of its pages read.

    Raises:
        InputError: it is no readable regular file, or has more than ``most_rows`` rows or more bytes than a table of
            ours. The message is the reason alone, a clause.
        pyarrow.ArrowException: it is no Parquet file.
    """
    source = pa.BufferReader(read_regular_file(path, limit=_MOST_BYTES))
    file = pq.ParquetFile(source, page_checksum_verification=True)
    about = file.metadata
    unpacked = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
    if about.num_rows > most_rows or unpacked > _MOST_BYTES:
        raise InputError(
            f"it has {about.num_rows} rows of {unpacked} bytes, and at most {most_rows} of {_MOST_BYTES} are read"
        )
    return file
