"""ADV² beside PGD and noise: figures are those of the saved images, and a run goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import beside_pgd
from benchmarks.beside_pgd import Beside, main, measure, read, table
from benchmarks.photos import chosen_photos
from benchmarks.quality.measure import Batch, View
from support.planted import RED, SIZE, planted_classifier, write_planted
from support.toys import images
from underfire import Classifier, GradCAMPlusPlus, InputError, metrics
from underfire.attacks.perturbations import Linf
from underfire.auditing.unit import noise
from underfire.images import save_png
from underfire.models.pages_vit import CLASSES

PASSES = 40


@pytest.fixture
def parts(relu_classifier: Classifier) -> list[Batch]:
    x = (images(3, 32) * 255).round() / 255
    label = relu_classifier(x).argmax(dim=1)
    target = (label + 1) % relu_classifier.num_classes
    return [Batch(("a", "b"), x[:2], label[:2], target[:2]), Batch(("c",), x[2:], label[2:], target[2:])]


def test_the_joint_attack_keeps_the_map_that_pgd_moves_and_noise_is_measured_for_the_label(
    relu_classifier: Classifier, parts: list[Batch], tmp_path: Path
) -> None:
    found = list(measure(relu_classifier, ["gradcamplusplus"], parts, tmp_path / "log", passes=PASSES))
    assert [(one.photo, one.interpreter, one.budget) for one in found] == [
        (name, "gradcamplusplus", PASSES) for name in "abc"
    ]
    assert all(one.passes <= PASSES for one in found)
    assert all(one.adv2.success and one.pgd.success for one in found)
    assert 2 * sum(one.adv2.l1 for one in found) < sum(one.pgd.l1 for one in found)
    g, last = GradCAMPlusPlus(relu_classifier), parts[-1]
    shaken, _ = noise(last.x, Linf(), seed=0, keys=last.names)
    shaken = (shaken * 255).round() / 255
    floor = metrics.l1(g(shaken, last.label), g(last.x, last.label))
    assert found[-1].noise == pytest.approx(float(floor), abs=1e-6)


def test_a_run_goes_on_where_it_was_stopped(
    relu_classifier: Classifier, parts: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    found = list(measure(relu_classifier, ["layercam"], parts, log, passes=10))
    assert read(log) == found
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))  # the second batch is lost
    assert list(measure(relu_classifier, ["layercam"], parts, log, passes=10)) == found
    monkeypatch.delattr(beside_pgd, "ADV2")
    assert list(measure(relu_classifier, ["layercam"], parts, log, passes=10)) == found
    with pytest.raises(NameError):  # another budget is another measurement
        list(measure(relu_classifier, ["layercam"], parts, log, passes=12))


FOUND = [
    Beside(name, "rise", 300, 290, 60, View(True, 0.9, l1, iou), View(name != "d", 0.9, 0.4, 0.1), 0.05)
    for name, l1, iou in (("a", 0.1, 0.9), ("b", 0.1, 0.5), ("c", 0.1, 0.4), ("d", 0.2, 0.7))
]


def test_a_line_has_means_of_all_photos_and_their_ratio() -> None:
    shown = table("Title", FOUND, {"lrp": "It has no rule."})
    (row,) = shown.rows
    figures = [cell.split(" ")[0] for cell in row]
    assert figures == ["RISE", "4", "60", "1.000", "0.125", "0.400", "0.050", "0.31", "0.750", "0.000", "met"]
    assert row[7] == "0.31 [0.25, 0.50]"
    assert shown.notes[0] == "PGD chose the label on 3 of 4 photos."
    assert shown.notes[-1] == "* LRP: It has no rule."


@pytest.mark.parametrize(
    ("success", "l1", "aim"), [(True, 0.2, "met"), (True, 0.21, "missed"), (False, 0.0, "missed: ASR below 0.95")]
)
def test_the_aim_is_half_of_pgd_and_nearly_every_label(success: bool, l1: float, aim: str) -> None:
    found = [replace(one, adv2=View(success or one.photo != "a", 0.9, l1, 0.9)) for one in FOUND]
    assert table("Title", found, {}).rows[0][-1] == aim


def test_photos_are_those_in_every_list_that_the_classifier_gets_right(tmp_path: Path) -> None:
    classifier = planted_classifier()
    folder = tmp_path / "photos"
    write_planted(folder / classifier.class_names[RED], 4)
    save_png(torch.zeros(3, SIZE, SIZE), folder / classifier.class_names[RED] / "black.png")
    (every,) = chosen_photos(classifier, folder, [], 9, 9)
    assert len(every.names) == 4  # what shows no red is got wrong
    lists = [tmp_path / "first", tmp_path / "others"]
    for file, names in zip(lists, (every.names[:2], every.names[1:]), strict=True):
        file.write_text("\n".join(names))
    (both,) = chosen_photos(classifier, folder, lists, 9, 9)
    assert both.names == every.names[1:2]
    assert torch.equal(both.x, every.x[1:2])
    lists[0].write_text("other.png")
    with pytest.raises(InputError, match="none of the 0 photos"):
        chosen_photos(classifier, folder, lists, 9, 9)


def test_the_page_of_pages(tmp_path: Path) -> None:
    words = [str(tmp_path), "--model", "pages-vit", "--interpreters", "lrp,layercam", "--pages", "4", "--passes", "4"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert {one.interpreter for one in read(tmp_path / "pages-vit.jsonl")} == {"layercam"}
    assert "| LayerCAM " in result.output
    assert "\n* LRP: lrp has no rule for 'scaled_dot_product_attention'" in result.output
    assert sorted(folder.name for folder in (tmp_path / "pages").iterdir()) == sorted(CLASSES)
