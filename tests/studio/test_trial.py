"""Every goal of the page on a toy, and that who watches an attack changes nothing."""

from dataclasses import replace

import pytest
import torch

from support.studio import asking, toy_session, wait, wish
from support.toy_photos import toy_classifier
from support.toys import images
from underfire import ADV2, CAM, GRAD, IG, metrics, parsing
from underfire.attacks.goals import Goal
from underfire.auditing.names import known_perturbations
from underfire.studio.trial import TAU
from underfire.studio.wish import DRAWN, GOALS, PerturbationChoice, perturbation_choices


def patch() -> list[int]:
    return [255 if k % DRAWN < DRAWN // 2 else 0 for k in range(DRAWN**2)]


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_of_the_page_runs_and_is_scored_as_it_is_defined(goal: str) -> None:
    session = toy_session()
    client = asking(session)
    changes = {"goal": goal, "passes": 40, "target_map": patch() if goal.endswith("/led") else None}
    assert client.post("attack", json=wish(**changes)).status_code == 202
    told = wait(session)
    assert told["phase"] == "done", told["message"]
    result, wanted = told["result"], Goal.parse(goal)
    label = told["benign"]["label"]
    expected = {"target": result["prediction"] == "class 3", "other": result["prediction"] != label}
    if wanted.label != "kept":
        assert result["label_met"] == expected[wanted.label]
    d = result["distances"]["cam"]
    if wanted.map == "free":
        assert result["maps_met"] == {}
    elif wanted.map in ("kept", "led"):
        assert result["maps_met"]["cam"] == (d["iou"] >= TAU)
    elif wanted.map == "center":
        assert result["maps_met"]["cam"] == (d["shift"] >= TAU)
    else:
        assert result["maps_met"]["cam"] == (d["top"] <= TAU)
    assert result["met"] == (result["label_met"] and all(result["maps_met"].values()))


@pytest.mark.parametrize("perturbation", perturbation_choices(), ids=lambda p: p.name)
@pytest.mark.parametrize("goal", ["target/kept", "target/free", "kept/topk"])
def test_every_perturbation_keeps_to_its_budget(goal: str, perturbation: PerturbationChoice) -> None:
    session = toy_session()
    budget = perturbation.budgets[perturbation.default]
    asked = wish(goal=goal, perturbation=perturbation.name, eps=budget)
    assert asking(session).post("attack", json=asked).status_code == 202
    told = wait(session)
    assert told["phase"] == "done", told["message"]
    assert told["asked"]["perturbation"] == perturbation.name
    assert told["frame"]["gain"] >= 1
    assert known_perturbations()[perturbation.name].eps == pytest.approx(parsing.number(budget))


@pytest.mark.parametrize("make", [CAM, GRAD, IG], ids=lambda make: make.name)
def test_a_watched_attack_is_the_same_attack(make: type[CAM | GRAD | IG]) -> None:
    """Whoever watches takes maps of every iterate, and the images come out the same to the bit."""
    clf = toy_classifier()
    x = images(3, 32)
    target = (clf(x).argmax(dim=1) + 1) % 10
    g = make(clf)
    alone = ADV2(g, steps=12)(x, target)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def watch(rows: torch.Tensor, x_adv: torch.Tensor, passes: torch.Tensor) -> None:
        g(x_adv, target[rows])
        torch.rand(())
        seen.append((rows, x_adv.clone(), passes))
        x_adv.zero_()

    attack = ADV2(g, steps=12)
    attack.setting = replace(attack.setting, watch=watch)
    state = torch.get_rng_state()
    watched = attack(x, target)
    torch.set_rng_state(state)
    assert torch.equal(alone.x_adv, watched.x_adv)
    assert torch.equal(alone.passes, watched.passes)
    assert torch.equal(seen[0][1], x)
    assert seen[0][2].tolist() == [0, 0, 0]
    for rows, x_adv, passes in seen:
        assert bool((metrics.linf(x_adv, x[rows]) <= 8 / 255 + 1e-6).all())
        assert bool((passes <= watched.passes[rows]).all())


def test_what_a_watcher_raises_ends_the_attack_and_leaves_the_model_as_it_was() -> None:
    clf = toy_classifier()
    attack = ADV2(CAM(clf), steps=12)

    def watch(*_: torch.Tensor) -> None:
        raise KeyError("enough")

    attack.setting = replace(attack.setting, watch=watch)
    before = [(p.requires_grad, m.training) for m in clf.module.modules() for p in m.parameters(recurse=False)]
    with pytest.raises(KeyError, match="enough"):
        attack(images(1, 32), torch.tensor([3]))
    assert not clf.is_frozen
    assert [(p.requires_grad, m.training) for m in clf.module.modules() for p in m.parameters(recurse=False)] == before
