"""Which attack a preset means."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audit.toy_photos import found, toy_classifier, toy_plan, write_photos
from toys import images
from underfire import ADV2, AuthorsADV2, InputError, Interpreter, Linf
from underfire.audit.attackers import joint_attack
from underfire.audit.plan import STEPS, Preset
from underfire.audit.rows import read_rows
from underfire.audit.runner import run_audit
from underfire.interpreters import ALL, CAM, GRAD


@pytest.mark.parametrize("preset", list(STEPS))
@pytest.mark.parametrize("make", ALL, ids=lambda g: g.name)
def test_the_preset_decides_whose_adv2_it_is(preset: Preset, make: type[Interpreter]) -> None:
    classifier = toy_classifier()
    x, target, linf = images(2, 32), torch.tensor([1, 2]), Linf(0.05)
    attack = joint_attack("adv2", preset, [make(classifier)], perturbation=linf, steps=12, seed=1)
    own = AuthorsADV2 if preset == "authors" else ADV2
    assert torch.equal(attack(x, target).x_adv, own(make(classifier), eps=0.05, steps=12, seed=1)(x, target).x_adv)


def test_the_authors_attack_one_interpreter() -> None:
    classifier = toy_classifier()
    several = [CAM(classifier), GRAD(classifier)]
    with pytest.raises(InputError, match="'authors' attacks one interpreter, not cam, grad at once"):
        joint_attack("adv2", "authors", several, perturbation=Linf(), steps=12, seed=1)


def test_an_audit_by_the_authors_schedule(tmp_path: Path) -> None:
    photos = found(write_photos(tmp_path / "photos"))
    passes: dict[Preset, set[int]] = {}
    presets: tuple[Preset, ...] = ("quick", "authors")
    for preset in presets:
        run_audit(replace(toy_plan(), preset=preset), photos, toy_classifier(), tmp_path / preset)
        rows = read_rows(tmp_path / preset)
        assert {row.attack for row in rows} == {"none", "noise", "pgd", "adv2"}
        passes[preset] = {row.passes for row in rows if row.condition == "adv2-grad"}
    warm, last = 5, 1  # of 16 steps; the last iterate is looked at as well
    assert passes["authors"] == {warm + 2 * (16 - warm + last)}
    assert passes["authors"] != passes["quick"]
