"""PGD equals Foolbox's and torchattacks' to the bit, in float64."""

from collections.abc import Callable

import foolbox
import pytest
import torch
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from support.toys import images, relu_net, smooth_net
from underfire import PGD, AttackResult, Classifier

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.25, 0.3)
TOYS: dict[str, tuple[Callable[[], nn.Module], int]] = {"smooth": (smooth_net, 16), "relu": (relu_net, 32)}
SETTINGS = [(8 / 255, 20, 1 / 255), (0.1, 15, 0.013), (0.03, 10, 0.05)]

every_case = pytest.mark.parametrize(("eps", "steps", "step_size"), SETTINGS)
every_toy = pytest.mark.parametrize("toy", TOYS)


class _Model(nn.Module):
    """Preprocessing and network, written by hand for the other libraries."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.mean = torch.tensor(MEAN, dtype=torch.float64).reshape(1, 3, 1, 1)
        self.std = torch.tensor(STD, dtype=torch.float64).reshape(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


def _case(toy: str) -> tuple[Classifier, _Model, Tensor, Tensor]:
    """A classifier, the same model by hand, pictures that reach 0 and 1, and targets that are not predicted."""
    make, size = TOYS[toy]
    classifier = Classifier(make().double(), mean=MEAN, std=STD, input_size=size)
    x = ((images(6, size, dtype=torch.float64) - 0.5) * 1.2 + 0.5).clamp(0, 1)
    target = (classifier(x).argmax(dim=1) + 3) % classifier.num_classes
    return classifier, _Model(make().double()).eval(), x, target


def _ours(classifier: Classifier, x: Tensor, target: Tensor, eps: float, steps: int, step_size: float) -> AttackResult:
    return PGD(classifier, eps=eps, steps=steps, step_size=step_size, keep="last")(x, target)


@every_toy
@every_case
def test_foolbox(toy: str, eps: float, steps: int, step_size: float) -> None:
    classifier, model, x, target = _case(toy)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=steps, random_start=False)
    fmodel = PyTorchModel(model, bounds=(0, 1))
    theirs, _, success = attack(fmodel, x, foolbox.criteria.TargetedMisclassification(target), epsilons=eps)
    ours = _ours(classifier, x, target, eps, steps, step_size)
    assert float((theirs - x).abs().max()) > eps / 2
    assert torch.equal(ours.x_adv, theirs)
    assert torch.equal(ours.success, success)


@every_toy
@every_case
def test_torchattacks(toy: str, eps: float, steps: int, step_size: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    classifier, model, x, target = _case(toy)
    attack = torchattacks.PGD(model, eps=eps, alpha=step_size, steps=steps, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    theirs = attack(x, target)
    assert torch.equal(_ours(classifier, x, target, eps, steps, step_size).x_adv, theirs)


def test_another_step_size_would_show() -> None:
    classifier, model, x, target = _case("relu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=1 / 255, steps=20, random_start=False)
    fmodel = PyTorchModel(model, bounds=(0, 1))
    theirs, _, _ = attack(fmodel, x, foolbox.criteria.TargetedMisclassification(target), epsilons=8 / 255)
    assert not torch.equal(_ours(classifier, x, target, 8 / 255, 20, 1.001 / 255).x_adv, theirs)
