"""Security curves on the toy: what is found, what is said of planted changes, and that it resumes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from click.testing import CliRunner

from support.snapshots import check_snapshot
from support.stopping import Stop, stopping_after
from support.toy_photos import MODEL_OPTIONS, found, toy_classifier, toy_plan
from underfire import CAM, MinimumNorm
from underfire.auditing.plan import PlannedPhoto
from underfire.cli import cli
from underfire.errors import InputError
from underfire.images import load_photo
from underfire.stats import bootstrap_mean, median, wilson
from underfire.studies import curve
from underfire.studies.curve import SmallestChange, curve_of, curve_study
from underfire.studies.source import decide
from underfire.studies.study import Claim, Study, Verdict

PLAN = toy_plan()
PASSES = 60


def decided(photos: Path) -> tuple[PlannedPhoto, ...]:
    return decide(PLAN, found(photos), toy_classifier()).photos


def study(photos: Path, work: Path, **more: Any) -> Study:
    return curve_study(PLAN, decided(photos), toy_classifier(), work=work, **{"passes": PASSES, **more})


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    work = tmp_path_factory.mktemp("curve")
    return work, study(photos, work)


def test_the_curve_counts_the_changes_that_the_attack_finds(photos: Path, made: tuple[Path, Study]) -> None:
    classifier = toy_classifier()
    kept = [photo for photo in decided(photos) if photo.excluded is None]
    x = torch.stack([load_photo(photo.file, classifier.preprocessing).pixels for photo in kept]).float() / 255
    label, target = (torch.tensor([getattr(photo, kind) for photo in kept]) for kind in ("label", "target"))
    attack = MinimumNorm(CAM(classifier), eps=16 / 255, passes=PASSES)
    sizes = attack(x, target, label=label, keys=[photo.image_id for photo in kept]).eps * 255
    lines = [line for line in made[1].table.to_pylist() if line["interpreter"] == "cam"]
    assert [line["kind"] for line in lines] == [*["point"] * 5, "curve"]
    assert [round(line["eps"] * 255) for line in lines] == [1, 2, 4, 8, 16, 16]
    counted = [int((sizes <= level + 1e-6).sum()) / 4 for level in (1, 2, 4, 8, 16, 16)]
    assert [line["jsr"] for line in lines] == counted
    assert lines[-1]["area"] == pytest.approx(float((1 - sizes.clamp(max=16) / 16).mean()))
    assert {line["n"] for line in lines} == {4}


def test_the_words_and_the_figure_of_the_toy(made: tuple[Path, Study]) -> None:
    assert made[1].words.startswith("That L∞ 4/255 is enough on most photos")
    assert "4 of 5 photos attacked (not attacked: 1 misclassified)." in made[1].words
    assert ET.fromstring(made[1].figure).tag.endswith("svg")  # noqa: S314 - our own output


def test_an_interrupted_study_goes_on_to_the_same_numbers(
    photos: Path, tmp_path: Path, made: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stop):
        study(photos, tmp_path, note=stopping_after(3))
    assert study(photos, tmp_path) == made[1]
    monkeypatch.delattr(curve, "_searched")
    assert study(photos, tmp_path) == made[1]
    with pytest.raises(NameError):  # other passes are another search
        study(photos, tmp_path, passes=PASSES + 1)


def test_a_photo_that_was_exchanged_is_refused(photos: Path, tmp_path: Path) -> None:
    others = [replace(photo, sha256="0" * 64) for photo in decided(photos)]
    with pytest.raises(InputError, match="another one than before"):
        curve_study(PLAN, others, toy_classifier(), work=tmp_path, passes=PASSES)


@pytest.mark.parametrize(
    ("grid", "message"), [((), "no curve"), ((2 / 255, 1 / 255), "no curve"), ((1 / 255, 2.0), "eps 2 is")]
)
def test_a_grid_that_is_none(grid: tuple[float, ...], message: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        study(photos, tmp_path, grid=grid)


def changes(sizes: list[float]) -> Mapping[str, SmallestChange]:
    return {str(place): SmallestChange(size, 10) for place, size in enumerate(sizes)}


SIZES = [0.1, 0.2, 0.2, 0.4, math.inf, math.inf, math.inf, 0.3]


class TestPlantedChanges:
    def test_words(self) -> None:
        small, large = (
            curve_of(name, "linf", changes([k / 255 for k in levels]), (2 / 255, 8 / 255))
            for name, levels in (("cam", [2] * 15 + [4]), ("grad", [6] * 7 + [4] + [math.inf] * 8))
        )
        claims = curve._claims([small, large], "linf", 8 / 255)
        words = curve._words([small, large], claims, "linf", 600, "16 of 16 photos attacked.")
        check_snapshot(__file__, "curve", words)

    def test_rates_area_and_median(self) -> None:
        found = curve_of("cam", "l2", changes(SIZES), (0.2, 0.4))
        assert [point.jsr for point in found.points] == [wilson(3, 8), wilson(5, 8)]
        area = bootstrap_mean([0.75, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.25])
        assert (found.whole.area.value, found.whole.area.low) == pytest.approx((area.value, area.low))
        assert found.whole.median.value == median(SIZES).value
        assert found.whole.median.high is None  # beyond the end
        assert found.whole.passes == 10

    def test_a_median_beyond_the_end_has_no_value(self) -> None:
        found = curve_of("cam", "l2", changes([0.1, math.inf, math.inf]), (0.2, 0.4))
        assert found.whole.median.value is None

    def test_claims(self) -> None:
        small = curve_of("cam", "linf", changes([k / 255 for k in [2] * 15 + [4]]), (2 / 255, 8 / 255))
        large = curve_of("grad", "linf", changes([k / 255 for k in [6] * 15 + [4]]), (2 / 255, 8 / 255))
        found: dict[str, Claim] = {claim.id: claim for claim in curve._claims([small, large], "linf", 8 / 255)}
        assert found["half/cam"].verdict is Verdict.HOLDS
        assert found["half/grad"].verdict is Verdict.FAILS
        assert found["half"].verdict is Verdict.FAILS
        assert found["less/cam/grad"].verdict is Verdict.HOLDS
        assert found["less/cam/grad"].n == 15  # one of 16 needs the same on both


def test_the_command_takes_the_settings_of_an_audit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (*MODEL_OPTIONS, "--interpreters", "cam", "--passes", "30", "--limit", "2", "--out", "out")
    call = ["study", "curve", str(photos), *options, "--norm", "l2", "--grid", "0.5,1"]
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 0, done.output
    assert "in L2" in done.stdout
    assert (tmp_path / "out" / "curve.svg").is_file()
    refused = CliRunner().invoke(cli, [*call, "--eps", "4/255"])
    assert refused.exit_code == 2
    assert "--eps cannot be given" in refused.output
