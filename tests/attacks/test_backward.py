"""What a step costs: forward and backward passes through the trunk, counted at its input."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from support.toys import images, relu_net
from underfire import CAM, GRAD, Classifier, GradCAM, Interpreter, Linf
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.interpreters import MapTarget
from underfire.models.folded import prepared

N = 3
Make = Callable[[Classifier], Interpreter]


@dataclass
class _Passes:
    """Passes through the whole network: those that enter it, and gradients that come out where they entered."""

    forward: int = 0
    backward: int = 0


@contextmanager
def _counted(module: nn.Module) -> Iterator[_Passes]:
    passes = _Passes()

    def back(_: Tensor) -> None:
        passes.backward += 1

    def enter(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        passes.forward += 1
        if args[0].requires_grad:
            args[0].register_hook(back)

    handle = module.register_forward_pre_hook(enter)
    try:
        yield passes
    finally:
        handle.remove()


class _FlatHead(nn.Module):
    """A head of two layers that reads every cell, so that Grad-CAM's weights depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = relu_net().features
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 12), nn.Tanh(), nn.Linear(12, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(x))
        return logits


def _pooled() -> Classifier:
    return Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)


def _flat() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(_FlatHead(), mean=0.5, std=0.25, input_size=32)


def _attack(classifier: Classifier, makes: list[Make], *, steps: int, warm: int = 0) -> tuple[Outcome, _Passes]:
    """An attack of ``steps`` steps on maps that it won't reach."""
    x = images(N, 32)
    predicted = classifier(x).argmax(dim=1)
    target = (predicted + 1) % 10
    keys = tuple(f"image {i}" for i in range(N))
    objectives = [
        g.objective(MapTarget(target, g(x, predicted), keys, seed=0)) for g in (make(classifier) for make in makes)
    ]
    schedule = Schedule(steps, warm=warm, first=1 / 255, peak=1 / 255, last=1 / 255)
    twin = prepared(classifier)
    with _counted(twin.module) as passes:
        outcome = descend(twin, x, target, objectives, Setting(Linf(8 / 255), schedule))
    return outcome, passes


STEPS = 5


@pytest.mark.parametrize(
    ("make", "makes", "forward", "backward"),
    [
        pytest.param(_pooled, [], STEPS + 1, STEPS, id="none"),
        pytest.param(_pooled, [CAM], STEPS + 1, STEPS, id="cam"),
        pytest.param(_pooled, [GradCAM], STEPS + 1, STEPS, id="gradcam"),
        pytest.param(_pooled, [CAM, GradCAM], STEPS + 1, STEPS, id="cam+gradcam"),
        # its last look, too, asks for the gradient: the map is made of it
        pytest.param(_pooled, [GRAD], 2 * (STEPS + 1), 2 * (STEPS + 1), id="grad"),
        # the loss on CAM goes back by itself, the prediction's gradient is the one that GRAD reads
        pytest.param(_pooled, [CAM, GRAD], 2 * (STEPS + 1), 2 * (STEPS + 1) + STEPS, id="cam+grad"),
        # what the logits read is more than the activation's mean: map and prediction each go back to the pixels
        pytest.param(_flat, [GradCAM], STEPS + 1, 2 * STEPS + 1, id="gradcam on another head"),
    ],
)
def test_passes_through_the_trunk(
    make: Callable[[], Classifier], makes: list[Make], forward: int, backward: int
) -> None:
    outcome, passes = _attack(make(), makes, steps=STEPS)
    assert (passes.forward, passes.backward) == (forward, backward)
    alone = len(makes) == 1  # beside others, what goes back to the pixels once more is not counted
    counted = 2 * (STEPS + 1) if alone and backward > forward else forward
    assert outcome.passes.tolist() == [counted] * N


@pytest.mark.parametrize(("makes", "forward", "backward"), [([CAM], 1, 1), ([GRAD], 2, 2), ([CAM, GRAD], 2, 3)])
def test_a_joint_step_more(makes: list[Make], forward: int, backward: int) -> None:
    fewer, more = (_attack(_pooled(), makes, steps=steps)[1] for steps in (STEPS, STEPS + 1))
    assert (more.forward - fewer.forward, more.backward - fewer.backward) == (forward, backward)


@pytest.mark.parametrize("makes", [[CAM], [GRAD], [CAM, GRAD]])
def test_a_warm_step_more_is_a_step_of_pgd(makes: list[Make]) -> None:
    fewer, more = (_attack(_pooled(), makes, steps=3 + warm, warm=warm)[1] for warm in (2, 3))
    assert (more.forward - fewer.forward, more.backward - fewer.backward) == (1, 1)
