"""A run directory is read as it was made, and verified before anything in it is used."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.made_runs import planned_otherwise
from support.toy_photos import MISCLASSIFIED, found, toy_classifier, toy_plan, write_photos
from underfire.auditing.condition import Condition
from underfire.auditing.plan import AuditPlan
from underfire.auditing.rows import SCHEMA
from underfire.auditing.run import is_run, open_run, read_run
from underfire.auditing.runner import run_audit
from underfire.errors import InputError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "run"
    run_audit(toy_plan(), found(photos), toy_classifier(), out)
    return out


def test_a_run_is_read_as_it_was_made(run: Path) -> None:
    read = read_run(run)
    assert is_run(run)
    assert read.plan == toy_plan()
    assert read.classifier().fingerprint() == toy_classifier().fingerprint()
    assert [photo.image_id for photo in read.photos if photo.excluded] == [MISCLASSIFIED]
    for photo in (photo for photo in read.photos if photo.excluded is None):
        assert read.picture(photo, Condition.on("adv2", "cam")).is_file()
    with pytest.raises(InputError, match=r"stadv\.png' is missing"):
        read.picture(read.photos[0], Condition("stadv"))


@pytest.mark.parametrize(
    "plan",
    [
        AuditPlan(),
        AuditPlan(passes=20, seed=3, interpreters=("cam",)),
        AuditPlan(steps=7),
        AuditPlan(preset="authors", interpreters=("grad", "cam")),
        AuditPlan(preset="authors", interpreters=("grad", "cam"), passes=9),
        AuditPlan(attacks=("pgd", "adv2", "square"), preset="standard"),
        AuditPlan(perturbation="flow", eps=1.5, attacks=("pgd", "stadv"), limit=3, targets="next"),
    ],
)
def test_the_plan_of_an_old_run_comes_back_from_its_configuration(run: Path, tmp_path: Path, plan: AuditPlan) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del facts["plan"]
    facts["config"] = plan.as_config() | {"rts_sha256": None}
    (tmp_path / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    read = read_run(tmp_path).plan
    assert read.as_config() == plan.as_config()
    assert [read.effort_of(c) for c in read.conditions] == [plan.effort_of(c) for c in plan.conditions]


def test_what_is_no_finished_run_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run\.json"):
        read_run(photos)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"finished": False}, "is unfinished"),
        ({"plan": {"seeds": 1}}, "is damaged"),
        ({"plan": None}, "is damaged"),
        ({"photos": [facts["photos"][0] | {"key": "../../elsewhere"}]}, "is damaged"),
        ({"photos": []}, "names no photo"),
        ({"photos": [{}]}, "is damaged"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(facts | change), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_run(tmp_path)


def test_another_model_under_the_same_name_is_refused(run: Path) -> None:
    read = read_run(run)
    changed = planned_otherwise(read, model=replace(read.plan.model, std=(0.2, 0.2, 0.2)))
    with pytest.raises(InputError, match="has other weights or preprocessing now"):
        changed.classifier()


def test_other_weights_of_rts_under_the_same_name_are_refused(run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "rts.safetensors"
    weights.write_bytes(b"as audited")
    read = read_run(run)
    config = read.facts["config"] | {"rts_sha256": hashlib.sha256(b"as audited").hexdigest()}
    audited = planned_otherwise(
        replace(read, facts={**read.facts, "config": config}), interpreters=("rts", "cam"), rts=str(weights)
    )
    assert audited.classifier().fingerprint() == toy_classifier().fingerprint()
    weights.write_bytes(b"trained again")
    with pytest.raises(InputError, match="weights of RTS are other ones now"):
        audited.classifier()
    weights.unlink()
    with pytest.raises(
        InputError, match=r"weights of RTS '.*rts\.safetensors' of the run .* cannot be read \(No such file"
    ):
        audited.classifier()


def test_an_unfinished_or_bare_run_can_be_opened_for_a_report(run: Path, tmp_path: Path) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8")) | {"finished": False}
    (tmp_path / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    unfinished = read_run(tmp_path, unfinished=True)
    assert (unfinished.finished, unfinished.parts, unfinished.finished_parts) == (False, 3, 0)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    assert open_run(tmp_path).rows.num_rows == 0
    with pytest.raises(InputError, match="is damaged"):
        open_run(tmp_path).plan.seed.bit_length()


def test_every_plan_comes_back_from_json() -> None:
    for plan in (
        AuditPlan(),
        toy_plan(),
        AuditPlan(limit=2, attacks=("pgd", "mine-cam+grad"), left_out=("rts (none)",)),
    ):
        assert AuditPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_rows_are_a_table_and_the_summary_is_made_once(run: Path) -> None:
    read = read_run(run)
    assert read.rows.num_rows == len(read.records)
    assert read.rows.column_names == SCHEMA.names
    assert read.summary is read.summary
