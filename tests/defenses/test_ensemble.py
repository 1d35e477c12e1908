"""The ensemble detector, from clean toy pictures to flags, and its file."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.nets import waves
from support.toys import images, relu_net, small_mask
from underfire import (
    CAM,
    GRAD,
    IG,
    PGD,
    RTS,
    Classifier,
    EnsembleDetector,
    GradCAM,
    InputError,
    Interpreter,
    MaskingNetwork,
    SmoothGrad,
)
from underfire.auditing.given import GivenParts
from underfire.decoding import plain_json
from underfire.defenses.ensemble import settings_of
from underfire.defenses.signals import Pairs, Shapes, Views
from underfire.defenses.views import Noise, Shift

FIT, HELD_OUT = 80, 40
CHEAP = (Pairs, Shapes)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


@pytest.fixture(scope="module")
def detector(classifier: Classifier) -> EnsembleDetector:
    return EnsembleDetector([CAM(classifier), GRAD(classifier)], fpr=0.1).fit(images(FIT, 32))


def test_planted_photos_are_flagged_and_clean_ones_at_the_named_rate(
    classifier: Classifier, detector: EnsembleDetector
) -> None:
    clean = images(FIT + HELD_OUT, 32)[FIT:]
    low, high = detector.fpr_interval_
    assert low < 0.1 < high < 0.25
    rate = float((detector.predict(clean) == -1).double().mean())
    assert rate <= 0.25
    noise = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for strange in (waves(10, amplitude=0.3, period=7.0), noise):
        assert float((detector.predict(strange) == -1).double().mean()) >= 0.8


def test_attacked_photos_look_less_clean_than_before(classifier: Classifier, detector: EnsembleDetector) -> None:
    clean = images(FIT + 20, 32)[FIT:]
    target = (classifier(clean).argmax(dim=1) + 3) % 10
    attacked = PGD(classifier, eps=8 / 255, steps=20)(clean, target)
    before, after = detector.score_samples(clean), detector.score_samples(attacked.x_adv)
    auroc = float((after[:, None] < before).double().mean())
    assert auroc > 0.8


def test_a_flag_is_explained_with_signals_and_maps(detector: EnsembleDetector) -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (told,) = detector.explain(noise, ["static"])
    assert told.flagged
    assert {reason.name for reason in told.reasons} == set(detector.signals.names)
    assert -0.5 * sum(reason.contribution for reason in told.reasons) == pytest.approx(told.score)
    assert {name: maps.shape for name, maps in told.maps.items()} == {"cam": (8, 8), "grad": (8, 8)}


def test_a_file_is_enough_for_interpreters_of_the_package(
    tmp_path: Path, classifier: Classifier, detector: EnsembleDetector
) -> None:
    path, x = tmp_path / "d.safetensors", images(4, 32, seed=5)
    detector.save(path)
    again = EnsembleDetector.load(path, classifier)
    assert again.signals.names == detector.signals.names
    assert again.settings() == detector.settings()
    assert torch.equal(again.decision_function(x), detector.decision_function(x))


def test_interpreters_of_other_settings_are_not_taken_for_the_same(tmp_path: Path, classifier: Classifier) -> None:
    path, clean = tmp_path / "d.safetensors", images(12, 32)
    few = EnsembleDetector([SmoothGrad(classifier, samples=2), CAM(classifier)], fpr=0.3, signals=CHEAP).fit(clean)
    few.save(path)
    with pytest.raises(InputError, match="fitted with other settings"):
        EnsembleDetector.load(path, classifier)
    with pytest.raises(InputError, match="fitted with other settings"):
        EnsembleDetector([SmoothGrad(classifier, samples=2), CAM(classifier)], fpr=0.3).restore(path)
    again = EnsembleDetector([SmoothGrad(classifier, samples=2), CAM(classifier)], fpr=0.3, signals=CHEAP).restore(path)
    assert torch.equal(again.predict(clean), few.predict(clean))


class _Own(CAM):
    name = "own"


def test_an_interpreter_of_ones_own_is_restored_not_loaded(tmp_path: Path, classifier: Classifier) -> None:
    path, clean = tmp_path / "d.safetensors", images(12, 32)
    own = EnsembleDetector(_Own(classifier), fpr=0.3, signals=CHEAP).fit(clean)
    own.save(path)
    with pytest.raises(InputError, match="'own' is no interpreter of this package"):
        EnsembleDetector.load(path, classifier)
    again = EnsembleDetector(_Own(classifier), fpr=0.3, signals=CHEAP).restore(path)
    assert torch.equal(again.predict(clean), own.predict(clean))


def test_settings_tell_weights_and_fits_apart(classifier: Classifier) -> None:
    def told(interpreter: Interpreter) -> dict[str, Any]:
        found: dict[str, Any] = EnsembleDetector(interpreter).settings()["interpreters"]
        return found

    networks = [MaskingNetwork.untrained(classifier, seed=seed) for seed in (0, 0, 1)]
    first, same, other = (told(RTS(classifier, network=network)) for network in networks)
    assert first == same != other
    assert told(IG(classifier)) == told(IG(classifier)) != told(IG(classifier, points=16))
    assert told(small_mask(classifier))["mask"]["fit"]["steps"] == 4


def _with_head(*head: nn.Module) -> Classifier:
    body = (nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
    module = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
    return Classifier(module, class_names=list("abcde"), mean=(0, 0, 0), std=(1, 1, 1), input_size=32)


def test_what_tells_interpreters_apart_is_worded_as_version_0_1_did() -> None:
    """By these words what it measured is found again; it had these five, and Captum's."""

    def features(head: str | None) -> dict[str, Any]:
        return {"module": "3", "call": 0, "grid": [16, 16], "head": head}

    linear, deep = _with_head(nn.Linear(8, 5)), _with_head(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))
    nodes = [[0.25, 0.5], [0.75, 0.5]]
    told: dict[Interpreter, dict[str, Any]] = {
        GRAD(linear): {"class": "GRAD", "grid": [8, 8], "probe": 0.0005},
        IG(linear, points=2, strata=1): {
            "class": "IG",
            "baseline": 0.0,
            "grid": [8, 8],
            "nodes": nodes,
            "output": "probability",
            "passes_per_map": 2,
            "probe": 0.0005,
            "strata": 1,
        },
        CAM(linear): {"class": "CAM", "features": features("6"), "grid": [16, 16]},
        GradCAM(linear): {"class": "GradCAM", "features": features("6"), "grid": [16, 16], "relu": False},
        GradCAM(deep): {"class": "GradCAM", "features": features(None), "grid": [16, 16], "relu": False},
        GradCAM(deep, relu=True): {"class": "GradCAM", "features": features(None), "grid": [16, 16], "relu": True},
    }
    for interpreter, words in told.items():
        assert repr(settings_of(interpreter)) == repr(words)  # digests are of this


def test_numbers_that_json_has_not_are_told_as_text(classifier: Classifier) -> None:
    """Own interpreters may have any: their settings stand in run.json, certify.json and detectors."""
    own = GRAD(classifier)
    own.reach = (-math.inf, math.nan, 2**64, 0.5, True)  # type: ignore[attr-defined]
    own.limit = math.inf  # type: ignore[attr-defined]
    assert settings_of(own)["reach"] == ["-inf", "nan", str(2**64), 0.5, True]
    for told in (settings_of(own), GivenParts({"grad": own}).settings()):
        assert plain_json(json.dumps(told, allow_nan=False).encode()) == told


def test_other_views_are_part_of_the_settings(tmp_path: Path, classifier: Classifier) -> None:
    path, clean = tmp_path / "d.safetensors", images(12, 32)
    views = [Views([Noise(8), Shift(4)])]
    detector = EnsembleDetector(CAM(classifier), fpr=0.3, signals=views).fit(clean)
    detector.save(path)
    with pytest.raises(InputError, match="fitted with other"):
        EnsembleDetector.load(path, classifier)
    again = EnsembleDetector(CAM(classifier), fpr=0.3, signals=views).restore(path)
    assert torch.equal(again.predict(clean), detector.predict(clean))
