"""Planted optima in closed form, for any interpreter and goal: networks that see colours and axes swapped.

Two equal halves give the logits of class 0 and class 1; the one sees red where the other sees blue. So the image with
red and blue swapped has the logits swapped, and the map for class 1 that the image has for class 0. And rows are seen
as columns are: the transposed image has the same logits and the transposed map. Both hold exactly, whatever the
interpreter, as long as it treats channels, or axes, alike. Where images differ by no more than the budget, they lie in
it.
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

SIZE = 32
LEVELS = 8
"""Grey levels by which red exceeds blue at most in a benign image: the budget."""

_LEAST = 3  # levels by which red exceeds blue outside the spot: the evidence must not grow too far
_WIDTH = 12  # channels of a half
_GREY = 128
_ALIVE = 0.01  # the largest bias: where red is as blue, an attack on the label must find a slope, not dead features
_ROUNDING = 1e-5  # of a map's measure, between a planted point and the same point found
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
        side = SIZE // 4
        places = _even(torch.randn(_WIDTH, side, side, generator=draw)).flatten(1).T
        first = torch.cat([torch.randn(1, _WIDTH, generator=draw), places])
        self.first = nn.Parameter(first[None].repeat(1, 1, 2) / 4)
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
    """A classifier of 32×32 images whose two logits change places where red and blue do; ``tokens``: by attention.

    Otherwise by convolutions and ReLU, with global average pooling and one linear layer at the end. In float64: float32
    rounds p_t to 1 where an attack leads by 16 nats, and the gradient of -log p_t loses the target's part.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        net = _TwinTokens(draw) if tokens else _Convolutions(draw)
    classifier = Classifier(net.double(), input_size=SIZE, name="swapped tokens" if tokens else "swapped")
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
    """A problem whose solution is a swapped image; measured for its validity.

    Where the label is to change it has red and blue swapped, where the map is to move or to be led, rows and columns;
    a map is led to the benign one with rows and columns swapped.

    Args:
        make: makes the interpreter under attack from :func:`swapped_classifier`.
        tokens: the classifier is one of attention.
        goal: what label and map shall become, such as one of ``GOALS``.
        images: how many.
        points: random points that are tried for each.
        seed: of the classifier's weights and of the random points that are tried.
    """
    classifier = swapped_classifier(tokens=tokens, seed=seed)
    x = _images(images)
    label = torch.zeros(images, dtype=torch.int64)
    keys = tuple(f"image {place}" for place in range(images))
    interpreter = make(classifier)
    colours = x if goal.goal.label == "kept" else x.flip(1)
    optimum = colours if goal.goal.map == "kept" else colours.mT.contiguous()
    seen = x.mT.contiguous() if goal.goal.map == "led" else x
    maps = interpreter(seen, label, keys=keys)
    model = Linf(LEVELS / 255)
    if goal.at_most is None:
        reached = goal.value(interpreter(optimum, label, keys=keys), maps)
        goal = replace(goal, at_most=float(reached.max()) + _ROUNDING)
    planted = PlantedOptimum(goal, interpreter, model, x, label, 1 - label, optimum, maps, keys)
    return replace(planted, validity=measure_validity(planted, seed=seed, count=points))


def _images(count: int) -> Tensor:
    """Grey images (count, 3, H, W) with a spot each where red exceeds blue, in whole grey levels."""
    draw = torch.Generator().manual_seed(3)
    step = torch.arange(SIZE, dtype=torch.float32)
    centre = SIZE * (torch.tensor([[0.19], [0.69]]) + torch.rand(count, 2, 1, generator=draw) / 8)
    down, right = (-((step - centre) / (SIZE / 4)).square()).exp().unbind(dim=1)
    excess = (_LEAST + (LEVELS - _LEAST) * down[:, :, None] * right[:, None, :]).round()
    blue = torch.full_like(excess, _GREY)
    return torch.stack([blue + excess, blue + (excess / 2).floor(), blue], dim=1).double() / 255


def _trunk(draw: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = [_twin_first(draw, kernel=5, padding=2), nn.ReLU()]
    for _ in range(2):
        conv = nn.Conv2d(2 * _WIDTH, 2 * _WIDTH, 3, stride=2, padding=1, groups=2)
        half = _even(torch.randn(_WIDTH, _WIDTH, 3, 3, generator=draw))
        conv.weight.data = _twice((half + half.abs()) / _WIDTH / 9)
        conv.bias = nn.Parameter(_twice(_ALIVE - 0.05 * torch.rand(_WIDTH, generator=draw)))
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers)


def _twin_first(draw: torch.Generator, *, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Reads by how much red exceeds blue, in units of the budget; the other half, by how much blue exceeds red."""
    conv = nn.Conv2d(3, 2 * _WIDTH, kernel, stride=stride, padding=padding)
    weight = torch.zeros(_WIDTH, 3, kernel, kernel)
    weight[:, 0] = _even(torch.rand(_WIDTH, kernel, kernel, generator=draw)) * 2 / kernel**2 * 255 / LEVELS
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


def _even(kernels: Tensor) -> Tensor:
    """Kernels (..., k, k) that see rows as they see columns."""
    return (kernels + kernels.mT) / 2


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])
