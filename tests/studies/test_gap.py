"""The gap on the toy: what is aimed at, what is measured, that it resumes, and what is shown."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from support.rows import row as made_row
from support.snapshots import check_snapshot
from support.stopping import Stop, stopping_after
from support.toy_photos import MISCLASSIFIED, found, rows_of, toy_classifier, toy_plan, write_photos
from underfire import metrics
from underfire.attacks.target_maps import random_patch
from underfire.auditing.condition import NONE, PGD
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.errors import InputError
from underfire.images import read_png
from underfire.studies import gap, reruns
from underfire.studies.gap import ChosenMap, companion, gap_study, row_of, typical
from underfire.studies.reruns import Rerun
from underfire.studies.source import decide
from underfire.studies.study import Study, Verdict

PLAN = replace(toy_plan(), steps=40, eps=24 / 255)
LABELS = {f"photo-{i}": i % 4 for i in range(24)}


def chosen(
    l1: float = 0.1, *, photo: str = "a", success: bool = True, l1_benign: float = 0.4, pgd_success: bool = True
) -> ChosenMap:
    """A photo whose map under PGD is at 0.3 from the target map."""
    return ChosenMap(
        made_row(image_id=photo, success=success, l1=l1),
        made_row(image_id=photo, condition=NONE, l1=l1_benign),
        made_row(image_id=photo, condition=PGD, success=pgd_success, l1=0.3),
    )


def decided(photos: Path, plan: AuditPlan = PLAN) -> tuple[PlannedPhoto, ...]:
    return decide(plan, found(photos), toy_classifier()).photos


def study(photos: Path, work: Path, plan: AuditPlan = PLAN, **more: Any) -> Study:
    return gap_study(plan, decided(photos, plan), toy_classifier(), work=work, **more)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    work = tmp_path_factory.mktemp("whole")
    return work, study(photos, work)


def line(made: Study, interpreter: str, target: str) -> dict[str, Any]:
    lines: list[dict[str, Any]] = made.table.to_pylist()
    (found,) = [one for one in lines if (one["interpreter"], one["target"]) == (interpreter, target)]
    return found


@pytest.mark.parametrize("name", ["grad", "cam"])
@pytest.mark.parametrize("aim", ["random-class", "random-patch"])
def test_rows_say_what_the_saved_images_show_against_the_map_aimed_at(
    photos: Path, whole: tuple[Path, Study], name: str, aim: str
) -> None:
    classifier = toy_classifier()
    (interpreter,) = make_interpreters((name,), classifier)
    planned = {photo.image_id: photo for photo in decided(photos)}
    rows = rows_of(whole[0] / aim / name)
    assert {(row.image_id, row.condition) for row in rows} == {
        (image_id, condition)
        for image_id in planned
        if image_id != MISCLASSIFIED
        for condition in ("none", "pgd", f"adv2-{name}")
    }
    for row in rows:
        photo = planned[row.image_id]
        folder = whole[0] / aim / name / "artifacts" / photo.key
        target_map = load_file(folder / "maps.safetensors")[f"aim/{name}"]
        pictures = whole[0] / "pgd" / "artifacts" / photo.key
        path = {"none": pictures / "benign.png", "pgd": pictures / "pgd.png"}.get(
            row.condition, folder / f"{row.condition}.png"
        )
        x, seen_as = read_png(path)[None], photo.label if row.attack == "none" else photo.target
        own = interpreter(x, torch.tensor([seen_as]), keys=[row.image_id])
        assert row.l1_8bit == pytest.approx(float(metrics.l1(own, target_map[None])), abs=1e-5)
        assert row.iou_50_8bit == pytest.approx(float(metrics.iou(own, target_map[None])), abs=1e-5)
        assert row.success_8bit == (row.attack != "none" and int(classifier.probabilities(x).argmax()) == photo.target)
        benign = read_png(pictures / "benign.png")[None]
        assert metrics.linf(x, benign).item() <= 24 / 255 + 1e-6
        if aim == "random-patch":
            assert torch.equal(target_map, random_patch(interpreter.grid, seed=0, key=row.image_id))
        else:
            others = [p for p in planned.values() if p.label not in (photo.label, photo.target)]
            maps = [load_file(whole[0] / "pgd" / "artifacts" / p.key / "maps.safetensors") for p in others]
            assert any(torch.equal(target_map, kept[f"none/{name}"]) for kept in maps)
            assert MISCLASSIFIED not in {
                p.image_id
                for p, kept in zip(others, maps, strict=True)
                if torch.equal(target_map, kept[f"none/{name}"])
            }


def test_on_the_toy_cam_is_led_anywhere_and_pgd_does_not_get_there(whole: tuple[Path, Study]) -> None:
    for aim in ("random-class", "random-patch"):
        found = line(whole[1], "cam", aim)
        assert found["n"] > 0
        assert found["l1_minus_pgd_high"] < 0
        assert found["l1"] - found["l1_benign"] == pytest.approx(found["l1_minus_benign"])


def test_failed_attacks_are_left_out_of_means_and_stay_in_rates(whole: tuple[Path, Study]) -> None:
    for name in ("grad", "cam"):
        rows = [row for row in rows_of(whole[0] / "random-patch" / name) if row.attack == "adv2"]
        reached = [row for row in rows if row.success_8bit]
        found = line(whole[1], name, "random-patch")
        assert (found["n"], found["failed"], found["left_out"]) == (len(reached), 4 - len(reached), 0)
        assert found["reached"] == len(reached) / 4
        assert found["seen"] == sum(row.iou_50_8bit >= 0.5 for row in reached) / 4
        assert found["l1"] == pytest.approx(sum(row.l1_8bit for row in reached) / len(reached))


def test_where_pgd_failed_it_is_compared_with_nothing(
    photos: Path, whole: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = decided(photos)[0].image_id

    def rerun_rows(run: Run, rerun: Rerun, **more: Any) -> list[Row]:
        return [
            made_row(kept, success_8bit=kept.attack == "adv2" or kept.image_id not in failed)
            for kept in reruns.rerun_rows(run, rerun, **more)
        ]

    monkeypatch.setattr(gap, "rerun_rows", rerun_rows)
    rows = rows_of(whole[0] / "random-patch" / "cam")
    adv2, pgd = ({row.image_id: row for row in rows if row.attack == attack} for attack in ("adv2", "pgd"))
    failed = {failing}
    made = study(photos, whole[0], aims=("random-patch",), skipped=3)
    found = line(made, "cam", "random-patch")
    pairs = sorted(adv2.keys() - failed)
    assert (found["n"], found["pairs"]) == (4, 3)
    assert found["l1_pgd"] == pytest.approx(sum(pgd[name].l1_8bit for name in pairs) / 3)
    assert found["iou_50_pgd"] == pytest.approx(sum(pgd[name].iou_50_8bit for name in pairs) / 3)
    assert found["l1_minus_pgd"] == pytest.approx(sum(adv2[name].l1_8bit - pgd[name].l1_8bit for name in pairs) / 3)
    check_snapshot(__file__, "gap-pgd-failed-once", made.words, measured=True)
    failed = set(adv2)
    alone = study(photos, whole[0], aims=("random-patch",))
    assert (line(alone, "cam", "random-patch")["pairs"], line(alone, "cam", "random-patch")["l1_pgd"]) == (0, None)
    check_snapshot(__file__, "gap-pgd-failed", alone.words, measured=True)
    assert ET.fromstring(alone.figure).tag.endswith("svg")  # noqa: S314 - our own output


def test_every_interpreter_and_source_of_maps_is_a_claim(whole: tuple[Path, Study]) -> None:
    overall, *others = whole[1].claims
    assert overall.id == "observation-8"
    assert {claim.id: (claim.verdict, claim.n) for claim in others} == {
        f"observation-8/{name}{source}": (Verdict.UNDECIDED, 4)  # 4 photos are too few for any other
        for name in ("grad", "cam")
        for source in ("", "/random-class", "/random-patch")
    }
    assert set(whole[1].table["verdict"].to_pylist()) == {"is not decided at this n"}
    check_snapshot(__file__, "gap", whole[1].words, measured=True)


def test_without_another_class_a_photo_is_left_out_and_that_is_said(photos: Path, tmp_path: Path) -> None:
    alone = decided(photos)[:1]
    made = gap_study(PLAN, alone, toy_classifier(), work=tmp_path)
    check_snapshot(__file__, "gap-one-photo", made.words, measured=True)
    untried, tried = (line(made, "cam", aim) for aim in ("random-class", "random-patch"))
    assert (untried["n"], untried["failed"], untried["left_out"], untried["succeeds"]) == (0, 0, 1, None)
    assert (tried["n"] + tried["failed"], tried["left_out"]) == (1, 0)


def test_an_interrupted_study_in_other_batches_goes_on_to_the_same_numbers(
    photos: Path, tmp_path: Path, whole: tuple[Path, Study]
) -> None:
    plan = replace(PLAN, batch_size=1)
    for lines in (2, 5, 5):
        with pytest.raises(Stop):
            study(photos, tmp_path, plan, note=stopping_after(lines))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*.parquet")}
    assert len(kept) == 12
    assert study(photos, tmp_path, plan) == whole[1]
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_the_figure_shows_one_photo_of_each_interpreter_in_small_pictures(whole: tuple[Path, Study]) -> None:
    svg = whole[1].figure
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own output
    assert "#0a0b" not in svg
    pictures = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    assert len(pictures) == 2 * 5
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert max(image.size) <= 120
    assert re.findall(r'href="(?!data:image/png|#)', svg) == []


def test_names_of_files_and_classes_are_data(photos: Path, tmp_path: Path) -> None:
    names = [f"<b>${index}$</b>\n" + "long " * 9 for index in range(10)]
    classifier = toy_classifier()
    hostile = type(classifier)(
        classifier.module, mean=0.5, std=0.25, input_size=32, name=classifier.name, class_names=names
    )
    made = gap_study(replace(PLAN, steps=4), decided(photos), hostile, work=tmp_path, aims=("random-patch",))
    root = ET.fromstring(made.figure)  # noqa: S314 - our own output
    assert not [element for element in root.iter() if element.tag.endswith("}b")]
    texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("<b>$") and text.endswith("…") for text in texts)


def test_work_of_other_settings_or_damaged_is_refused(photos: Path, tmp_path: Path, whole: tuple[Path, Study]) -> None:
    with pytest.raises(InputError, match="is a run with eps"):
        study(photos, whole[0], replace(PLAN, eps=4 / 255))
    work = shutil.copytree(whole[0], tmp_path / "work")
    made = study(photos, work, aims=("random-patch",))
    assert set(made.table["target"].to_pylist()) == {"random-patch"}
    shutil.rmtree(work / "random-class")
    (first, *_) = decided(photos)
    (work / "pgd" / "artifacts" / first.key / "maps.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks the map 'none/grad'"):
        study(photos, work)


@pytest.mark.parametrize("folder", ["pgd", "random-patch/cam"])
def test_a_damaged_map_is_one_sentence_that_says_what_to_delete(
    photos: Path, tmp_path: Path, whole: tuple[Path, Study], folder: str
) -> None:
    work = shutil.copytree(whole[0], tmp_path / "work")
    made = study(photos, work, aims=("random-patch",))
    for maps in (work / folder).rglob("maps.safetensors"):
        maps.write_bytes(b"no tensors")
    remedy = f"is damaged or lacks the map .*; delete '{work / folder}' and run the study again"
    with pytest.raises(InputError, match=remedy):
        study(photos, work, aims=("random-patch",))
    shutil.rmtree(work / folder)
    assert study(photos, work, aims=("random-patch",)) == made


def test_a_photo_that_changed_is_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "set")
    planned = decided(photos)
    (photos / "photo-1.png").write_bytes((photos / "photo-2.png").read_bytes())
    with pytest.raises(InputError, match=r"photo-1\.png' is damaged, or another one"):
        gap_study(PLAN, planned, toy_classifier(), work=tmp_path / "work")


def test_a_success_has_the_label_and_comes_half_of_the_way_from_the_nearer_start() -> None:
    assert chosen(0.15).succeeds
    assert not chosen(0.16).succeeds
    assert not chosen(success=False).succeeds
    assert not chosen(0.15, l1_benign=0.2).succeeds
    assert chosen(0.0, l1_benign=0.0).succeeds


def test_where_pgd_failed_the_way_begins_at_the_benign_map() -> None:
    assert chosen(0.2, pgd_success=False).succeeds
    assert not chosen(0.21, pgd_success=False).succeeds
    assert not chosen(0.2).succeeds


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [
        (9, 1, Verdict.HOLDS), (1, 9, Verdict.FAILS), (6, 0, Verdict.HOLDS), (0, 6, Verdict.FAILS),
        (5, 5, Verdict.UNDECIDED), (5, 0, Verdict.UNDECIDED), (8, 2, Verdict.UNDECIDED),
    ],
)  # fmt: skip
def test_the_verdict_is_that_of_a_sign_test(good: int, bad: int, verdict: Verdict) -> None:
    row = row_of("cam", "random-patch", [chosen()] * good + [chosen(success=False)] * bad, good + bad)
    assert (row.succeeds.k, row.succeeds.n) == (good, good + bad)
    assert row.verdict is verdict


def test_nothing_tried_is_nothing_decided() -> None:
    assert row_of("cam", "random-patch", [], 0).verdict is Verdict.UNDECIDED
    assert typical([]) is None


def test_the_typical_photo_is_the_lower_median_of_those_that_reached_the_label() -> None:
    some = [chosen(l1, photo=name) for name, l1 in (("d", 0.4), ("b", 0.2), ("c", 0.2), ("a", 0.1))]
    best_of_all = chosen(0.0, photo="e", success=False)
    found = typical([*some, best_of_all])
    assert found is not None
    assert found.attack.image_id == "b"
    assert typical([best_of_all]) is None


def test_a_companion_is_of_the_target_class_where_there_is_one() -> None:
    for name, label in LABELS.items():
        for target in {*LABELS.values()} - {label}:
            donor = companion(name, target, LABELS, seed=0)
            assert donor is not None
            assert LABELS[donor] == target


def test_else_it_is_of_a_third_class_and_belongs_to_seed_and_photo() -> None:
    drawn = {name: companion(name, target=99, labels=LABELS, seed=0) for name in LABELS}
    for name, donor in drawn.items():
        assert donor is not None
        assert LABELS[donor] != LABELS[name]
    assert len(set(drawn.values())) > 4
    assert drawn == {name: companion(name, 99, dict(reversed(LABELS.items())), seed=0) for name in LABELS}
    assert drawn != {name: companion(name, 99, LABELS, seed=1) for name in LABELS}


def test_a_photo_less_changes_the_choice_of_those_alone_that_had_drawn_it() -> None:
    less = {name: label for name, label in LABELS.items() if name != "photo-5"}
    for name in less:
        before = companion(name, 99, LABELS, seed=0)
        assert before in (companion(name, 99, less, seed=0), "photo-5")


def test_no_photo_of_another_class_is_no_companion() -> None:
    assert companion("a", 1, {"a": 0, "c": 0}, seed=0) is None
