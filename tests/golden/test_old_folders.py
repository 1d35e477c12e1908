"""Runs and work folders that version 0.1 made stay valid: nothing that it finished is made again."""

import hashlib
import json
import math
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from golden import compare
from golden.record import RECORDS, STUDIES
from golden.subjects import DYADIC, Toy, here_and_now
from support.toy_photos import one_thread
from underfire.attacks.adv2 import ADV2
from underfire.auditing.condition import PGD
from underfire.auditing.gates import failures, parse_gate, tried
from underfire.auditing.run import read_run
from underfire.defenses.detector import Detector
from underfire.report.build import build_report
from underfire.stats import NO_ESTIMATE

MADE = RECORDS / "made-by-0.1.tar.xz"

THRESHOLDS = (-2764.8182258315155, -2740.846044614632)
"""Of detectors whose images it holds. The eigenvectors behind them have other last bits on other processors."""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The toy's photos, runs and work folders as version 0.1 left them, its runs those of this Python and torch."""
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    with one_thread():
        for path in (tmp_path / "made").rglob("run.json"):
            path.write_text(json.dumps(here_and_now(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    return tmp_path / "made"


@pytest.fixture
def recorded_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors have the thresholds that they had where the folders were made, to the last bit."""

    def recorded(detector: Detector) -> float:
        found = detector.calibration_.threshold
        return next((known for known in THRESHOLDS if math.isclose(found, known, rel_tol=1e-13)), found)

    monkeypatch.setattr(Detector, "threshold_", property(recorded))


def contents(folder: Path) -> Mapping[str, str]:
    """A hash of every file but locks, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _unchanged(rows: pa.Table) -> pa.Table:
    """Those of ``rows`` that are not ADV²'s, which makes other images by now."""
    return rows.filter(pc.invert(pc.equal(rows["attack"], ADV2.name)))


@pytest.mark.usefixtures("recorded_thresholds")
def test_studies_find_what_an_old_version_made(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, as long as the attack makes what it made; else those images are made again, beside the old ones."""
    before = contents(made)
    with one_thread():
        with monkeypatch.context() as patch:
            patch.setattr(ADV2, "version", 1)
            studies = dict(Toy(DYADIC, made).studies())
        assert contents(made) == before
        assert studies.keys() == {path.stem.removeprefix("study-") for path in RECORDS.glob(STUDIES)}
        assert dict(Toy(DYADIC, made).studies()).keys() == studies.keys()
    after = contents(made)
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[0] for name in after.keys() - before.keys()} == {"defence"}


def test_an_old_run_that_was_interrupted_is_finished(made: Path) -> None:
    toy = Toy(DYADIC, made)
    before = contents(made / "run" / "artifacts")
    run = made / "run" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text(encoding="utf-8")) | {"finished": False}), encoding="utf-8")
    last = max((made / "run" / "rows").glob("*.parquet"))
    recorded = _unchanged(pq.read_table(last).drop_columns("seconds"))
    last.unlink()
    with one_thread():
        toy.resumed("run")
    assert contents(made / "run" / "artifacts").keys() == before.keys()
    again = pq.read_table(last)
    assert compare.tables(recorded, _unchanged(again.select(recorded.column_names))) == []
    resumed = read_run(made / "run")
    measured = [row.distances.spearman is not None for row in resumed.records]
    assert sum(measured) == len(again) < len(measured)
    assert build_report(resumed).is_file()
    shutil.rmtree(made)


def test_an_old_run_has_its_report_and_its_gates(made: Path) -> None:
    run = read_run(made / "run")
    cell = run.summary.cell(PGD, "cam")
    assert cell is not None
    assert cell.distances.spearman is None
    assert cell.mean("spearman") == NO_ESTIMATE
    assert cell.mean("l1").n > 0
    assert failures(tried(run.summary, [parse_gate("l1>1"), parse_gate("spearman>1")])) == [
        "spearman>1 could not be checked: the run is older than spearman; run the audit again."
    ]
    assert build_report(run).is_file()
