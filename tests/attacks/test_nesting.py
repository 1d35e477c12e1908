"""A longer run goes on where a shorter one of the same seed ends, and never ends worse, on the image that is saved."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from support.toys import CLASSES, every, images, relu_net, small_mask
from underfire import ADV2, CAM, GRAD, IG, PGD, AttackResult, Classifier, Interpreter, MapAttack
from underfire.attacks.budget import FIRST, descent_of, final_looks, first_steps, stage_ends
from underfire.attacks.goals import MAP_GOALS
from underfire.attacks.joint import Descent
from underfire.attacks.map_attack import Moved
from underfire.attacks.transforms import TransformedBatch, identity
from underfire.images.png import from_8bit
from underfire.interpreters.maps import distance

N = 3
KEYS = ("a", "b", "c")
EXACT = 1e-9  # in float64


@pytest.fixture(scope="module")
def toy() -> Classifier:
    """The toy of ReLUs in float64, where the copy that the loop works on differs by nothing to speak of."""
    return Classifier(relu_net().double(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of a few steps."""
    monkeypatch.setattr("underfire.attacks.budget.STAGES", (16, 25, 40, 70))


@dataclass(frozen=True)
class Run:
    """An attack's result, and the iterates that the classifier saw, by step."""

    result: AttackResult
    seen: list[Tensor]

    @classmethod
    def of(cls, attack: Descent, x: Tensor, target: Tensor) -> "Run":
        seen: list[Tensor] = []

        def record(images: Tensor, rows: Tensor, step: int) -> TransformedBatch:
            whole = torch.full((N, *images.shape[1:]), torch.nan, dtype=images.dtype)  # images that are done have left
            whole[rows] = images
            seen.append(whole)
            return identity(images, rows, step)

        attack.setting = replace(attack.setting, transform=record)
        return cls(attack(x, target, keys=KEYS), seen)

    def standing(self, g: Interpreter | None) -> list[tuple[float, float]]:
        """For each image whether its label does not hold, 0 or 1, and what counts then, the lower the better."""
        result = self.result
        holds = result.success & (result.confidence >= 0.9)
        if g is None:
            return [(float(not ok), -float(p)) for ok, p in zip(result.success, result.confidence, strict=True)]
        away = distance(result.maps[g.name], result.target_maps[g.name])
        measure = torch.where(holds, away, -result.confidence)
        return [(float(not ok), float(m)) for ok, m in zip(holds, measure, strict=True)]


def _case(classifier: Classifier) -> tuple[Tensor, Tensor]:
    x = from_8bit((images(N, 32) * 255).round().byte(), torch.float64)
    return x, (classifier(x).argmax(dim=1) + 1) % CLASSES


def _hold_nested(
    make: Callable[[int], Descent], g: Interpreter | None, classifier: Classifier, budgets: tuple[int, ...]
) -> list[Run]:
    x, target = _case(classifier)
    runs = [Run.of(make(budget), x, target) for budget in budgets]
    for shorter, longer in pairwise(runs):
        for before, after in zip(shorter.seen, longer.seen, strict=False):
            assert torch.equal(before.nan_to_num(), after.nan_to_num())
        for was, now in zip(shorter.standing(g), longer.standing(g), strict=True):
            assert now[0] < was[0] or (now[0] == was[0] and now[1] <= was[1] + EXACT)
    return runs


def _least(g: Interpreter, first: int = FIRST) -> int:
    """Passes of the first stage, from which on runs nest."""
    return descent_of(stage_ends(1000, (g,), first)[0], (g,), warm=lambda n: first_steps(n, first))


@every
def test_more_passes_never_hurt(make: Callable[[Classifier], Interpreter], toy: Classifier) -> None:
    g = make(toy)
    least = _least(g)
    budgets = (least, least + 30, least + 130)
    runs = _hold_nested(lambda passes: ADV2(g, passes=passes, seed=3), g, toy, budgets)
    x = runs[0].result.x
    for run, budget in zip(runs, budgets, strict=True):
        saved = run.result.perturbation.rounded(x, run.result.x_adv)
        assert torch.equal(run.result.x_adv, from_8bit(saved, torch.float64))
        assert int(run.result.passes.max()) <= budget


@pytest.mark.parametrize(("make", "goal"), [(CAM, "topk"), (IG, "topk"), (CAM, "center"), (GRAD, "l1")])
def test_nor_where_maps_are_moved(make: type[Interpreter], goal: Moved, toy: Classifier) -> None:
    g, (x, _) = IG(toy, points=4, strata=3) if make is IG else make(toy), _case(toy)
    label = toy(x).argmax(dim=1)
    least = _least(g, first=0)
    runs = [Run.of(MapAttack(g, goal=goal, passes=least + more), x, label) for more in (0, 30, 75)]
    away = [MAP_GOALS[goal].distance(r.result.maps[g.name], 1 - r.result.target_maps[g.name]) for r in runs]
    for (shorter, before), (longer, after) in pairwise(zip(runs, away, strict=True)):
        assert all(torch.equal(a, b) for a, b in zip(shorter.seen, longer.seen, strict=False))
        assert shorter.result.success.all()
        assert longer.result.success.all()
        assert bool((after <= before + EXACT).all())
    assert float(away[-1].mean()) < float(away[0].mean())


def test_nor_for_the_prediction_alone(toy: Classifier) -> None:
    _hold_nested(lambda steps: PGD(toy, steps=steps), None, toy, (1, 2, 5, 11, 30))


@pytest.mark.parametrize("make", [CAM, GRAD, IG, small_mask], ids=["cam", "grad", "ig", "mask"])
def test_every_number_of_steps_is_a_prefix_of_the_next(
    make: Callable[[Classifier], Interpreter], toy: Classifier
) -> None:
    g = IG(toy, points=4, strata=3) if make is IG else make(toy)
    least = stage_ends(1000, (g,))[0]
    _hold_nested(lambda steps: ADV2(g, steps=steps), g, toy, tuple(range(least, least + 12)))


@pytest.mark.parametrize("make", [IG, small_mask], ids=["ig", "mask"])
def test_finalists_are_those_of_every_longer_run(make: Callable[[Classifier], Interpreter], toy: Classifier) -> None:
    g = make(toy)
    longest = final_looks(400, (g,))
    assert len(longest) > 3
    for steps in range(longest[0], 400):
        assert final_looks(steps, (g,)) == tuple(look for look in longest if look <= steps)
    assert final_looks(longest[0] - 1, (g,)) == (longest[0] - 1,)


@pytest.mark.parametrize("make", [CAM, IG])
def test_nor_towards_any_other_class(make: type[Interpreter], toy: Classifier) -> None:
    g, (x, _) = IG(toy, points=4, strata=3) if make is IG else make(toy), _case(toy)
    least = _least(g)
    results = [ADV2(g, passes=least + more)(x, None, keys=KEYS) for more in (0, 30, 75)]
    away = [distance(r.maps[g.name], r.target_maps[g.name]) for r in results]
    for (shorter, before), (longer, after) in pairwise(zip(results, away, strict=True)):
        assert torch.equal(shorter.target, longer.target)
        assert bool((longer.success >= shorter.success).all())
        held = shorter.success & (shorter.confidence >= 0.9)
        assert bool((after <= before + EXACT)[held].all())
    assert float(away[-1].mean()) < float(away[0].mean())
