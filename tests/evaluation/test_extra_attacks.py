"""Attacked images elsewhere: those of the same photos are taken, others refused in one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest

from support.toy_photos import found, toy_classifier, toy_plan
from underfire.auditing.condition import Condition
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.run import read_run
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.evaluation.extra_attacks import ObliviousAttack, attacks_in
from underfire.studies.gap import gap_study
from underfire.studies.source import attacked


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "run"
    run_audit(toy_plan(), found(photos), toy_classifier(), out)
    return out


@pytest.fixture(scope="module")
def planned(run: Path) -> tuple[PlannedPhoto, ...]:
    return attacked(read_run(run).photos)


def test_an_audits_attacks_are_its_images_and_labels(run: Path, planned: tuple[PlannedPhoto, ...]) -> None:
    attacks = attacks_in(run, planned)
    assert list(map(str, attacks)) == ["pgd", "adv2-grad", "adv2-cam"]
    rows = {(row.image_id, row.condition): row for row in read_run(run).records}
    for under, some in attacks.items():
        assert set(some) == {photo.image_id for photo in planned}
        for photo in planned:
            one = some[photo.image_id]
            assert one.path == run / "artifacts" / photo.key / f"{under}.png"
            assert one.path.is_file()
            row = rows[photo.image_id, under.condition]
            assert (one.reached, one.confidence, one.passes) == (
                row.success_8bit,
                row.confidence_8bit,
                row.spent.passes,
            )


def test_extra_attacks_have_a_name_and_are_not_the_runs(run: Path, planned: tuple[PlannedPhoto, ...]) -> None:
    named = list(attacks_in(run, planned[:1], name="l2"))
    assert list(map(str, named)) == ["l2: pgd", "l2: adv2-grad", "l2: adv2-cam"]
    assert [attack.title for attack in named] == ["PGD (l2)", "ADV² on GRAD (l2)", "ADV² on CAM (l2)"]
    assert not any(attack.is_pgd or attack.is_adv2 for attack in named)


def test_what_a_summary_is_of_is_pgd_and_adv2_on_one_interpreter() -> None:
    attacks = [ObliviousAttack(Condition.parse(text)) for text in ("pgd", "adv2-cam", "adv2-cam+grad", "stadv-cam")]
    assert [attack.is_pgd for attack in attacks] == [True, False, False, False]
    assert [attack.is_adv2 for attack in attacks] == [False, True, False, False]
    assert [attack.is_plain for attack in attacks] == [True, True, False, False]


def test_the_folders_of_the_gap_have_its_attack_alone(
    run: Path, planned: tuple[PlannedPhoto, ...], tmp_path: Path
) -> None:
    read = read_run(run)
    gap_study(read.plan, read.photos, toy_classifier(), work=tmp_path, aims=("random-patch",))
    attacks = attacks_in(tmp_path / "random-patch" / "cam", planned, name="patch")
    assert list(map(str, attacks)) == ["patch: adv2-cam"]
    assert set(attacks[ObliviousAttack(Condition.on("adv2", "cam"), "patch")]) == {photo.image_id for photo in planned}


def test_what_is_not_of_these_photos_is_refused(run: Path, planned: tuple[PlannedPhoto, ...], tmp_path: Path) -> None:
    for changed, message in (
        ([replace(planned[0], sha256="0" * 64)], "is another one in"),
        ([replace(planned[0], target=planned[0].target + 1)], "is attacked towards class"),
        ([replace(planned[0], image_id="stranger.png")], "has no attacked image of the run's photos"),
        ([planned[0], replace(planned[1], key="00009-ffffffff")], "is missing; put it back"),
        ([replace(photo, key=f"{photo.key}x") for photo in planned], "has no attacked image of the run's photos"),
    ):
        with pytest.raises(InputError, match=message):
            attacks_in(run, changed)
    with pytest.raises(InputError, match="is not a folder"):
        attacks_in(tmp_path / "nowhere", planned)
    with pytest.raises(InputError, match="has no attacked image"):
        attacks_in(tmp_path, planned)
