"""Small networks with fixed weights, for tests that need no trained classifier, and interpreters of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from underfire import (
    LIME,
    MASK,
    RISE,
    RTS,
    AttentionRelevance,
    Classifier,
    Interpreter,
    KernelSHAP,
    MaskFit,
    MaskingNetwork,
    Occlusion,
    Rollout,
    SmoothGrad,
)
from underfire.interpreters import ALL

CLASSES = 10

SMALL_FIT = MaskFit(steps=4, cell=2, mask_kernel=3, mask_sigma=0.7, jitter=1, sparsity=1e-6, smoothness=1e-4)
"""A fit that gives small pictures maps that are not empty: blurring does not take the class of a toy away."""


def small_mask(classifier: Classifier) -> MASK:
    """MASK with a fit for small pictures."""
    return MASK(classifier, fit=SMALL_FIT)


def untrained_rts(classifier: Classifier) -> RTS:
    """RTS with random weights, for a classifier that none were trained for."""
    return RTS(classifier, network=MaskingNetwork.untrained(classifier))


def faint_smoothgrad(classifier: Classifier) -> SmoothGrad:
    """SmoothGrad with noise so faint that a marked pixel stays one."""
    return SmoothGrad(classifier, sigma=0.01, samples=4)


def small_occlusion(classifier: Classifier, **options: Any) -> Occlusion:
    """Occlusion by few windows."""
    return Occlusion(classifier, segments=3, **options)


def small_rise(classifier: Classifier, **options: Any) -> RISE:
    """RISE with few masks."""
    return RISE(classifier, masks=24, segments=3, **options)


def small_kernel_shap(classifier: Classifier, **options: Any) -> KernelSHAP:
    """KernelSHAP with few coalitions."""
    return KernelSHAP(classifier, samples=24, segments=3, **options)


def small_lime(classifier: Classifier, **options: Any) -> LIME:
    """LIME with few masks."""
    return LIME(classifier, samples=24, segments=3, **options)


OF_TOKENS: tuple[type[Interpreter], ...] = (Rollout, AttentionRelevance)
"""The interpreters that a convolutional toy cannot have."""

MAKERS: Mapping[type[Interpreter], Callable[[Classifier], Interpreter]] = {
    **{cls: cls for cls in ALL if cls not in OF_TOKENS},
    Occlusion: small_occlusion,
    RISE: small_rise,
    KernelSHAP: small_kernel_shap,
    LIME: small_lime,
    MASK: small_mask,
    SmoothGrad: faint_smoothgrad,
    RTS: untrained_rts,
}
"""From a convolutional toy to each interpreter of the package that it can have."""

every = pytest.mark.parametrize("make", [pytest.param(make, id=cls.name) for cls, make in MAKERS.items()])
"""Each in turn, as ``make(classifier)``."""


class Normalised(nn.Module):
    """Preprocessing and network as one plain module, as users of other packages have it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x - 0.5) / 0.25)
        return logits


class SmoothNet(nn.Module):
    """Twice differentiable everywhere, for finite differences: 16×16 in, an 8×8 grid, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.Softplus(beta=4),
        )
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        return logits


class ReluNet(nn.Module):
    """Batch norm, ReLU and max pooling, as in real networks: 32×32 in, an 8×8 grid, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(self.pool(self.features(x)), 1))
        return logits


def smooth_net(seed: int = 0) -> SmoothNet:
    """A ``SmoothNet`` in float32; ``.double()`` it for finite differences."""
    with torch.random.fork_rng(devices=[]):
        net = SmoothNet()
    fill(net, seed)
    _spread_classes(net, net.head, size=16)
    return net


def relu_net(seed: int = 0) -> ReluNet:
    """A ``ReluNet`` whose batch norms have running statistics and scales of their own."""
    with torch.random.fork_rng(devices=[]):
        net = ReluNet()
    fill(net, seed)
    _spread_classes(net, net.head, size=32)
    return net


def quantised_net() -> nn.Sequential:
    """A ``ReluNet`` behind a rounding of its input: its gradient is zero everywhere."""
    return nn.Sequential(_Rounding(), relu_net())


class _Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 16).round() / 16


def images(n: int, size: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """``n`` smooth colourful pictures (n, 3, size, size) in [0.05, 0.95]; picture i is the same for any n."""
    pictures = []
    for index in range(n):
        draw = torch.Generator().manual_seed(1000 * seed + index)
        coarse = torch.rand(1, 3, 5, 5, generator=draw)
        fine = torch.rand(3, size, size, generator=draw)
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)[0]
        pictures.append(0.05 + 0.9 * (0.85 * smooth + 0.15 * fine))
    return torch.stack(pictures).to(dtype) if n else torch.empty(0, 3, size, size, dtype=dtype)


def fill(net: nn.Module, seed: int) -> None:
    """Draws all weights from one seeded generator, at a scale that keeps signals alive."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(2 / math.sqrt(fan_in) * torch.randn(module.weight.shape, generator=draw))
                if module.bias is not None:
                    module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=draw))
            elif isinstance(module, nn.BatchNorm2d):
                size = (module.num_features,)
                module.weight.copy_(0.5 + torch.rand(size, generator=draw))
                module.bias.copy_(0.3 * torch.randn(size, generator=draw))
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(0.3 * torch.randn(size, generator=draw))
                module.running_var.copy_(0.5 + torch.rand(size, generator=draw))


def _spread_classes(net: nn.Module, head: nn.Linear, size: int) -> None:
    """Set the head so that toy pictures fall into many classes and eight grey levels can move them."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net.eval()
    with torch.no_grad():
        net((images(64, size, seed=7) - 0.5) / 0.25)
        handle.remove()
        (pooled,) = seen
        head.weight.div_(pooled.std(dim=0) + 1e-3)
        head.bias.copy_(-head.weight @ pooled.mean(dim=0))
    net.train()
