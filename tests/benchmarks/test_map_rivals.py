"""Map attacks beside the published ones: figures are those of saved images, and a run that was stopped goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import map_rivals
from benchmarks.map_rivals import ATTACKS, GOALS, OURS, THEIRS, Moved, cases, differences, measure, page, reached, read
from benchmarks.quality.measure import Batch
from support.toys import images
from underfire import CAM, Classifier, metrics


@pytest.fixture
def parts(relu_classifier: Classifier) -> list[Batch]:
    x = (images(4, 32) * 255).round() / 255
    label, target = relu_classifier(x).topk(2, dim=1).indices.unbind(1)
    return [Batch(("a", "b"), x[:2], label[:2], target[:2]), Batch(("c", "d"), x[2:], label[2:], target[2:])]


def test_both_attacks_move_saved_images_and_a_run_goes_on(
    relu_classifier: Classifier, parts: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, cam = tmp_path / "log", CAM(relu_classifier)
    found = list(measure([cam], ["topk", "led"], parts[:1], log, 6))
    keys = [(one.goal, one.attack, one.photo) for one in found]
    assert sorted(keys) == sorted(
        (goal, attack, photo) for goal in ("topk", "led") for attack in ATTACKS for photo in "ab"
    )
    assert max(one.passes for one in found) == 6
    assert all(one.label for one in found if one.attack == OURS)  # theirs may lose it where it is rounded
    assert read(log) == found
    monkeypatch.delattr(map_rivals, "_attacked")
    assert list(measure([cam], ["topk", "led"], parts[:1], log, 6)) == found


def test_a_map_is_led_to_that_of_the_photo_before(
    relu_classifier: Classifier, parts: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = CAM(relu_classifier)
    given: list[Tensor] = []

    def attacked(*args: Any) -> list[Moved]:
        given.append(args[-1])
        return []

    monkeypatch.setattr(map_rivals, "_attacked", attacked)
    monkeypatch.setattr(map_rivals, "ATTACKS", {OURS: None})
    with pytest.raises(KeyError):  # nothing was found
        list(measure([cam], ["led"], parts[:1], tmp_path / "log", 12))
    maps = cam(parts[0].x, parts[0].label)
    assert torch.equal(given[0], maps.flip(0))
    assert float(metrics.l1(maps[:1], maps[1:])) > 0


ONE = Moved("a", "grad", "topk", OURS, 100, 99, label=True, change=0.05, top=0.1, shift=0.2, l1=0.3, iou=0.4)


def test_differences_are_signed_so_that_below_zero_is_stronger() -> None:
    found = [
        replace(ONE, photo=str(k), goal=goal, attack=attack, top=0.01 * k, shift=0.5 - 0.01 * k, l1=0.3, change=0.3 * k)
        if attack == OURS
        else replace(ONE, photo=str(k), goal=goal, attack=attack, top=0.01 * k + 0.1, shift=0.1, label=k > 1)
        for goal in GOALS
        for attack in (OURS, THEIRS)
        for k in range(6)
    ]
    found.append(replace(ONE, photo="alone"))  # theirs is not finished
    grouped = cases(found)
    rows = {row[0]: row[2:] for row in differences(grouped).rows}
    assert rows["kept/topk"] == ("6", "IoU of top fifths", "-0.100 [-0.100, -0.100]", "6", "0", "0", "stronger")
    assert rows["kept/led"][2:] == ("+0.000 [+0.000, +0.000]", "0", "6", "0", "no weaker, within the interval")
    assert rows["kept/center"][3:] == ("6", "0", "0", "stronger")
    ours, theirs = (row[2:7] for row in reached(grouped).rows[:2])
    assert ours == (OURS, "6", "99", "6", "1")
    assert theirs == (THEIRS, "6", "99", "4", "4")
    worse = cases([replace(one, attack=THEIRS if one.attack == OURS else OURS) for one in found[:-1]])
    assert [row[-1] for row in differences(worse).rows] == ["weaker", "no weaker, within the interval", "weaker"]
    text = page(found, "python -m benchmarks.map_rivals PHOTOS --log log")
    assert "* Ours is stronger: GRAD kept/topk (n = 6), GRAD kept/center (n = 6)." in text
