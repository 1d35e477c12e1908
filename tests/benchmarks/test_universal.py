"""Universal perturbations are scored on photos that they were not fitted to, and a finished fit is not made again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.universal import (
    HELD_OUT,
    NOISE,
    Bench,
    Case,
    Photos,
    cases,
    differences,
    halves,
    in_short,
    measure,
    table,
)
from support.toys import images
from underfire import Classifier
from underfire.images.records import Photo

LISTED = HELD_OUT.read_text(encoding="utf-8").splitlines()


def _photo(name: str) -> Photo:
    return Photo(name, Path(name), None, None)


def test_what_is_fitted_to_is_not_scored_on() -> None:
    photos = [_photo(name) for name in [*(f"{i}.jpg" for i in range(41)), *LISTED[:7]]]
    fit, test = halves(photos)
    names = [[photo.image_id for photo in half] for half in (fit, test)]
    assert len(fit) == 20
    assert names[1][:7] == LISTED[:7]
    assert not set(names[0]) & set(names[1])
    assert not set(names[0]) & set(LISTED)
    again = halves(photos[::-1])
    assert [photo.image_id for photo in again[0]] == names[0]


@pytest.fixture
def bench(relu_classifier: Classifier) -> Bench:
    x = (images(9, 32) * 255).round() / 255
    label = relu_classifier(x).argmax(dim=1)
    fit, test = (
        Photos(tuple("012345"[: len(part)]), part, label[rows])
        for part, rows in ((x[:5], slice(5)), (x[5:], slice(5, 9)))
    )
    return Bench(relu_classifier, fit, test, passes=6, batch_size=2)


def test_a_run_goes_on_where_it_was_stopped(bench: Bench, tmp_path: Path) -> None:
    target = int(bench.test.label[0])
    plan = cases([target], [16], groups=["any"])
    first = list(measure(bench, plan[:2], tmp_path))
    assert [len(one.photos) for one in first] == [int((bench.test.label != target).sum())] * 2
    (file,) = tmp_path.rglob(plan[1].file)
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"reached": 0.25}), encoding="utf-8")
    found = list(measure(bench, plan, tmp_path))
    assert found[0] == first[0]
    assert found[1] == replace(first[1], reached=0.25)
    assert [one.case for one in found] == plan
    assert [one.fitted for one in found] == [0] + 3 * [int((bench.fit.label != target).sum())]
    assert all(0 < one.passes <= 6 for one in found[1:])
    assert len(table("all", found).rows) == 4
    assert len(differences("paired", found).rows) == 2
    assert len(list(in_short(bench.classifier, found))) == 2


def test_noise_is_of_full_size_and_aimed_at_nothing(bench: Bench, tmp_path: Path) -> None:
    (found,) = measure(bench, [Case(NOISE, 8, 3)], tmp_path)
    assert found.changed == pytest.approx(8)
    assert found.passes == 0


def test_photos_of_a_group_alone_take_part(bench: Bench) -> None:
    photos = replace(bench.test, label=torch.tensor([150, 151, 268, 269]))
    assert photos.of(Case("cam", 8, 3, "dogs")).names == ("1", "2")
    assert photos.of(Case("cam", 8, 151, "dogs")).names == ("2",)
    assert photos.of(Case("cam", 8, 269)).names == ("0", "1", "2")
