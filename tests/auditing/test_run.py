"""A run directory is read as it was made, and verified before anything in it is used."""

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from support.made_runs import planned_otherwise
from support.toy_photos import MISCLASSIFIED, found, toy_classifier, toy_plan, write_photos
from underfire.auditing.condition import Condition
from underfire.auditing.facts import run_facts
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, ModelSettings
from underfire.auditing.rows import SCHEMA
from underfire.auditing.run import Named, is_run, open_run, read_run
from underfire.auditing.runner import run_audit
from underfire.decoding import decoded
from underfire.errors import InputError

NAMED = Named(toy_plan().model)
"""The toy, which comes from elsewhere, as its user names it."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "run"
    run_audit(toy_plan(), found(photos), toy_classifier(), out)
    return out


def test_a_run_is_read_as_it_was_made(run: Path) -> None:
    read = read_run(run, NAMED)
    assert is_run(run)
    assert (read.plan, read.finished, read.missing) == (replace(toy_plan(), device="cpu"), True, ())
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
def test_the_plan_of_an_old_run_comes_back_from_its_configuration(run: Path, plan: AuditPlan) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for name in ("plan", "conditions", "interpreters", "interpreter_settings", "map_checks"):
        del facts[name]
    facts["config"] = plan.as_config() | {"rts_sha256": None}
    facts["threat_model"] |= {"norm": plan.perturbation, "eps": plan.as_config()["eps"]}
    read = run_facts(json.loads(json.dumps(facts)))
    assert read.settings.as_config() == plan.as_config()
    assert read.attacked_under == plan.conditions
    assert [read.settings.effort_of(c) for c in plan.conditions] == [plan.effort_of(c) for c in plan.conditions]
    assert run_facts(json.loads(json.dumps(read.to_json()))) == read


def test_another_model_under_the_same_name_is_refused(run: Path) -> None:
    named = replace(NAMED, model=replace(toy_plan().model, std=(0.2, 0.2, 0.2)))
    with pytest.raises(InputError, match="has other weights or preprocessing now"):
        read_run(run, named).classifier()


def test_code_and_files_are_named_by_the_user_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underfire.auditing.run.load_classifier", None)
    read = read_run(run)
    with pytest.raises(InputError, match=r"name them yourself: --model 'support\.toys:relu_net'$"):
        read.classifier()
    model = replace(read.plan.model, spec="efficientnet-lite0", checkpoint="/dev/zero", class_names="/dev/tty")
    strange = planned_otherwise(read, model=model, interpreters=("acme_unseen:Maps", "rts"), rts="/dev/stdin")
    with pytest.raises(InputError) as refused:
        strange.classifier()
    assert str(refused.value).endswith(
        "--model 'efficientnet-lite0' --checkpoint '/dev/zero' --class-names '/dev/tty' --rts '/dev/stdin' "
        "--interpreters 'acme_unseen:Maps'"
    )
    with pytest.raises(InputError, match="'acme_unseen:Maps' is unknown"):
        make_interpreters(strange.plan.interpreters, toy_classifier())


def test_what_the_user_leaves_open_and_is_no_file_comes_from_the_run(run: Path) -> None:
    read = read_run(run, Named(ModelSettings("support.toys:relu_net")))
    assert read.classifier().fingerprint() == toy_classifier().fingerprint()


def test_other_weights_of_rts_under_the_same_name_are_refused(run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "rts.safetensors"
    weights.write_bytes(b"as audited")
    read = read_run(run, replace(NAMED, rts=str(weights)))
    config = {**read.facts.config, "rts_sha256": hashlib.sha256(b"as audited").hexdigest()}
    audited = planned_otherwise(
        replace(read, facts=replace(read.facts, config=config)), interpreters=("rts", "cam"), rts="elsewhere"
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


def test_an_unfinished_run_can_be_opened_for_a_report_and_nothing_else(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "rows" / "part-00001.parquet").unlink()
    unfinished = open_run(copy)
    assert (unfinished.finished, unfinished.parts, unfinished.finished_parts) == (False, 3, 2)
    assert unfinished.missing == (1,)
    with pytest.raises(InputError, match="is unfinished: 3 of its 5 photos have rows"):
        read_run(copy)


def test_every_plan_comes_back_from_json() -> None:
    for plan in (
        AuditPlan(),
        toy_plan(),
        AuditPlan(limit=2, attacks=("pgd", "mine-cam+grad"), left_out=("rts (none)",)),
    ):
        assert decoded(AuditPlan, json.loads(json.dumps(asdict(plan)))) == plan


def test_rows_are_a_table_and_the_summary_is_made_once(run: Path) -> None:
    read = read_run(run)
    assert read.rows.num_rows == len(read.records)
    assert read.rows.column_names == SCHEMA.names
    assert read.summary is read.summary


def test_rows_of_many_photos_are_read_again_and_verified_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = open_run(run)
    monkeypatch.setattr("underfire.auditing.found.MOST_HELD", 0)
    many = open_run(Path(shutil.copytree(run, tmp_path / "run")))
    assert (many.records, many.found.parts, many.missing) == (held.records, held.found.parts, held.missing)
    assert many.rows.equals(held.rows)
    assert many.attacked == held.attacked
    part = many.path / "rows" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"part-00000\.parquet' cannot be read"):
        _ = many.summary
