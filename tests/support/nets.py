"""Networks whose maps, gradients or adversarial inputs are known in closed form."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.models.classifier import Classifier

CELL = 4  # side in pixels of a cell of the stripes classifier


class _Linear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight) + self.bias


class _Squares(_Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.square())


class _Detail(nn.Module):
    """Class 1 where the 4×4 cells of weight ``where`` (8, 8) vary, class 0 where they don't."""

    def __init__(self, where: Tensor, scale: float, bias: float) -> None:
        super().__init__()
        self.scale, self.bias = (nn.Parameter(torch.tensor(float(value))) for value in (scale, bias))
        self.where: Tensor
        self.register_buffer("where", where / where.sum())

    def forward(self, x: Tensor) -> Tensor:
        grey = x.mean(dim=1)
        variance = F.avg_pool2d(grey.square(), CELL) - F.avg_pool2d(grey, CELL).square()
        logit = self.scale * (variance * self.where).sum(dim=(1, 2)) - self.bias
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


class _Poisoned(nn.Module):
    """``net`` with NaN for logits of images whose first value is above 0.9, or NaN for gradients where it is 1."""

    def __init__(self, net: nn.Module, *, gradient_only: bool) -> None:
        super().__init__()
        self.net = net
        self.gradient_only = gradient_only

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, :1, :1, :1]
        smooth = (1 - first).square().sqrt()  # whose derivative at 1 is ∞·0
        poison = 0 * smooth if self.gradient_only else torch.where(first > 0.9, math.nan, 0.0)
        logits: Tensor = self.net(x + poison)
        return logits


def pixel_weights(classes: int = 5, size: int = 16, *, seed: int = 0) -> Tensor:
    """Weights (K, 3, size, size) in float64, of logits that differ by a few nats."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(classes, 3, size, size, generator=draw, dtype=torch.float64) / size


def linear_classifier(*, scale: float = 1.0, mean: float = 0.5, std: float = 0.25) -> Classifier:
    """Logits (x − mean)/std · ``scale`` · pixel_weights(), in float64: the gradient of a logit is the same anywhere."""
    weight = pixel_weights() * scale
    return Classifier(_Linear(weight, torch.zeros(len(weight)).double()), mean=mean, std=std, input_size=16)


def squares_classifier(*, mean: float = 0.5, std: float = 0.25) -> Classifier:
    """Logits ((x − mean)/std)² · pixel_weights(), in float64: their gradient is linear in the image."""
    weight = pixel_weights()
    return Classifier(_Squares(weight, torch.zeros(len(weight)).double()), mean=mean, std=std, input_size=16)


def channels_classifier(weight: Tensor, *, size: int = 8) -> Classifier:
    """An identity convolution, global average pooling and the head ``weight`` (K, C): CAM is weight[c] · x."""
    classes, channels = weight.shape
    conv, head = nn.Conv2d(channels, channels, 1, bias=False), nn.Linear(channels, classes)
    conv.weight.data = torch.eye(channels)[:, :, None, None]
    head.weight.data = weight.clone()
    head.bias.data = torch.linspace(-1, 1, classes)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).to(weight.dtype)
    return Classifier(net, input_size=size)


def poisoned(net: nn.Module, *, size: int, gradient_only: bool = False) -> Classifier:
    """``net`` with NaN logits, or NaN gradients behind finite logits, for images that :func:`poison` marked."""
    return Classifier(_Poisoned(net, gradient_only=gradient_only), input_size=size)


def poison(x: Tensor, index: int) -> Tensor:
    """``x`` with the first value of image ``index`` where :func:`poisoned` networks fail, and nowhere near it else."""
    x = x.clone()
    x[:, 0, 0, 0] = 0.5
    x[index, 0, 0, 0] = 1.0
    return x


def stripes_classifier() -> Classifier:
    """A back door: class 1 reads how strong a faint checkerboard is in each 4×4 cell, class 0 how bright the image is.

    32×32 pictures that are constant in each cell have no checkerboard and are of class 0. Adding a·board to a cell,
    0 ≤ a ≤ 0.03, makes its activation for class 1 equal to a, whatever happens in other cells: so any map in
    [0, 1] is a CAM for class 1 within reach of ε = 0.03, and a mean of a above 0.006 carries the label by 6 nats.
    """
    conv, head = nn.Conv2d(3, 2, CELL, stride=CELL), nn.Linear(2, 2)
    conv.weight.data[0] = 1 / (3 * CELL**2)
    conv.weight.data[1] = board(CELL) / (3 * CELL**2)
    assert conv.bias is not None
    conv.bias.data.zero_()
    head.weight.data = torch.tensor([[2.0, 0.0], [0.0, 1500.0]])
    head.bias.data = torch.tensor([1.0, 0.0])
    return Classifier(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), input_size=32, name="stripes")


def detail_classifier(where: Tensor, *, scale: float, bias: float) -> Classifier:
    """Reads nothing but the detail of 32×32 images in the 4×4 cells of weight ``where`` (8, 8): blurring takes it away.

    The logit of class 1 over class 0 is ``scale`` times the weighted mean of the cells' variances, less ``bias``.
    """
    return Classifier(_Detail(where, scale, bias), input_size=32, name="detail")


def waves(n: int, *, amplitude: float, period: float) -> Tensor:
    """``n`` grey pictures (n, 3, 32, 32) of slanted waves, each of its own phase."""
    phase = 2 * math.pi * torch.arange(n)[:, None, None] / max(n, 1)
    step = torch.arange(32.0)
    slant = 2 * math.pi / period * (step[:, None] + step[None, :])
    return (0.5 + amplitude * torch.sin(slant + phase))[:, None].repeat(1, 3, 1, 1)


def board(size: int) -> Tensor:
    """A checkerboard (size, size) of ±1."""
    step = torch.arange(size)
    return 1.0 - 2.0 * ((step[:, None] + step[None, :]) % 2)


def cells(n: int, *, seed: int = 0) -> Tensor:
    """``n`` pictures (n, 3, 32, 32) in [0.1, 0.9], constant in each 4×4 cell."""
    draw = torch.Generator().manual_seed(seed)
    return spread(0.1 + 0.8 * torch.rand(n, 3, 8, 8, generator=draw))


def spread(grid: Tensor) -> Tensor:
    """``grid`` (…, 8, 8) with each value over a 4×4 cell of pixels, (…, 32, 32)."""
    return grid.repeat_interleave(CELL, dim=-1).repeat_interleave(CELL, dim=-2)
