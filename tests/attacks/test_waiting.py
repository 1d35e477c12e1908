"""Between two looks of the loop nothing is asked of the device, for which a GPU would have to be waited for."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.layouts import TokenNet
from support.toys import OF_TOKENS, every, images, relu_net
from support.waits import Waits
from underfire import (
    CAM,
    GRAD,
    IG,
    L2,
    LRP,
    AttnLRP,
    Classifier,
    EigenCAM,
    Flow,
    GuidedBackprop,
    Interpreter,
    Linf,
    MinimumNorm,
    Universal,
)
from underfire.attacks.control import MINIMAX, UNMET, Balance, Schedule
from underfire.attacks.engine import Setting, _Loop, descend
from underfire.attacks.goals import Goal, Until
from underfire.attacks.labels import KeptLabel, LabelGoal, OtherLabel
from underfire.attacks.minimum_norm import _Descending
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.perturbations.norms import NormName
from underfire.attacks.rules import Momentum, Rule, Sign
from underfire.attacks.transforms import Cycle, CycledObjective, ImageTransform
from underfire.attacks.universal import _Fit
from underfire.defenses.signals.agreed import Agreed
from underfire.defenses.signals.views import _FreshView
from underfire.defenses.squeezing import SqueezingSignals
from underfire.defenses.views import Noise
from underfire.interpreters import MapTarget
from underfire.interpreters.map_goals import APART, APART_L2, CENTER, NEAR, TOPK, MapGoal
from underfire.models.folded import prepared

STILL = {
    EigenCAM: {"_linalg_eigh in eigencam.py, _first_component"},  # torch asks whether a decomposition came to its end
}
"""By interpreter what a step still waits for, apart from guided back-propagation that has to tell a ReLU by values."""

Make = Callable[[Classifier], Interpreter]


@pytest.fixture(scope="module")
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.4, 0.45), std=0.25, input_size=32)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """What an attack inside it waits for from its second step on, on a device that does not answer at once."""
    found, begun = Waits(), set[object]()

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(loop: object, *args: Any, **options: Any) -> Any:
            if loop in begun:
                with found.counting():
                    return function(loop, *args, **options)
            begun.add(loop)
            return function(loop, *args, **options)

        return step

    monkeypatch.setattr("underfire.attacks.engine.RHYTHM", {"cpu": 1000})
    for module in ("devices", "attacks.minimum_norm", "attacks.universal"):
        monkeypatch.setattr(f"underfire.{module}.SYNCHRONOUS", frozenset())
    for loop in (_Loop, _Descending, _Fit):
        monkeypatch.setattr(loop, "_step", watched(loop._step))
    left = _Loop._left
    monkeypatch.setattr(_Loop, "_left", lambda loop: watched(left)(loop))
    return found


def _setting(steps: int = 4, **options: Any) -> Setting:
    schedule = Schedule(steps, warm=0, first=1 / 255, peak=2 / 255, last=0.1 / 255)
    return Setting(**{"perturbation": Linf(8 / 255), "schedule": schedule, **options})


def _found(
    waits: Waits, classifier: Classifier, makes: list[Make], *, goal: MapGoal = NEAR, **options: Any
) -> list[str]:
    """What some joint steps from one image wait for, beside which the loop puts another, as where others left it."""
    x = images(1, classifier.input_size[0]).to(next(classifier.module.parameters()).dtype)
    target = (classifier(x).argmax(dim=1) + 1) % 5
    interpreters = [make(classifier) for make in makes]
    tasks = [MapTarget(target, goal.aimed(g(x, target).flip(1)), ("a",), 0, goal) for g in interpreters]
    with waits:
        objectives = [g.objective(task) for g, task in zip(interpreters, tasks, strict=True)]
        descend(prepared(classifier), x, target, objectives, _setting(map_goal=goal, **options))
    return waits.found


@every
def test_a_joint_step_waits_for_nothing(make: Make, toy: Classifier, waits: Waits) -> None:
    still = next((known for cls, known in STILL.items() if make is cls), set[str]())
    assert set(_found(waits, toy, [make])) == still


class _Product(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * (z > 0)


def test_a_relu_written_as_a_product_is_told_by_its_values(waits: Waits) -> None:
    net = relu_net()
    net.features[2] = _Product()
    toy = Classifier(net, mean=0.5, std=0.25, input_size=32)
    assert {found.split()[0] for found in _found(waits, toy, [GuidedBackprop])} == {"__bool__"}


@pytest.mark.parametrize("make", [*OF_TOKENS, AttnLRP], ids=lambda cls: cls.name)
def test_nor_does_one_on_tokens(make: Make, waits: Waits) -> None:
    assert _found(waits, Classifier(TokenNet().double(), input_size=16), [make]) == []


UNTIL = [Until(Goal.parse(goal), 0.5) for goal in ("target/kept", "kept/topk", "kept/center", "kept/l1")]


@pytest.mark.parametrize("make", [CAM, GRAD], ids=lambda cls: cls.name)
@pytest.mark.parametrize("goal", [TOPK, CENTER, APART, APART_L2, *UNTIL], ids=str)
def test_whatever_is_wanted_of_the_map(goal: MapGoal, make: Make, toy: Classifier, waits: Waits) -> None:
    assert _found(waits, toy, [make], goal=goal) == []


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("perturbation", [Linf(8 / 255), L2(3.0), Flow()], ids=lambda p: p.name)
def test_whatever_may_be_done_to_the_image(
    perturbation: Perturbation, rounds: bool, toy: Classifier, waits: Waits
) -> None:
    assert _found(waits, toy, [CAM, GRAD], perturbation=perturbation, rounds=rounds, finals=(2, 4)) == []


@pytest.mark.parametrize("rule", [Sign(), Momentum()], ids=str)
@pytest.mark.parametrize("weighting", [MINIMAX, UNMET], ids=lambda w: w.name)
def test_however_maps_share_and_steps_are_made(rule: Rule, weighting: Any, toy: Classifier, waits: Waits) -> None:
    assert _found(waits, toy, [CAM, IG], rule=rule, mix=Balance(weighting=weighting)) == []


@pytest.mark.parametrize("label", [OtherLabel(), KeptLabel(torch.tensor([0.1]))], ids=lambda g: type(g).__name__)
def test_whatever_is_wanted_of_the_prediction(label: LabelGoal, toy: Classifier, waits: Waits) -> None:
    assert _found(waits, toy, [], label=label) == []


@pytest.mark.parametrize("kind", ["noise", "region", "squeezed"])
def test_under_transforms(kind: str, toy: Classifier, waits: Waits) -> None:
    """It asks once whose images they are, and of which region, and no more in twice as many steps."""
    cam, x = CAM(toy), images(2, 32)
    target = toy(x).argmin(dim=1)
    wanted = cam(x, target)
    asked = []
    for steps in (4, 8):
        transforms: Mapping[str, Sequence[ImageTransform]] = {
            "noise": [_FreshView(Noise(8), seed=0)],
            "region": Agreed().transforms({"cam": wanted}, 0),
            "squeezed": SqueezingSignals(toy).transforms({}, 0)[:1],
        }
        cycle = Cycle(transforms[kind], ("a", "b"))
        tasks = [MapTarget(target, maps, ("a", "b"), 0) for maps in cycle.target_maps(wanted, (32, 32))]
        waits.found.clear()
        with waits:
            objective = CycledObjective(cycle, [cam.objective(task) for task in tasks])
            descend(prepared(toy), x, target, [objective], _setting(steps, transform=cycle))
        asked.append(sorted(waits.found))
    assert asked[0] == asked[1]
    assert "tolist in transforms.py, _keys_of" in asked[0]


def _grey(n: int) -> Tensor:
    return (images(n, 32) * 255).round() / 255


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_search_for_the_smallest_change_asks_whose_maps_are_due(
    norm: NormName, toy: Classifier, waits: Waits
) -> None:
    """Within its steps; between them it asks who is left. Where maps are due they are taken, for which it waits too."""
    x = _grey(2)
    target, search = (toy(x).argmax(dim=1) + 1) % 10, MinimumNorm(CAM(toy), norm=norm, passes=60)
    with waits:
        search(x, target, keys=("a", "b"))
    asked = Counter(waits.found)
    assert asked.pop("__bool__ in finite.py, ask") == asked.pop("__bool__ in minimum_norm.py, _confirmed") > 30
    checked = asked["tolist in minimum_norm.py, _check"]
    assert 0 < checked < 30
    assert all(count % checked == 0 for count in asked.values())


def test_the_fit_of_a_universal_perturbation_asks_once_an_epoch(toy: Classifier, waits: Waits) -> None:
    x, fit = _grey(4), Universal([CAM(toy), GRAD(toy)], passes=12, batch_size=2)
    with waits:
        fit.fit(x, 4, keys=tuple("abcd"))
    assert waits.found == []


def test_relevance_is_the_same_where_no_sign_is_asked_for(toy: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    x, target = images(3, 32), torch.tensor([1, 2, 3])
    cotangent = torch.linspace(-1, 1, 3 * 64).reshape(3, 8, 8)
    lrp = LRP(toy, box=False)
    found = []
    for answering in (frozenset({"cpu"}), frozenset[str]()):
        monkeypatch.setattr("underfire.devices.SYNCHRONOUS", answering)
        with toy.frozen():
            found.append((lrp.signed(x, target), lrp.pulled_back(x, target, tuple("abc"), cotangent)))
    (asked, its_gradient), (unasked, other_gradient) = found
    torch.testing.assert_close(unasked, asked, rtol=1e-4, atol=1e-5 * float(asked.abs().max()))
    assert float((other_gradient - its_gradient).norm() / its_gradient.norm()) < 0.02


class TestWaits:
    """What the tests above would see."""

    @pytest.mark.parametrize(
        ("what", "call"),
        [
            ("__bool__", lambda x: bool(x.any())),
            ("__float__", lambda x: float(x[0])),
            ("item", lambda x: x[0].item()),
            ("tolist", lambda x: x.tolist()),
            ("nonzero", lambda x: x.nonzero()),
            ("__getitem__", lambda x: x[x > 0]),
            ("__getitem__", lambda x: x[[0, 1]]),
            ("__setitem__", lambda x: x.clone().__setitem__(x > 0, 1.0)),
            ("equal", lambda x: torch.equal(x, x)),
            ("tensor", lambda x: torch.tensor([1.0], device=x.device)),
            ("to", lambda x: torch.rand(3).to(x)),
            ("to", lambda x: x.to("cpu")),
            ("_local_scalar_dense", lambda x: x[torch.zeros((), dtype=torch.int64, device=x.device)]),
            ("_linalg_eigh", lambda x: torch.linalg.eigh(torch.ones_like(x)[:, None] * x)),
        ],
    )
    def test_they_are_seen(self, what: str, call: Callable[[Tensor], object]) -> None:
        x = torch.linspace(0, 1, 3)
        with Waits() as waits, waits.counting():
            call(x)
        assert waits.found[0] == f"{what} in no part of the package"

    @pytest.mark.parametrize(
        "call",
        [
            lambda x: x.where(x > 0, 1.0),
            lambda x: x[torch.arange(2, device=x.device)],
            lambda x: float(torch.rand(())) * x,
            lambda x: torch.rand(3).to(x.device, non_blocking=True) * x,
            lambda x: torch.full((1,), 2.0, device=x.device) * x,
            lambda x: [torch.tensor([1, 2]).tolist(), torch.rand(3).to(torch.float64)[0].item()],
        ],
    )
    def test_and_nothing_else(self, call: Callable[[Tensor], object]) -> None:
        x = torch.linspace(0, 1, 3)
        with Waits() as waits, waits.counting():
            call(x)
        assert waits.found == []
