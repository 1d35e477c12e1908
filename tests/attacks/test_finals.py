"""The last choice: fresh maps decide image by image, and what was chosen is what is saved."""

import pytest
import torch
from torch import Tensor

from support.toys import CLASSES, SMALL_FIT, images, small_mask
from underfire import ADV2, CAM, GRAD, IG, L2, MASK, Classifier, Flow, Interpreter, Linf
from underfire.attacks.budget import descent_of, final_looks, first_steps, stage_ends
from underfire.attacks.engine import Iterate, Outcome
from underfire.attacks.finals import decide
from underfire.attacks.keepers import LATEST, KeepBest
from underfire.attacks.labels import Confidence
from underfire.attacks.nested import MARGIN
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


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of a few steps."""
    monkeypatch.setattr("underfire.attacks.budget.STAGES", (12, 25, 40, 70))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("passes", [6, 11, 12, 31, 32, 47, 48, 99])
def test_finalists_are_paid_from_the_budget(passes: int, relu_classifier: Classifier) -> None:
    g, x = small_mask(relu_classifier), images(2, 32)
    attack = ADV2(g, passes=passes)
    steps, finals = attack.setting.schedule.steps, attack.setting.finals
    assert finals[-1] == steps
    target = (relu_classifier(x).argmax(dim=1) + 1) % CLASSES

    def cost(looks: tuple[int, ...]) -> int:
        return descent_of(looks[-1], (g,), warm=first_steps) + (len(looks) > 1) * len(looks) * SMALL_FIT.steps

    assert attack(x, target).passes.tolist() == [cost(finals)] * 2
    assert attack.most_passes() == cost(finals) <= passes
    every = final_looks(100, (g,))
    if passes >= cost(every[:1]):
        assert finals == every[: len(finals)]
        assert passes < cost(every[: len(finals) + 1])  # what is left would not pay for another
    else:
        assert passes < cost((steps + 1,))


def test_who_needs_finalists(relu_classifier: Classifier) -> None:
    cam, g = CAM(relu_classifier), small_mask(relu_classifier)
    assert final_looks(1000, (cam, GRAD(relu_classifier))) == ()
    assert ADV2(cam, steps=9).setting.keep == KeepBest(MARGIN)
    assert ADV2([cam, g], steps=9).setting.keep is LATEST


@pytest.mark.parametrize(
    ("make", "passes"),
    [
        (CAM, (100, 150, 300, 600, 1000, 1500, 3000, 6000)),
        (GRAD, (100, 150, 300, 600, 1000, 1500, 3000, 6000)),
        (IG, (100, 300, 600, 1000, 1500, 3000, 6000)),
        (MASK, (300, 1000, 1500, 3000, 6000)),
    ],
)
def test_stages_end_where_so_many_passes_are_spent(
    make: type[Interpreter], passes: tuple[int, ...], relu_classifier: Classifier
) -> None:
    g = make(relu_classifier)
    ends = stage_ends(1400, (g,))
    assert len(ends) >= 4
    for k, (end, most) in enumerate(zip(ends, passes, strict=False)):
        spent = descent_of(end, (g,), warm=first_steps)
        if k and final_looks(end, (g,)):
            spent += (k + 1) * g.passes_per_map
        assert spent <= most < spent + g.passes_per_step
        assert ADV2(g, passes=most).setting.schedule.steps == end
    assert stage_ends(ends[0] - 1, (g,)) == (ends[0] - 1,)
