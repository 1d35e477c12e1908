"""Finding activations of several resolutions that stay the same in a prepared copy."""

import pytest
import torch
from torch import Tensor, nn

from support.toys import images, relu_net
from support.traces import scramble, untouched
from underfire.interpreters import ForwardPass
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap, find_features, find_trunk, head_bias, head_weight
from underfire.models.folded import prepared
from underfire.models.readout import Head


class _Residual(nn.Module):
    """Blocks whose last step is an addition and an in-place ReLU, between grids of 16, 8 and 4 cells a side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.first, self.second = _Block(6), _Block(6)
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(self.stem(x))).mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(1)
        self.conv = nn.Conv2d(width, width, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.conv(self.pad(x)))
        out: Tensor = self.relu(z + x[:, :, ::2, ::2])
        return out


def residual(seed: int = 0) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Residual()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return Classifier(net, mean=0.5, std=0.25, input_size=32, name="residual")


def trunk_of(classifier: Classifier, finest: tuple[int, int]) -> tuple[FeatureMap, ...]:
    last = find_features(classifier)
    return find_trunk(classifier, last, finest=finest)


def test_it_is_the_last_activation_on_each_grid_coarsest_first() -> None:
    found = trunk_of(residual(), (16, 16))
    assert [(tap.module, tap.grid) for tap in found] == [
        ("second", (4, 4)),
        ("first", (8, 8)),
        ("stem", (16, 16)),
    ]
    assert [tap.head for tap in found] == [Head("head.weight"), None, None]


def test_nothing_is_finer_than_asked() -> None:
    assert [tap.grid for tap in trunk_of(residual(), (8, 8))] == [(4, 4), (8, 8)]
    assert [tap.grid for tap in trunk_of(residual(), (2, 2))] == [(4, 4)]


@pytest.mark.parametrize("make", [residual, lambda: Classifier(relu_net(), input_size=32)], ids=["residual", "relu"])
def test_its_activations_are_the_same_in_a_prepared_copy(make: object) -> None:
    assert callable(make)
    classifier: Classifier = make()
    taps, twin, x = trunk_of(classifier, (16, 16)), prepared(classifier), images(3, 32)
    assert len(taps) > 1
    with classifier.frozen(), twin.frozen():
        here, there = (ForwardPass(c, x, taps=taps, attached=False) for c in (classifier, twin))
    for tap in taps:
        torch.testing.assert_close(there.activation(tap), here.activation(tap), rtol=1e-4, atol=1e-4)


def test_a_convolution_before_a_batch_norm_is_none_of_them() -> None:
    """Folded, its output is another one."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    for parameter in (norm := net[1]).parameters():
        nn.init.uniform_(parameter, 2, 3)
    assert isinstance(norm, nn.BatchNorm2d)
    assert [tap.module for tap in trunk_of(Classifier(net, input_size=32), (16, 16))] == ["3", "1"]


def test_it_leaves_no_trace() -> None:
    classifier = residual()
    scramble(classifier.module)
    with untouched(classifier.module):
        trunk_of(classifier, (16, 16))


def test_the_head_is_read_whole_with_or_without_a_bias(relu_classifier: Classifier) -> None:
    for classifier in (relu_classifier, residual()):
        last = find_features(classifier)
        x = images(2, 32)
        with classifier.frozen():
            view = ForwardPass(classifier, x, taps=(last,), attached=False)
        pooled = view.activation(last).mean(dim=(2, 3))
        logits = pooled @ head_weight(classifier, last).T + head_bias(classifier, last)
        torch.testing.assert_close(logits, view.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.real
def test_the_built_in_classifier_has_four_grids_up_to_a_quarter(efficientnet: Classifier) -> None:
    assert [tap.grid for tap in trunk_of(efficientnet, (56, 56))] == [(7, 7), (14, 14), (28, 28), (56, 56)]
