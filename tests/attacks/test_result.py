"""The result of an attack and its rows."""

import dataclasses
import json
import math

import pytest
import torch

from support.toys import images
from underfire import ADV2, CAM, GRAD, PGD, AttackResult, Classifier, Linf

EPS, STEPS = 8 / 255, 6
COMMON = {
    "key",
    "attack",
    "goal",
    "source",
    "target",
    "prediction",
    "success",
    "confidence",
    "linf",
    "perturbation",
    "used",
    "passes",
    "steps",
    "seconds",
}


@pytest.fixture
def blind(relu_classifier: Classifier) -> AttackResult:
    return PGD(relu_classifier, eps=EPS, steps=STEPS)(images(3, 32), torch.tensor([1, 2, 3]), keys=["a", "b", "c"])


@pytest.fixture
def joint(relu_classifier: Classifier) -> AttackResult:
    attack = ADV2([CAM(relu_classifier), GRAD(relu_classifier)], eps=EPS, steps=STEPS)
    return attack(images(3, 32), torch.tensor([1, 2, 3]), keys=["a", "b", "c"])


def test_one_row_per_image_without_interpreters(blind: AttackResult) -> None:
    rows = blind.rows()
    assert [row["key"] for row in rows] == ["a", "b", "c"]
    assert all(set(row) == COMMON for row in rows)
    assert {row["source"] for row in rows} == {"-"}
    assert {row["attack"] for row in rows} == {"pgd"}


def test_one_row_per_image_and_interpreter(joint: AttackResult) -> None:
    rows = joint.rows()
    assert [(row["key"], row["interpreter"]) for row in rows] == [(k, g) for k in "abc" for g in ("cam", "grad")]
    assert all(set(row) == COMMON | {"interpreter", "l1"} for row in rows)
    assert {row["source"] for row in rows} == {joint.source} == {"cam+grad"}


def test_rows_say_what_the_tensors_say(joint: AttackResult) -> None:
    for row in joint.rows():
        i, name = joint.keys.index(str(row["key"])), str(row["interpreter"])
        assert row["target"] == [1, 2, 3][i]
        assert row["prediction"] == int(joint.prediction[i])
        assert row["success"] == (row["prediction"] == row["target"])
        assert row["confidence"] == float(joint.confidence[i])
        assert row["linf"] == float((joint.x_adv[i] - joint.x[i]).abs().max())
        assert 0 < float(row["linf"]) <= EPS + 1e-7
        assert row["perturbation"] == "linf"
        assert row["used"] == float(joint.used[i]) == pytest.approx(float(row["linf"]), abs=1e-7)
        assert row["l1"] == pytest.approx(float((joint.maps[name][i] - joint.target_maps[name][i]).abs().mean()))
        assert (row["steps"], row["passes"]) == (STEPS, int(joint.passes[i]))
        assert row["seconds"] == pytest.approx(joint.seconds / 3)


def test_rows_are_plain_values_for_a_table(joint: AttackResult) -> None:
    rows = joint.rows()
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        for value in row.values():
            assert type(value) in (str, int, float, bool)
            assert not isinstance(value, float) or math.isfinite(value)


def test_no_image_no_row(relu_classifier: Classifier) -> None:
    empty, none = torch.empty(0, 3, 32, 32), torch.empty(0, dtype=torch.int64)
    assert PGD(relu_classifier, steps=3)(empty, none).rows() == []
    assert ADV2(CAM(relu_classifier), steps=3)(empty, none).rows() == []


def test_a_result_is_not_changed_afterwards(blind: AttackResult) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        blind.x_adv = blind.x  # type: ignore[misc]


def test_the_budget_is_the_perturbation_s(blind: AttackResult) -> None:
    assert blind.perturbation == Linf(EPS)
    assert blind.eps == EPS
    assert torch.equal(blind.used, (blind.x_adv - blind.x).abs().amax(dim=(1, 2, 3)))
