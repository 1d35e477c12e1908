"""What the package measures is what it measured when the records were made.

A difference is either a mistake, or a renaming on purpose, which :mod:`golden.compare` lists, or a change of what is
measured, after which ``python -m golden.record`` writes the records again.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from golden import compare
from golden.record import FIXED_POINT, RECORDS, STUDIES, images_of, portable, read_page
from golden.subjects import DYADIC, Toy
from golden.values import Attacked, AuditOutput, StudyOutput
from support.toy_photos import one_thread

IMAGES = json.loads((RECORDS / "images.json").read_text(encoding="utf-8"))
NAMES = sorted(path.stem.removeprefix("study-") for path in RECORDS.glob(STUDIES))

CLOSE = 2e-9
"""How far pixel values may be apart that are recorded as such; a grey level is 4e-3."""


@dataclass(frozen=True)
class Made:
    """All that the toy's audits and studies leave."""

    studies: dict[str, StudyOutput]
    audit: AuditOutput
    pictures: tuple[str, ...]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    toy = Toy(DYADIC, tmp_path_factory.mktemp("golden") / "work")
    studies, audit = dict(toy.studies()), toy.audited()
    return Made(studies, audit, toy.pictures())


@pytest.fixture(scope="module")
def pages() -> dict[str, tuple[list[str], list[float]]]:
    rows = pq.read_table(RECORDS / "pages.parquet").to_pylist()
    return {row["page"]: (row["labels"], row["numbers"]) for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_the_recorded_table_and_figure(made: Made, pages: dict[str, Any], name: str) -> None:
    study = made.studies[name]
    recorded = pq.read_table(RECORDS / f"study-{name}.parquet")
    assert compare.tables(recorded, study.table) == []
    labels, numbers = read_page(study.figure)
    recorded_labels, recorded_numbers = pages[name]
    assert compare.pages((recorded_labels[: len(labels)], recorded_numbers), (labels, numbers)) == []


def test_an_audit_has_the_recorded_rows_summary_and_report(made: Made, pages: dict[str, Any]) -> None:
    assert compare.tables(pq.read_table(RECORDS / "audit.parquet"), portable(made.audit.rows)) == []
    summary = json.loads((RECORDS / "summary.json").read_text(encoding="utf-8"))
    assert compare.nested(summary, made.audit.summary) == []
    # The report's words may change, its figures may not.
    assert compare.pages(([], pages["report"][1]), ([], read_page(made.audit.report)[1])) == []


def test_every_picture_of_the_toys_runs_is_recorded(made: Made) -> None:
    recorded = json.loads((RECORDS / "pictures.json").read_text(encoding="utf-8"))
    assert [digest[:16] for digest in made.pictures] == recorded


def test_nothing_is_made_that_is_not_recorded(made: Made, attacks: dict[str, Attacked]) -> None:
    assert sorted(made.studies) == NAMES
    assert attacks.keys() == IMAGES.keys()


@pytest.mark.parametrize("name", IMAGES)
def test_an_attack_makes_the_recorded_images(attacks: dict[str, Attacked], name: str) -> None:
    found = images_of(attacks[name])
    values = found.pop("values", None)
    assert found == IMAGES[name]
    if values is not None:
        (recorded,) = pq.read_table(RECORDS / "images.parquet", filters=[("attack", "=", name)])["values"].to_pylist()
        apart = (values.double() - torch.tensor(recorded).double()).abs() / FIXED_POINT
        assert float(apart.max()) <= CLOSE, f"{int((apart > CLOSE).sum())} values differ"


def test_differences_are_seen_and_renamings_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pa.table({"gap": [0.5, None], "verdict": ["held", "lost"]})
    assert compare.tables(before, pa.table({"gap": [0.5 + 1e-12, None], "verdict": ["held", "lost"]})) == []
    assert compare.tables(before, pa.table({"gap": [0.5 + 1e-8, None], "verdict": ["held", "lost"]})) == [
        "row 0, gap: 0.50000001, recorded 0.5"
    ]
    now = pa.table({"distance": [0.5, None], "verdict": ["holds", "lost"]})
    assert len(compare.tables(before, now)) == 1
    assert len(compare.pages((["held"], [1.0]), (["holds"], [1.1, 2.0]))) == 3
    monkeypatch.setattr(compare, "RENAMED", {"gap": "distance"})
    monkeypatch.setattr(compare, "REWORDED", {"held": "holds"})
    assert compare.tables(before, now) == []
    assert compare.nested([{"gap": "held"}], [{"distance": "holds"}]) == []
    assert compare.pages((["held"], [1.0]), (["holds"], [1.01])) == []
