"""Networks for 28 × 28 pixels that take their photos, or give their answers, in other ways than most."""

import torch
from torch import Tensor, nn


def _net(channels: int, outputs: int) -> nn.Sequential:
    draw = torch.Generator().manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw))
    return net


def grey() -> nn.Module:
    """Two classes of grey pictures."""
    return _net(1, 2)


def four() -> nn.Module:
    """Of pictures with four channels."""
    return _net(4, 2)


def one_logit() -> nn.Module:
    """Two classes, told by one logit, in a dictionary."""
    return _InDictionary(_net(3, 1))


def labels() -> nn.Module:
    """Five labels that don't exclude each other."""
    return _net(3, 5)


class _InDictionary(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(x)}
