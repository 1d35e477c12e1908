"""The last choice: fresh maps decide image by image, and what was chosen is what is saved."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.toys import CLASSES, SMALL_FIT, images, small_mask
from underfire import ADV2, CAM, L2, MASK, Classifier, Flow, Linf
from underfire.attacks.budget import MOST_FINALISTS, descent_of, finalists_of
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Iterate, Outcome, Setting
from underfire.attacks.finals import decide
from underfire.attacks.keepers import BEST, LATEST
from underfire.attacks.labels import Confidence
from underfire.attacks.trace import Course, Trace
from underfire.images.png import from_8bit
from underfire.interpreters.maps import distance

KEYS = ("a", "b", "c")


def _outcome(finalists: list[Tensor]) -> Outcome:
    n = len(finalists[0])
    still = torch.zeros(n)
    trace = Trace(still, Course(still, still, still), None)
    iterates = tuple(Iterate(x, torch.full((n,), float(k))) for k, x in enumerate(finalists))
    return Outcome(finalists[0], still, torch.tensor([5] * n), trace, iterates)


def test_each_image_gets_its_own_winner(relu_classifier: Classifier) -> None:
    finalists = [images(3, 32, seed=seed) for seed in (1, 2, 3)]
    g = small_mask(relu_classifier)
    target = relu_classifier(finalists[1]).argmax(dim=1)
    planted = torch.tensor([2, 0, 1])
    maps = torch.stack([g(x, target, keys=KEYS) for x in finalists])
    aimed = maps[planted, torch.arange(3)]
    decided = decide(relu_classifier, target, {g: aimed}, _outcome(finalists), label=Confidence(keep=0), keys=KEYS)
    holds = torch.stack([relu_classifier(x).argmax(dim=1) == target for x in finalists])
    assert holds[1].all()  # so that the second is never beaten by one without the label
    for i in range(3):
        among = [k for k in range(3) if holds[k, i]]
        expected = min(among, key=lambda k: float(distance(maps[k, i][None], aimed[i][None])))
        assert torch.equal(decided.outcome.x_adv[i], finalists[expected][i])
        assert torch.equal(decided.maps["mask"][i], maps[expected, i])
        assert int(decided.outcome.used[i]) == expected
    assert decided.outcome.passes.tolist() == [5 + 3 * SMALL_FIT.steps] * 3
    assert decided.outcome.finalists == ()


def test_the_label_comes_first(relu_classifier: Classifier) -> None:
    first, second = images(3, 32, seed=1), images(3, 32, seed=2)
    target = relu_classifier(second).argmax(dim=1)
    g = small_mask(relu_classifier)
    aimed = g(first, target, keys=KEYS)  # the first has the very map, and not the label
    lost = relu_classifier(first).argmax(dim=1) != target
    assert lost.any()
    decided = decide(
        relu_classifier, target, {g: aimed}, _outcome([second, first]), label=Confidence(keep=0), keys=KEYS
    )
    assert torch.equal(decided.outcome.x_adv[lost], second[lost])


@pytest.mark.parametrize("model", [Linf(), L2(), Flow()], ids=lambda m: m.name)
def test_what_an_attack_on_mask_returns_is_what_is_saved(model: Linf | L2 | Flow, relu_classifier: Classifier) -> None:
    x, g = from_8bit((images(3, 32) * 255).round().byte()), small_mask(relu_classifier)
    target = (relu_classifier(x).argmax(dim=1) + 1) % CLASSES
    result = ADV2(g, perturbation=model, steps=12)(x, target, keys=KEYS)
    assert torch.equal(result.maps["mask"], g(result.x_adv, target, keys=KEYS))
    assert result.trace.maps is not None
    torch.testing.assert_close(result.trace.maps.kept, distance(result.maps["mask"], result.target_maps["mask"]))
    torch.testing.assert_close((-result.trace.prediction.kept).exp(), result.confidence)
    assert model.contains(x, result.x_adv).all()
    if not isinstance(model, Flow):
        assert torch.equal(result.x_adv, from_8bit(model.rounded(x, result.x_adv)))


@pytest.mark.parametrize("passes", [6, 15, 16, 17, 40, 99])
def test_finalists_are_paid_from_the_budget(passes: int, relu_classifier: Classifier) -> None:
    g, x = small_mask(relu_classifier), images(2, 32)
    attack = ADV2(g, passes=passes)
    steps, finalists = attack.setting.schedule.steps, attack.setting.finalists
    assert finalists == (0 if passes < 16 else min(MOST_FINALISTS, passes // 2 // SMALL_FIT.steps))
    target = (relu_classifier(x).argmax(dim=1) + 1) % CLASSES
    spent = descent_of(steps, (g,)) + finalists * SMALL_FIT.steps
    assert attack(x, target).passes.tolist() == [spent] * 2
    assert spent <= passes < spent + g.passes_per_step  # nothing that would pay for a step is left


def test_an_attack_of_named_steps_pays_as_much_again_for_finalists(relu_classifier: Classifier) -> None:
    g = small_mask(relu_classifier)
    assert ADV2(g, steps=9).setting.finalists == min(MOST_FINALISTS, descent_of(9, (g,)) // SMALL_FIT.steps)


def test_how_many(relu_classifier: Classifier) -> None:
    g = MASK(relu_classifier, fit=replace(SMALL_FIT, steps=10))
    assert [finalists_of(n, (g,)) for n in (9, 19, 20, 35, 1000)] == [0, 0, 2, 3, MOST_FINALISTS]
    assert finalists_of(1000, (CAM(relu_classifier),)) == 0
    assert ADV2(CAM(relu_classifier), steps=9).setting.keep is BEST
    assert ADV2([CAM(relu_classifier), g], steps=9).setting.keep is LATEST


@pytest.mark.parametrize("finalists", [0, 1, 2, 8])
@pytest.mark.parametrize("steps", [1, 2, 9, 100])
def test_final_looks_are_joint_and_late(finalists: int, steps: int) -> None:
    schedule = Schedule(steps, warm=steps // 5, first=0.1, peak=0.1, last=0.1)
    looks = Setting(Linf(), schedule, finalists=finalists).final_looks()
    assert len(set(looks)) == len(looks) <= finalists
    assert all(schedule.warm <= look <= steps for look in looks)
    if finalists:
        assert looks[0] == steps
        assert steps < 32 or (min(looks) >= steps - (steps - schedule.warm) // 4 and len(looks) == finalists)
