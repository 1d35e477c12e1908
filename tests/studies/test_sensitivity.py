"""The study of sensitivity on the toy: figures, verdicts, words, and that it goes on where it was."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from click.testing import CliRunner

from support.snapshots import check_snapshot
from support.stopping import Stop, stopping_after
from support.toy_photos import MISCLASSIFIED, MODEL_OPTIONS, found, toy_classifier, toy_plan, write_photos
from underfire.attacks.map_sensitivity import sensitivity
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.cli import cli
from underfire.errors import InputError
from underfire.images import read_png
from underfire.studies.sensitivity import (
    PhotoSensitivity,
    SensitivityOptions,
    row_of,
    sensitivity_study,
)
from underfire.studies.source import decide
from underfire.studies.study import Study, Verdict

PLAN = replace(toy_plan(), steps=None, passes=24)
OPTIONS = SensitivityOptions(samples=3)


def decided(photos: Path, plan: AuditPlan = PLAN) -> tuple[PlannedPhoto, ...]:
    return decide(plan, found(photos), toy_classifier()).photos


def study(photos: Path, work: Path, plan: AuditPlan = PLAN, **more: Any) -> Study:
    return sensitivity_study(plan, decided(photos, plan), toy_classifier(), OPTIONS, work=work, **more)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    work = tmp_path_factory.mktemp("whole")
    return work, study(photos, work)


def photo(sampled: float, attacked: float, *, label_kept: bool = True) -> PhotoSensitivity:
    return PhotoSensitivity(sampled, attacked, 10 * sampled, 10 * attacked, 1.0, label_kept)


@pytest.mark.parametrize("place", [0, 1], ids=["grad", "cam"])
def test_a_row_is_the_median_of_what_the_call_gives(photos: Path, whole: tuple[Path, Study], place: int) -> None:
    row = whole[1].table.to_pylist()[place]
    classifier = toy_classifier()
    (interpreter,) = make_interpreters((row["interpreter"],), classifier)
    planned = [one for one in decided(photos) if one.image_id != MISCLASSIFIED]
    x = torch.stack([read_png(Path(one.file)) for one in planned])
    y = torch.tensor([one.label for one in planned])
    given = sensitivity(interpreter, x, y, samples=3, passes=24, keys=[one.image_id for one in planned])
    assert row["n"] == len(planned) == 4
    for name in ("sampled", "attacked", "factor", "sampled_lipschitz", "attacked_lipschitz"):
        assert row[name] == pytest.approx(float(getattr(given, name).quantile(0.5)), rel=1e-6)
    assert (row["factor_least"], row["factor_most"]) == pytest.approx(
        (float(given.factor.min()), float(given.factor.max())), rel=1e-6
    )
    assert row["beyond"] == float((given.factor > 2).double().mean())
    assert row["label_kept"] == float(given.label_kept.double().mean())


class TestVerdicts:
    def test_most_photos_beyond_twice_fail_the_claim(self) -> None:
        row = row_of("cam", [photo(0.1, 2.0)] * 9 + [photo(0.1, 0.15)], tests=2)
        assert row.verdict is Verdict.FAILS
        assert (row.beyond.k, row.factor.value, row.factor_most) == (9, 20.0, 20.0)
        assert row.factor_least == pytest.approx(1.5)

    def test_most_photos_within_twice_keep_it(self) -> None:
        assert row_of("cam", [photo(0.1, 0.19)] * 10, tests=2).verdict is Verdict.HOLDS

    def test_few_photos_decide_nothing(self) -> None:
        assert row_of("cam", [photo(0.1, 2.0)] * 4, tests=1).verdict is Verdict.UNDECIDED

    def test_a_map_that_nothing_moves_has_a_factor_of_1(self) -> None:
        row = row_of("flat", [photo(0.0, 0.0)] * 8, tests=1)
        assert (row.verdict, row.factor.value) == (Verdict.HOLDS, 1.0)

    def test_where_sampling_saw_nothing_the_factor_is_of_the_others_and_the_photo_counts(self) -> None:
        row = row_of("flat", [photo(0.0, 0.2)] * 7 + [photo(0.1, 0.3)], tests=1)
        assert (row.factor.n, row.beyond.k, row.n) == (1, 8, 8)
        assert not math.isinf(row.factor.value or 0)


def test_every_interpreter_is_a_claim_and_the_whole_of_them_one(whole: tuple[Path, Study]) -> None:
    assert [claim.id for claim in whole[1].claims] == ["sampled", "sampled/grad", "sampled/cam"]
    assert {claim.n for claim in whole[1].claims} == {4}
    check_snapshot(__file__, "sensitivity", whole[1].words, measured=True)
    assert ET.fromstring(whole[1].figure).tag.endswith("svg")  # noqa: S314 - our own output


def test_it_goes_on_where_it_was_in_other_batches(photos: Path, tmp_path: Path, whole: tuple[Path, Study]) -> None:
    plan = replace(PLAN, batch_size=1)
    for lines in (1, 3):
        with pytest.raises(Stop):
            study(photos, tmp_path, plan, note=stopping_after(lines))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert len(kept) == 4
    assert study(photos, tmp_path, plan) == whole[1]
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_other_settings_are_measured_anew(photos: Path, tmp_path: Path) -> None:
    one = decided(photos)[:1]
    for options in (OPTIONS, SensitivityOptions(samples=3, radius=0.01), SensitivityOptions(samples=2)):
        sensitivity_study(replace(PLAN, interpreters=("cam",)), one, toy_classifier(), options, work=tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 3


def test_a_photo_that_changed_is_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "set")
    planned = decided(photos)
    (photos / "photo-1.png").write_bytes((photos / "photo-2.png").read_bytes())
    with pytest.raises(InputError, match=r"photo-1\.png' is another one than before"):
        sensitivity_study(PLAN, planned, toy_classifier(), OPTIONS, work=tmp_path / "work")


def test_the_command(photos: Path, tmp_path: Path) -> None:
    common = ("study", "sensitivity", str(photos), *MODEL_OPTIONS, "--interpreters", "cam", "--out", str(tmp_path))
    done = CliRunner().invoke(cli, [*common, "--passes", "4", "--samples", "2", "--radius", "4/255", "--limit", "2"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sensitivity.md").is_file()
    for option in (
        ("--eps", "0.1"),
        ("--steps", "3"),
        ("--perturbation", "l2"),
        ("--attacks", "pgd"),
        ("--goals", "kept/l1"),
    ):
        refused = CliRunner().invoke(cli, [*common, *option])
        assert refused.exit_code == 2
        assert f"{option[0]} cannot be given" in refused.output
    refused = CliRunner().invoke(cli, [*common, "--radius", "3"])
    assert refused.exit_code == 2
    assert "radius 3.0 is no distance" in refused.output
