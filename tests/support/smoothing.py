"""A linear classifier whose probabilities under noise are known, and interpreters whose maps are."""

import math

import torch
from scipy import special
from torch import Tensor, nn

from underfire import Classifier, Interpreter
from underfire.interpreters.base import MapObjective, MapTarget

SIZE = 4
SIGMA = 0.05  # so small beside the distance of 0.5 to black and white that nothing is ever cut


class _Plane(nn.Module):
    """Logits ∓(w·x − b)/2: class 1 on one side of a plane, class 0 on the other."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.tensor(bias, dtype=weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        half = ((x * self.weight).sum(dim=(1, 2, 3)) - self.bias) / 2
        return torch.stack([-half, half], dim=1)


def plane_weight() -> Tensor:
    """(3, 4, 4), of length 1; the first pixel has none."""
    weight = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weight[:, 0, 0] = 0
    return weight / weight.square().sum().sqrt()


def plane(p_wrong: float, sigma: float = SIGMA) -> tuple[Classifier, Tensor, Tensor]:
    """A classifier, an image (1, 3, 4, 4) and its label (1,), which noise makes wrong with probability ``p_wrong``."""
    weight = plane_weight()
    x = torch.full((1, 3, SIZE, SIZE), 0.5, dtype=torch.float64)
    bias = float((x[0] * weight).sum()) + sigma * float(special.ndtri(p_wrong))
    return Classifier(_Plane(weight, bias), input_size=SIZE, name="plane"), x, torch.ones(1, dtype=torch.int64)


def moved(x: Tensor, radius: float) -> Tensor:
    """The point at that distance at which the label is most often wrong."""
    return x - radius * plane_weight()


def p_at(p: float, radius: float, sigma: float = SIGMA) -> float:
    """The exact chance of a wrong label there, where it is ``p`` at ``x``: Φ(Φ⁻¹(p) + radius/σ)."""
    return 0.5 * math.erfc(-(float(special.ndtri(p)) + radius / sigma) / math.sqrt(2))


class FixedMap(Interpreter):
    """The same map for every image and class: noise never changes it."""

    name = "fixed"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self.grid = (SIZE, SIZE)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        ramp = torch.linspace(0, 1, SIZE * SIZE, dtype=x.dtype).reshape(SIZE, SIZE)
        return ramp.expand(len(x), -1, -1)

    def objective(self, target: MapTarget) -> MapObjective:
        raise NotImplementedError


class SwitchedMap(FixedMap):
    """The same map or the reverse, by whether the first pixel, which the classifier does not read, is above one half.

    Under noise on an image of one half, each shows with a chance of ½, whatever the label.
    """

    name = "switched"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = super().compute(x, y, keys)
        return torch.where(x[:, :1, 0, :1] > 0.5, 1 - maps, maps)


class CoupledMap(FixedMap):
    """Another map beside another image than alone."""

    name = "coupled"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return super().compute(x, y, keys) * (0.5 + x.mean() / 2 if len(x) > 1 else 1.0)
