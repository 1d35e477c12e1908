"""Studies work on a finished audit, as it was made, or on photos as an audit would take them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.toy_photos import BROKEN, MISCLASSIFIED, found, toy_classifier, toy_plan
from underfire.auditing.plan import AuditPlan
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.studies.source import attacked, decide, is_run, read_run


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "run"
    run_audit(toy_plan(), found(photos), toy_classifier(), out)
    return out


def test_a_run_is_read_as_it_was_made(run: Path) -> None:
    read = read_run(run)
    assert is_run(run)
    assert read.plan == replace(toy_plan(), eps=8 / 255)
    assert read.classifier().fingerprint() == toy_classifier().fingerprint()
    assert [photo.image_id for photo in read.photos if photo.excluded] == [MISCLASSIFIED]
    for photo in attacked(read.photos):
        assert read.picture(photo, "adv2-cam").is_file()
    with pytest.raises(InputError, match=r"stadv\.png' is missing"):
        read.picture(read.photos[0], "stadv")


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
def test_the_plan_comes_back_from_its_configuration(run: Path, tmp_path: Path, plan: AuditPlan) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["config"] = plan.as_config() | {"rts_sha256": None}
    (tmp_path / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    read = read_run(tmp_path).plan
    assert read.as_config() == plan.as_config()
    assert [read.effort_of(c) for c in read.conditions] == [plan.effort_of(c) for c in plan.conditions]


def test_photos_are_decided_as_an_audit_does(run: Path, photos: Path) -> None:
    read, decided = read_run(run), decide(toy_plan(), found(photos), toy_classifier())
    assert decided.photos == read.photos
    assert [skip.name for skip in decided.unusable] == [BROKEN]
    assert read.skipped == len(decided.skipped) + len(decided.unusable)


def test_what_is_no_finished_run_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run\.json"):
        read_run(photos)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"finished": False}, "is unfinished"),
        ({"config": {}}, "is damaged"),
        ({"photos": [{}]}, "is damaged"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(facts | change), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_run(tmp_path)


def test_another_model_under_the_same_name_is_refused(run: Path) -> None:
    read = read_run(run)
    changed = replace(read, plan=replace(read.plan, model=replace(read.plan.model, std=(0.2, 0.2, 0.2))))
    with pytest.raises(InputError, match="has other weights or preprocessing now"):
        changed.classifier()


def test_other_weights_of_rts_under_the_same_name_are_refused(run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "rts.safetensors"
    weights.write_bytes(b"as audited")
    read = read_run(run)
    config = read.facts["config"] | {"rts_sha256": hashlib.sha256(b"as audited").hexdigest()}
    plan = replace(read.plan, interpreters=("rts", "cam"), rts=str(weights))
    audited = replace(read, plan=plan, facts=dict(read.facts) | {"config": config})
    assert audited.classifier().fingerprint() == toy_classifier().fingerprint()
    weights.write_bytes(b"trained again")
    with pytest.raises(InputError, match="weights of RTS are other ones now"):
        audited.classifier()
    weights.unlink()
    with pytest.raises(
        InputError, match=r"weights of RTS '.*rts\.safetensors' of the run .* cannot be read \(No such file"
    ):
        audited.classifier()


def test_nothing_to_attack_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 1 photos can be attacked \(misclassified\)"):
        attacked([photo for photo in read_run(run).photos if photo.excluded])
