"""What a deployed system shows for the images of a run: counts that are planted in the images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from support.smoothing import SwitchedMap, plane
from support.synthetic_run import Recipe, write_run
from underfire.auditing.run import open_run
from underfire.images import read_png, save_png

SIDE, TARGET = 64, 9
FILES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")


class Rough(nn.Module):
    """Class 9 where neighbouring pixels differ, as in attacked images; else 7 for dark ones, 8 for bright ones."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3)) - 0.02
        logits = x.new_full((len(x), 10), -100.0)
        logits[:, 7] = 100 * (0.5 - x.mean(dim=(1, 2, 3)))
        logits[:, 8] = -logits[:, 7]
        logits[:, TARGET] = 1e5 * rough
        return logits


@pytest.fixture
def system() -> uf.Smoothed:
    """Its map is turned round where the first pixel is bright."""
    classifier = uf.Classifier(Rough(), input_size=SIDE, name="rough")
    return uf.Smoothed(classifier, SwitchedMap(classifier), sigma=0.005, samples=5, seed=0)


@pytest.fixture
def run(tmp_path: Path) -> uf.Run:
    """Photos dark, bright, dark, bright; PGD left the first as it was, ADV² turned round the map of the second."""
    images = [np.full((SIDE, SIDE, 3), level, dtype=np.uint8) for level in (90, 160, 90, 160)]
    folder = write_run(tmp_path / "run", Recipe(files=FILES, interpreters=("cam",), images=images))
    found = open_run(folder)
    pgd, adv2 = (next(c for c in found.summary.conditions if c.attack == name) for name in ("pgd", "adv2"))
    none = next(c for c in found.summary.conditions if c.attack == "none")
    first, second = found.photos[:2]
    shutil.copy(found.picture(first, none), found.picture(first, pgd))
    turned = read_png(found.picture(second, adv2))
    turned[:, 0, 0] = 0.1
    save_png(turned, found.picture(second, adv2))
    return found


def test_goals_are_counted_on_what_the_system_shows(run: uf.Run, system: uf.Smoothed) -> None:
    rows = {row["condition"]: row for row in uf.score_smoothed(run, system).rows()}
    assert list(rows) == ["none", "noise", "pgd", "adv2-cam"]
    counted = {name: (row["goal"], row["n"], row["label"], row["both"]) for name, row in rows.items()}
    assert counted == {
        "none": ("", 4, 4, 4),
        "noise": ("", 4, 0, 0),  # as rough as an attack
        "pgd": ("target/free", 4, 3, 3),
        "adv2-cam": ("target/kept", 4, 4, 3),
    }
    assert [row["label_in_run"] for row in rows.values()] == [None, None, 4, 4]
    assert rows["adv2-cam"]["both_low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson's of 3 of 4
    assert all(row["abstained"] == 0 for row in rows.values())


def test_where_no_label_has_a_majority_no_goal_is_met(run: uf.Run, system: uf.Smoothed) -> None:
    """An image on the border of two classes shows neither in both of two draws, half of the time."""
    classifier = system.classifier
    two = uf.Smoothed(classifier, SwitchedMap(classifier), sigma=0.005, samples=2, seed=0)
    none = next(c for c in run.summary.conditions if c.attack == "none")
    for photo in run.photos:
        border = torch.full((3, SIDE, SIDE), 127 / 255)
        border[:, ::2] = 128 / 255
        save_png(border, run.picture(photo, none))
    benign = uf.score_smoothed(run, two).scores[0]
    assert 0 < benign.abstained.k < 4
    assert benign.label.k <= 4 - benign.abstained.k


def test_a_run_of_another_kind_of_images_is_refused(run: uf.Run) -> None:
    classifier, _, _ = plane(0.1)
    with pytest.raises(uf.InputError, match="give a run of its classifier"):
        uf.score_smoothed(run, uf.Smoothed(classifier, SwitchedMap(classifier)))


def test_images_that_were_not_kept_are_named(run: uf.Run, system: uf.Smoothed) -> None:
    none = next(c for c in run.summary.conditions if c.attack == "none")
    run.picture(run.photos[0], none).unlink()
    with pytest.raises(uf.InputError, match=r"benign\.png.* is missing"):
        uf.score_smoothed(run, system)


def test_a_classifier_is_no_system(system: uf.Smoothed, tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", Recipe()))
    with pytest.raises(uf.InputError, match="a Smoothed"):
        uf.score_smoothed(run, system.classifier)  # type: ignore[arg-type]
