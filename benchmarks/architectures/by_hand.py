"""Maps of one image written down once more, by autograd and hooks alone: of underfire it takes but the classifier."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import combinations
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures.zoo import Architecture, Channels
from underfire import Classifier

POINTS = 4
"""Of the path of integrated gradients: the midpoints of as many parts."""

SEGMENTS = 2
"""On each side of the grid of which parts are hidden."""

_ROUNDING = 1e-5

ByHand = Callable[[Classifier, Architecture, Tensor, int], Tensor | None]
"""The map (h, w) of an image (1, C, H, W) for a class; None where it is not defined, or not written down here.

Raises:
    NoMapError: it is a constant.
"""


class NoMapError(Exception):
    """The cells of a map differ by no more than rounding."""


def _scaled(raw: Tensor, size: float = 0.0) -> Tensor:
    """``raw`` (h, w) from 0 to 1; ``size``, that of the numbers added and subtracted, says how much may be rounding."""
    spread = raw.max() - raw.min()
    if spread <= _ROUNDING * size:
        raise NoMapError
    return (raw - raw.min()) / spread


def _picture(attribution: Tensor) -> Tensor:
    """Of attributions (1, C, H, W): the largest magnitude of a channel, the mean over 4×4 pixels."""
    return _scaled(F.avg_pool2d(attribution.abs().amax(dim=1), 4)[0])


def _gradient(classifier: Classifier, x: Tensor, output: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(output(_logits(classifier, leaf)), leaf)[0]


def _logits(classifier: Classifier, x: Tensor) -> Tensor:
    preprocessing = classifier.preprocessing
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    logits: Tensor = classifier.module((x - mean) / std)
    return logits[0]


def grad(classifier: Classifier, _: Architecture, x: Tensor, label: int) -> Tensor:
    return _picture(_gradient(classifier, x, lambda z: z.log_softmax(dim=0)[label]))


def input_x_gradient(classifier: Classifier, _: Architecture, x: Tensor, label: int) -> Tensor:
    return _picture(x * _gradient(classifier, x, lambda z: z.log_softmax(dim=0)[label]))


def integrated_gradients(classifier: Classifier, _: Architecture, x: Tensor, label: int) -> Tensor:
    steps = [(i + 0.5) / POINTS for i in range(POINTS)]
    return _picture(x * sum(_gradient(classifier, a * x, lambda z: z.softmax(dim=0)[label]) for a in steps))


def guided_backprop(classifier: Classifier, _: Architecture, x: Tensor, label: int) -> Tensor:
    with _guided():
        return _picture(_gradient(classifier, x, lambda z: z[label]))


def occlusion(classifier: Classifier, _: Architecture, x: Tensor, label: int) -> Tensor:
    whole = frozenset(range(SEGMENTS**2))
    shown = {cell: _shown(classifier, x, whole - {cell}, label) for cell in whole}
    raw = torch.tensor([-shown[cell] for cell in sorted(whole)]).reshape(SEGMENTS, SEGMENTS)
    return _scaled(raw, max(shown.values()))


def shapley(classifier: Classifier, _: Architecture, x: Tensor, label: int) -> Tensor:
    """The Shapley values themselves, to which KernelSHAP comes with all coalitions."""
    players = range(SEGMENTS**2)
    coalitions = [frozenset(c) for size in range(len(players) + 1) for c in combinations(players, size)]
    worth = {coalition: _shown(classifier, x, coalition, label) for coalition in coalitions}
    values = [
        sum(
            (worth[c | {player}] - worth[c]) / (len(players) * math.comb(len(players) - 1, len(c)))
            for c in coalitions
            if player not in c
        )
        for player in players
    ]
    return _scaled(torch.tensor(values).reshape(SEGMENTS, SEGMENTS), max(worth.values()))


def _shown(classifier: Classifier, x: Tensor, cells: frozenset[int], label: int) -> float:
    """The probability of a class where only these cells of the image are shown, the others black."""
    mask = torch.zeros(1, 1, SEGMENTS, SEGMENTS)
    mask.view(-1)[sorted(cells)] = 1
    with torch.no_grad():
        seen = x * F.interpolate(mask, size=x.shape[2:], mode="nearest")
        return float(_logits(classifier, seen).softmax(dim=0)[label])


def grad_cam(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> Tensor:
    activation, slope = _tapped(classifier, architecture, x, label)
    return _scaled((slope.mean(dim=(1, 2), keepdim=True) * activation).sum(dim=0))


def grad_cam_plus_plus(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> Tensor:
    activation, slope = _tapped(classifier, architecture, x, label)
    total = activation.sum(dim=(1, 2), keepdim=True)
    alpha = slope**2 / (2 * slope**2 + slope**3 * total + 1e-6)  # as in pytorch-grad-cam
    return _scaled(((alpha * slope.relu()).sum(dim=(1, 2), keepdim=True) * activation).sum(dim=0))


def hires_cam(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> Tensor:
    activation, slope = _tapped(classifier, architecture, x, label)
    terms = slope * activation
    return _scaled(terms.sum(dim=0), float(terms.abs().sum(dim=0).max()))


def layer_cam(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> Tensor:
    activation, slope = _tapped(classifier, architecture, x, label)
    return _scaled((slope.relu() * activation).sum(dim=0))


def eigen_cam(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> Tensor:
    activation, _ = _tapped(classifier, architecture, x, label)
    cells = activation.flatten(1).T
    left, _, _ = torch.linalg.svd(cells - cells.mean(dim=0), full_matrices=False)
    component, energy = left[:, 0], cells.square().sum(dim=1)
    sign = torch.sign((component * (energy - energy.mean())).sum())
    return _scaled((sign * component).reshape(activation.shape[1:]))


def cam(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> Tensor | None:
    if architecture.head is None:
        return None
    activation, _ = _tapped(classifier, architecture, x, label)
    if architecture.head == "identity":
        return _scaled(activation[label])
    weight = classifier.module.get_submodule(architecture.head).weight
    assert isinstance(weight, Tensor)
    return _scaled((weight[label].reshape(-1, 1, 1) * activation).sum(dim=0)).detach()


def _tapped(classifier: Classifier, architecture: Architecture, x: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """The activation (C, h, w) that the architecture names, and the gradient of the class's logit in it."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        assert isinstance(first, Tensor)
        seen.append(first)

    handle = classifier.module.get_submodule(architecture.tap).register_forward_hook(keep)
    try:
        logit = _logits(classifier, x.clone().requires_grad_())[label]
        (slope,) = torch.autograd.grad(logit, seen[-1])
    finally:
        handle.remove()
    grid = classifier.input_size
    activation, slope = (_laid_out(t[0], architecture.channels, grid) for t in (seen[-1].detach(), slope))
    return activation, slope


def _laid_out(values: Tensor, channels: Channels, size: tuple[int, int]) -> Tensor:
    if channels == "first":
        return values
    if channels == "last":
        return values.permute(2, 0, 1)
    cells = values[channels:]
    side = round(len(cells) ** 0.5)
    assert side * side == len(cells)
    assert size[0] == size[1]
    return cells.T.reshape(-1, side, side)


class _Guided(torch.autograd.Function):
    """max(low, min(x, high)) that lets nothing but positive values back."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, high: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < high))
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *slope: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return slope[0].clamp(min=0) * inside, None


@contextmanager
def _guided() -> Iterator[None]:
    """Inside, what cuts off below 0 is guided: ReLU and ReLU6 as layers and functions, clamps of converted graphs."""

    def relu(x: Tensor, *_: object, **__: object) -> Tensor:
        return _guide(x, torch.inf)

    def relu6(x: Tensor, *_: object, **__: object) -> Tensor:
        return _guide(x, 6.0)

    def clip(x: Tensor, low: float = 0.0, high: float = torch.inf, *_: object, **named: float) -> Tensor:
        low, high = named.get("min", low), named.get("max", high)
        return _guide(x, high) if low == 0 else x.clamp(low, high)

    with ExitStack() as stack:
        for holder, name, function in (
            (F, "relu", relu),
            (torch, "relu", relu),
            (F, "relu6", relu6),
            (F, "hardtanh", clip),
            (torch, "clip", clip),
            (torch, "clamp", clip),
        ):
            stack.enter_context(mock.patch.object(holder, name, function))
        yield


def _guide(x: Tensor, high: float) -> Tensor:
    guided: Tensor = _Guided.apply(x, high)  # type: ignore[no-untyped-call]
    return guided


BY_HAND: Mapping[str, ByHand] = {
    "grad": grad,
    "inputxgradient": input_x_gradient,
    "ig": integrated_gradients,
    "guidedbackprop": guided_backprop,
    "occlusion": occlusion,
    "kernelshap": shapley,
    "cam": cam,
    "gradcam": grad_cam,
    "gradcamplusplus": grad_cam_plus_plus,
    "hirescam": hires_cam,
    "layercam": layer_cam,
    "eigencam": eigen_cam,
}
