"""Which attack a preset means."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.rows import flat
from support.toy_photos import found, toy_classifier, toy_plan, write_photos
from support.toys import every, images
from underfire import ADV2, PGD, AuthorsADV2, Classifier, InputError, Interpreter, Linf
from underfire.attacks import StAdv
from underfire.attacks.authors import PUBLISHED
from underfire.attacks.budget import Effort
from underfire.attacks.joint import Terms
from underfire.attacks.registry import entry_of
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import Condition
from underfire.auditing.plan import AuditPlan, Preset
from underfire.auditing.rows import read_rows
from underfire.auditing.runner import run_audit
from underfire.interpreters import CAM, GRAD


@pytest.mark.parametrize("preset", ["standard", "authors"])
@every
def test_the_preset_decides_whose_adv2_it_is(preset: Preset, make: Callable[[Classifier], Interpreter]) -> None:
    classifier = toy_classifier()
    x, target, linf = images(2, 32), torch.tensor([1, 2]), Linf(0.05)
    if preset == "authors" and make(classifier).name not in PUBLISHED:
        with pytest.raises(InputError, match="no schedule of the authors is implemented for"):
            entry_of("adv2").make(classifier, [make(classifier)], Terms(linf, Effort(steps=5), 1), preset=preset)
        return
    attack = entry_of("adv2").make(classifier, [make(classifier)], Terms(linf, Effort(steps=5), 1), preset=preset)
    own = AuthorsADV2 if preset == "authors" else ADV2
    assert torch.equal(attack(x, target).x_adv, own(make(classifier), eps=0.05, steps=5, seed=1)(x, target).x_adv)


def test_the_authors_attack_one_interpreter() -> None:
    classifier = toy_classifier()
    several = [CAM(classifier), GRAD(classifier)]
    with pytest.raises(InputError, match="'authors' attacks one interpreter, not cam, grad at once"):
        entry_of("adv2").make(classifier, several, Terms(Linf(), Effort(steps=12), 1), preset="authors")


def test_the_plan_decides_how_long_an_attack_works() -> None:
    classifier = toy_classifier()
    g = GRAD(classifier)
    for condition in AuditPlan(interpreters=("grad",), attacks=("pgd", "adv2", "stadv")).conditions[2:]:
        for steps, passes in ((9, None), (None, 90)):
            plan = AuditPlan(steps=steps, passes=passes)
            attack = attack_of(plan, condition, classifier, [CAM(classifier), g])
            attacks: tuple[PGD | ADV2 | StAdv, ...] = (
                PGD(classifier, steps=steps, passes=passes),
                ADV2(g, steps=steps, passes=passes),
                StAdv(g, steps=steps, passes=passes),
            )
            (own,) = (known for known in attacks if known.name == condition.attack)
            assert isinstance(attack, PGD | ADV2 | StAdv)
            assert type(attack) is type(own)
            assert attack.setting == own.setting
    published = attack_of(AuditPlan(preset="authors"), Condition.on("adv2", "grad"), classifier, [g])
    assert isinstance(published, AuthorsADV2)
    assert published.setting.schedule == AuthorsADV2(g).setting.schedule


def test_too_few_passes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    photos = found(write_photos(tmp_path / "photos"))
    plan = replace(toy_plan(), interpreters=("cam", "ig"), steps=None, passes=5)
    with pytest.raises(InputError, match="passes is 5; one step of an attack on ig takes"):
        run_audit(plan, photos, toy_classifier(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_audit_of_so_many_passes_spends_no_more(tmp_path: Path) -> None:
    photos = found(write_photos(tmp_path / "photos"))
    run_audit(replace(toy_plan(), steps=None, passes=20), photos, toy_classifier(), tmp_path / "run")
    rows = list(map(flat, read_rows(tmp_path / "run")))
    assert {row.condition: row.steps for row in rows} == {
        "none": 0, "noise": 0, "pgd": 19, "adv2-cam": 19, "adv2-grad": 11  # of which 5 warm: 5 + 2 · (6 + 1) passes
    }  # fmt: skip
    assert 10 < max(row.passes for row in rows) <= 20


def test_an_audit_by_the_authors_schedule(tmp_path: Path) -> None:
    photos = found(write_photos(tmp_path / "photos"))
    passes: dict[Preset, set[int]] = {}
    made: dict[Preset, set[float | None]] = {}
    presets: tuple[Preset, ...] = ("quick", "authors")
    for preset in presets:
        run_audit(replace(toy_plan(), preset=preset), photos, toy_classifier(), tmp_path / preset)
        rows = list(map(flat, read_rows(tmp_path / preset)))
        assert {row.attack for row in rows} == {"none", "noise", "pgd", "adv2"}
        passes[preset] = {row.passes for row in rows if row.condition == "adv2-grad"}
        made[preset] = {row.confidence for row in rows if row.condition == "adv2-grad"}
    warm, last = 5, 1  # of 16 steps; the last iterate is looked at as well
    assert passes["authors"] == {warm + 2 * (16 - warm + last)}
    assert made["authors"].isdisjoint(made["quick"])
