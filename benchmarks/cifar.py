"""``benchmarks.cifar:resnet20`` and ``resnet56``: the ResNets for CIFAR-10 of He et al. 2016 (section 4.2).

Shortcuts that shrink take every second pixel and pad channels with zeros on both sides (their option A). Parameters
are named as in akamaster/pytorch_resnet_cifar10, whose weights fit.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions beside a shortcut without parameters."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (outward - inward) // 2
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(inner + shortcut)


class CifarResNet(nn.Module):
    """Logits (N, 10) of images (N, 3, 32, 32); 6·``blocks`` + 2 layers."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def _stage(inward: int, width: int, blocks: int) -> nn.Sequential:
    further = (Block(width, width, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inward, width, stride=width // inward), *further)


def resnet20() -> nn.Module:
    """Three blocks a stage."""
    return CifarResNet(3)


def resnet56() -> nn.Module:
    """Nine blocks a stage."""
    return CifarResNet(9)
