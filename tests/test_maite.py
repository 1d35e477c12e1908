"""MAITE's own protocols and its own evaluate take our classifier, photos, attack and metric."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import underfire as uf
from support.toy_photos import BROKEN, found, toy_classifier, write_photos
from underfire.attacks.joint import JointAttack
from underfire.errors import InputError
from underfire.maite import MAP_IOU, TARGET, MaiteAttack, MaiteDataset, MaiteJointSuccess, MaiteModel

ic = pytest.importorskip("maite.protocols.image_classification")
tasks = pytest.importorskip("maite.tasks")


@pytest.fixture(scope="module")
def classifier() -> uf.Classifier:
    return toy_classifier()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, classifier: uf.Classifier) -> MaiteDataset:
    photos = found(write_photos(tmp_path_factory.mktemp("photos") / "set")).photos
    return MaiteDataset([photo for photo in photos if photo.image_id != BROKEN], classifier)


def adv2(classifier: uf.Classifier) -> JointAttack:
    return uf.ADV2(uf.CAM(classifier), steps=12)


def test_they_are_what_the_protocols_ask_for(classifier: uf.Classifier, dataset: MaiteDataset) -> None:
    assert isinstance(MaiteModel(classifier), ic.Model)
    assert isinstance(dataset, ic.Dataset)
    assert isinstance(MaiteAttack(adv2(classifier)), ic.Augmentation)
    assert isinstance(MaiteJointSuccess(), ic.Metric)
    for part in (MaiteModel(classifier), dataset):
        assert part.metadata["index2label"] == dict(enumerate(classifier.class_names))


def test_a_datum(classifier: uf.Classifier, dataset: MaiteDataset) -> None:
    assert len(dataset) == 5
    image, label, metadata = dataset[0]
    assert (image.shape, label.shape) == ((3, 32, 32), (10,))
    assert image.dtype == np.float32
    assert (label.sum(), metadata) == (1, {"id": "photo-0.png"})
    (scores,) = MaiteModel(classifier)([image])
    expected = classifier.probabilities(torch.from_numpy(image)[None])[0]
    np.testing.assert_allclose(scores, expected.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("aim", ["next", "other"])
def test_evaluate_finds_the_rate_that_the_attack_has(
    aim: Any, classifier: uf.Classifier, dataset: MaiteDataset
) -> None:
    attack = adv2(classifier)
    metric, _, batches = tasks.evaluate(
        model=MaiteModel(classifier), dataset=dataset, metric=MaiteJointSuccess(0.5), batch_size=2,
        augmentation=MaiteAttack(attack, aim=aim), return_augmented_data=True,
    )  # fmt: skip
    images, labels, ids = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    x, y = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).argmax(dim=1)
    target = (y + 1) % 10 if aim == "next" else None
    made = attack(x, target, label=y, keys=[one["id"] for one in ids])
    saved = torch.round(made.x_adv * 255) / 255
    shown = classifier.probabilities(saved).argmax(dim=1)
    cam = uf.CAM(classifier)
    kept = uf.metrics.iou(cam(saved, shown), cam(x, y)) >= 0.5
    reached = shown != y if target is None else shown == target
    assert metric["n"] == 5
    assert metric["jsr"] == pytest.approx(float((reached & kept).double().mean()))
    assert metric["low"] <= metric["jsr"] <= metric["high"]
    attacked = np.concatenate([np.stack(batch[0]) for batch in batches])
    np.testing.assert_allclose(attacked, saved.numpy(), atol=1e-6)  # the same whatever the batch
    told = [one for batch in batches for one in batch[2]]
    assert {one[TARGET] for one in told} == ({-1} if target is None else set(target.tolist()))
    assert np.abs(attacked - x.numpy()).max() <= 8 / 255 + 1e-6


def test_an_attack_on_the_prediction_counts_by_the_label(classifier: uf.Classifier, dataset: MaiteDataset) -> None:
    metric, _, batches = tasks.evaluate(
        model=MaiteModel(classifier), dataset=dataset, metric=MaiteJointSuccess(), batch_size=5,
        augmentation=MaiteAttack(uf.PGD(classifier, steps=20)), return_augmented_data=True,
    )  # fmt: skip
    assert metric["jsr"] > 0.5
    assert all(np.isnan(one[MAP_IOU]) for one in batches[0][2])


def test_the_rate_in_closed_form() -> None:
    metric = MaiteJointSuccess(tau=0.5)
    label = np.eye(3)
    told = [
        {"id": 0, TARGET: 1, MAP_IOU: 0.9},  # met
        {"id": 1, TARGET: 1, MAP_IOU: 0.4},  # the map is not
        {"id": 2, TARGET: 2, MAP_IOU: 0.9},  # the label is not
        {"id": 3, TARGET: -1, MAP_IOU: 0.5},  # met: any other label
    ]
    metric.update([label[1]] * 4, [label[0]] * 4, told)
    assert metric.compute()["jsr"] == 0.5
    metric.reset()
    assert metric.compute() == {"jsr": None, "low": None, "high": None, "n": 0}


def test_what_is_refused(classifier: uf.Classifier, dataset: MaiteDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'photo-0\.png' has no label"):
        MaiteDataset(found(write_photos(tmp_path / "set", 1) / "photo-0.png").photos, classifier)
    with pytest.raises(InputError, match="aim is 'up'"):
        MaiteAttack(adv2(classifier), aim="up")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give MaiteAttack"):
        MaiteJointSuccess().update([np.ones(3)], [np.ones(3)], [{"id": 7}])
