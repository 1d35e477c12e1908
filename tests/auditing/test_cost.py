"""What an audit is said to take is what it takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.toy_photos import found, toy_classifier, toy_plan, write_photos
from underfire.attacks import ADV2
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import NOISE, NONE
from underfire.auditing.cost import costs_of
from underfire.auditing.names import make_interpreters
from underfire.auditing.run import read_run
from underfire.auditing.runner import run_audit
from underfire.interpreters import CAM, MASK


@pytest.mark.parametrize("effort", [{"steps": 6}, {"steps": None, "passes": 9}])
def test_no_attack_spends_more_than_is_said(tmp_path: Path, effort: dict[str, Any]) -> None:
    changes = {"attacks": ("pgd", "adv2", "stadv", "square"), **effort}
    plan, classifier = replace(toy_plan(), **changes), toy_classifier()
    run_audit(plan, found(write_photos(tmp_path / "photos")), classifier, tmp_path / "run")
    run = read_run(tmp_path / "run")
    interpreters = make_interpreters(plan.interpreters, classifier)
    attacks = {c: attack_of(plan, c, classifier, interpreters) for c in plan.conditions[2:]}
    costs = {cost.condition: cost for cost in costs_of(attacks, plan.conditions, interpreters, run.photos)}
    assert list(costs) == list(plan.conditions)
    for condition, cost in costs.items():
        rows = [row for row in run.records if row.condition == condition]
        spent = {row.image_id: row.spent.passes for row in rows}
        assert (len(spent), max(spent.values()) <= (cost.attack or 0)) == (cost.photos, True)
        if condition.attack == "square" or condition.is_control:
            continue
        assert max(spent.values()) == cost.attack  # an image that is not done early spends all


def test_maps_are_taken_of_every_image_as_computed_and_as_saved() -> None:
    classifier = toy_classifier()
    interpreters = make_interpreters(("grad", "ig"), classifier)
    none, noise = costs_of({}, (NONE, NOISE), interpreters, ())
    assert (none.maps, noise.maps) == (1 + 1 + 32, 2 * (1 + 1 + 32))
    assert (none.total, noise.total) == (0, 0)


def test_finalists_are_paid_for_as_well() -> None:
    classifier = toy_classifier()
    attack = ADV2(MASK(classifier), passes=3000)
    assert len(attack.setting.finals) > 3
    assert 2995 < attack.most_passes() <= 3000
    assert ADV2(CAM(classifier), steps=10).most_passes() == 11
