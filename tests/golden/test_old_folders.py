"""Runs and work folders that version 0.1 made stay valid: nothing that it finished is made again."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from golden import compare
from golden.record import RECORDS
from golden.subjects import DYADIC, Toy, here_and_now
from support.toy_photos import one_thread

MADE = RECORDS / "made-by-0.1.tar.xz"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The toy's photos, runs and work folders as version 0.1 left them, its runs those of this Python and torch."""
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    with one_thread():
        for path in (tmp_path / "made").rglob("run.json"):
            path.write_text(json.dumps(here_and_now(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    return tmp_path / "made"


def contents(folder: Path) -> Mapping[str, str]:
    """A hash of every file but locks, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_studies_find_what_an_old_version_made(made: Path) -> None:
    before = contents(made)
    with one_thread():
        studies = dict(Toy(DYADIC, made).studies())
    assert contents(made) == before
    for name, study in studies.items():
        assert compare.tables(pq.read_table(RECORDS / f"study-{name}.parquet"), study.table) == []


def test_an_old_run_that_was_interrupted_is_finished(made: Path) -> None:
    toy = Toy(DYADIC, made)
    before = contents(made / "run" / "artifacts")
    run = made / "run" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text(encoding="utf-8")) | {"finished": False}), encoding="utf-8")
    last = max((made / "run" / "rows").glob("*.parquet"))
    recorded = pq.read_table(last).drop_columns("seconds")
    last.unlink()
    with one_thread():
        toy.resumed("run")
    assert contents(made / "run" / "artifacts").keys() == before.keys()
    assert compare.tables(recorded, pq.read_table(last).drop_columns("seconds")) == []
    shutil.rmtree(made)
