"""The run of random rows that the report's cost is measured on is a run, and its report stays small."""

from pathlib import Path

import pytest

import underfire as uf
from benchmarks.large_run import INTERPRETERS, write_run
from underfire.report.build import MOST_BYTES


def test_it_is_a_run_with_a_small_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run", 330, batch_size=110)
    monkeypatch.setattr("underfire.auditing.found.MOST_HELD", 0)
    run = uf.load_run(tmp_path / "run")
    page = run.report().read_text(encoding="utf-8")
    assert run.rows.num_rows == 4 * (7 * len(run.attacked) + 330 - len(run.attacked))
    assert [headline.interpreter for headline in run.summary.headlines] == sorted(INTERPRETERS)
    assert len(page.encode()) < MOST_BYTES
    assert (tmp_path / "run" / "summary.json").stat().st_size < 300_000
