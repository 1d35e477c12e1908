"""Planted optima in closed form, for any interpreter: networks of two equal halves that see red and blue swapped.

The halves share their weights; the one gives the logit of class 0, the other that of class 1. So the image with red and
blue swapped has the logits swapped, and the map for class 1 that the image has for class 0, exactly, whatever the
interpreter, as long as it treats channels alike. Where red and blue differ by no more than the budget, the swapped
image lies in it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from underfire.attacks.perturbations import Linf
from underfire.interpreters.base import Interpreter
from underfire.interpreters.cam import CAM
from underfire.models.classifier import Classifier
from underfire.testing.planted import FRESH, TARGET_KEPT, PlantedGoal, PlantedOptimum, measure_validity

MakeInterpreter: TypeAlias = Callable[[Classifier], Interpreter]

SIZE = 16
LEVELS = 8
"""Grey levels by which red exceeds blue at most in a benign image: the budget."""

_LEAST = 5  # levels by which red exceeds blue outside the spot: the evidence must not grow too far
_WIDTH = 12  # channels of a half
_GREY = 128
_GAP = 3.5  # nats between the classes of a benign image, about


class _Convolutions(nn.Module):
    """Three convolutions and ReLUs, global average pooling and a linear head."""

    def __init__(self, draw: torch.Generator) -> None:
        super().__init__()
        self.trunk = _trunk(draw)
        self.head = _twin_head(draw)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of ``x``."""
        logits: Tensor = self.head(self.trunk(x).mean(dim=(2, 3)))
        return logits


class _TwinTokens(nn.Module):
    """Patches and a class token through two layers of attention, each half with a head of its own."""

    def __init__(self, draw: torch.Generator) -> None:
        super().__init__()
        self.patch = _twin_first(draw, kernel=4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1 + (SIZE // 4) ** 2, _WIDTH, generator=draw).repeat(1, 1, 2) / 4)
        self.joint = nn.ModuleList(_twin_linear(draw, times=3) for _ in range(2))
        self.out = nn.ModuleList(_twin_linear(draw) for _ in range(2))
        self.head = _twin_head(draw)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of ``x``."""
        z = self.patch(x).relu().flatten(2).transpose(1, 2)
        z = torch.cat([torch.zeros_like(z[:, :1]), z], dim=1) + self.first
        for joint, out in zip(self.joint, self.out, strict=True):
            query, key, value = joint(z).unflatten(2, (3, 2, _WIDTH)).permute(2, 0, 3, 1, 4)
            read = nn.functional.scaled_dot_product_attention(query, key, value)
            z = z + out(read.transpose(1, 2).flatten(2))
        logits: Tensor = self.head(z[:, 0])
        return logits


def swapped_classifier(*, tokens: bool = False, seed: int = 0) -> Classifier:
    """A classifier of 16×16 images whose two logits change places where red and blue do; ``tokens``: by attention.

    Otherwise by convolutions and ReLU, with global average pooling and one linear layer at the end.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        net = _TwinTokens(draw) if tokens else _Convolutions(draw)
    classifier = Classifier(net, input_size=SIZE, name="swapped tokens" if tokens else "swapped")
    z = classifier(_images(4))
    net.head.weight.data.mul_(_GAP / (z[:, 0] - z[:, 1]).mean())
    return classifier


def swapped_optimum(
    make: MakeInterpreter = CAM,
    *,
    tokens: bool = False,
    goal: PlantedGoal = TARGET_KEPT,
    images: int = 2,
    points: int = FRESH,
    seed: int = 0,
) -> PlantedOptimum:
    """A problem whose solution is the image with red and blue swapped; measured for its validity.

    Args:
        make: makes the interpreter under attack from :func:`swapped_classifier`.
        tokens: the classifier is one of attention.
        goal: the target class and something of a map that the swapped image has.
        images: how many.
        points: random points that are tried for each.
        seed: of the classifier's weights and of the random points that are tried.
    """
    classifier = swapped_classifier(tokens=tokens, seed=seed)
    x = _images(images)
    label = torch.zeros(images, dtype=torch.int64)
    keys = tuple(f"image {place}" for place in range(images))
    interpreter = make(classifier)
    maps = interpreter(x, label, keys=keys)
    model = Linf(LEVELS / 255)
    planted = PlantedOptimum(goal, interpreter, model, x, label, 1 - label, x.flip(1), maps, keys)
    return replace(planted, validity=measure_validity(planted, seed=seed, count=points))


def _images(count: int) -> Tensor:
    """Grey images (count, 3, H, W) with a spot each where red exceeds blue, in whole grey levels."""
    draw = torch.Generator().manual_seed(3)
    step = torch.arange(SIZE, dtype=torch.float32)
    centre = SIZE / 4 + SIZE / 2 * torch.rand(count, 2, 1, generator=draw)
    down, right = (-((step - centre) / (SIZE / 4)).square()).exp().unbind(dim=1)
    excess = (_LEAST + (LEVELS - _LEAST) * down[:, :, None] * right[:, None, :]).round()
    blue = torch.full_like(excess, _GREY)
    return torch.stack([blue + excess, blue + (excess / 2).floor(), blue], dim=1) / 255


def _trunk(draw: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = [_twin_first(draw, kernel=3, padding=1), nn.ReLU()]
    for _ in range(2):
        conv = nn.Conv2d(2 * _WIDTH, 2 * _WIDTH, 3, stride=2, padding=1, groups=2)
        half = torch.randn(_WIDTH, _WIDTH, 3, 3, generator=draw)
        conv.weight.data = _twice((half + half.abs()) / _WIDTH / 9)
        conv.bias = nn.Parameter(_twice(-0.05 * torch.rand(_WIDTH, generator=draw)))
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers)


def _twin_first(draw: torch.Generator, *, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Reads by how much red exceeds blue, in units of the budget; the other half, by how much blue exceeds red."""
    conv = nn.Conv2d(3, 2 * _WIDTH, kernel, stride=stride, padding=padding)
    weight = torch.zeros(_WIDTH, 3, kernel, kernel)
    weight[:, 0] = torch.rand(_WIDTH, kernel, kernel, generator=draw) * 2 / kernel**2 * 255 / LEVELS
    weight[:, 2] = -weight[:, 0]
    conv.weight.data = torch.cat([weight, weight.flip(1)])
    conv.bias = nn.Parameter(_twice(0.1 - torch.linspace(0, 2, _WIDTH)))
    return conv


def _twin_linear(draw: torch.Generator, *, times: int = 1) -> nn.Linear:
    layer = nn.Linear(2 * _WIDTH, 2 * _WIDTH * times, bias=False)
    parts = torch.randn(times, _WIDTH, _WIDTH, generator=draw) / _WIDTH**0.5
    parts[-1] = parts[-1].abs()  # what is read of a token counts for the half's class
    layer.weight.data = torch.cat([torch.block_diag(part, part) for part in parts])
    return layer


def _twin_head(draw: torch.Generator) -> nn.Linear:
    head = nn.Linear(2 * _WIDTH, 2, bias=False)
    row = 0.5 + torch.rand(1, _WIDTH, generator=draw)
    head.weight.data = torch.block_diag(row, row)
    return head


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])
