"""Attributions along a straight path, integrated until they are complete to a stated tolerance.

The attribution of value i is d[i] ∫₀¹ ∂f(x° + t·d)/∂x[i] dt with d = x* − x° (Sundararajan et al. 2017; equations 11
and 13 of Zhang et al. 2020). Its sum over i is f(x*) − f(x°), on every piece of the path as well as on the whole. So
the values of f at the ends of a piece tell, at no cost, how wrong the integral over that piece is, and pieces are
halved where they are most wrong. A network of ReLUs has sudden changes on its way, which rules with points at fixed
places meet by chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, require_finite
from underfire.models.classifier import Classifier

Field = Callable[[Tensor], tuple[Tensor, Tensor]]
"""k functions at the points (n, C, H, W): their values (n, k) in float64 and their gradients (n, k, C, H, W)."""

MOST_POINTS = 512
"""Points at which an integration gives up. Their gradients are kept: 0.6 MB each for 224² pixels and one function."""

_PIECES = 16  # before the first is halved
_TOGETHER = 4  # points of one pass: memory is that of a batch of four, however many points there are

_WORTH = 0.25  # of the largest error: a piece that is less wrong is not halved in the same pass


class IncompleteError(InputError):
    """An integration does not come within its tolerance: too few points for this path, or gradients that are wrong."""


@dataclass(frozen=True)
class PathAttribution:
    """Signed attributions of k functions between two images, never scaled; float64.

    Attributes:
        values: (k, C, H, W), in the unit of the function.
        change: (k,) f(end) − f(start).
        residual: (k,) |Σ values − change|, zero for the exact integral (completeness).
        coarse: (k,) what Σ |values| would be with every second point alone, to see how settled it is.
        points: at which the functions were asked.
    """

    values: Tensor
    change: Tensor
    residual: Tensor
    coarse: Tensor
    points: int

    @property
    def norm(self) -> Tensor:
        """(k,) Σ |values|."""
        return self.values.abs().flatten(1).sum(dim=1)


def field_of(classifier: Classifier, outputs: Callable[[Tensor], Tensor]) -> Field:
    """The functions ``outputs``, from logits (n, K) in float64 to (n, k), of an image; for `classifier.frozen()`."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        view = ForwardPass(classifier, points)
        with torch.enable_grad():
            values = outputs(view.logits.double())
        gradients = [view.gradient(values[:, j], last=j == values.shape[1] - 1) for j in range(values.shape[1])]
        return values.detach(), torch.stack(gradients, dim=1)

    return field


def integrate(
    field: Field, start: Tensor, end: Tensor, *, tolerance: float, most_points: int = MOST_POINTS
) -> PathAttribution:
    """The attributions of ``field`` along the straight path from ``start`` to ``end``, both (C, H, W).

    The trapezoidal rule on pieces, of which the most wrong are halved until for every function the residuals of all
    pieces, added up without their signs so that none makes up for another, are at most ``tolerance``; so is
    ``residual`` then. A piece whose ends and slopes agree by chance is taken to be right, and errors that cancel among
    the values of the image don't show.

    Raises:
        InputError: ``tolerance`` is not above zero, or ``most_points`` are too few to begin with.
        IncompleteError: ``most_points`` don't reach the tolerance.
        NonFiniteError: a value or gradient on the way is not finite.
    """
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance:g}; give a number above 0")
    if most_points <= _PIECES:
        raise InputError(f"most_points is {most_points}; give at least {_PIECES + 1}")
    path = _Path(field, start, end)
    path.visit([k / _PIECES for k in range(_PIECES + 1)])
    while not bool(((wrong := path.wrong()).sum(dim=0) <= tolerance).all()):
        room = most_points - len(path.nodes)
        if not room:
            left = float(wrong.sum(dim=0).max())
            raise IncompleteError(
                f"{most_points} points on the path leave a completeness residual of up to {left:.3g}, more than the "
                f"tolerance {tolerance:g}; give a larger tolerance, or where a larger one does not help, see whether "
                "the model's gradients are those of its output"
            )
        errors = wrong.amax(dim=1)
        order = errors.argsort(descending=True, stable=True)[: min(_TOGETHER, room)]
        worst = order[errors[order] >= _WORTH * errors.max()].tolist()
        path.visit([(path.nodes[i].place + path.nodes[i + 1].place) / 2 for i in worst])
    values = path.attribution(path.nodes)
    change = path.nodes[-1].values - path.nodes[0].values
    residual = (values.flatten(1).sum(dim=1) - change).abs()
    coarse = path.attribution([*path.nodes[:-1:2], path.nodes[-1]])
    return PathAttribution(values, change, residual, coarse.abs().flatten(1).sum(dim=1), len(path.nodes))


@dataclass(frozen=True)
class _Node:
    """A point of the path: its place in [0, 1]; (k,) values and slopes along the path; gradients (k, C, H, W)."""

    place: float
    values: Tensor
    slopes: Tensor
    gradients: Tensor


class _Path:
    def __init__(self, field: Field, start: Tensor, end: Tensor) -> None:
        self._field, self._start, self._end = field, start, end
        self._reach = end.double() - start.double()
        self.nodes: list[_Node] = []

    def visit(self, places: Sequence[float]) -> None:
        """Adds nodes."""
        for first in range(0, len(places), _TOGETHER):
            some = places[first : first + _TOGETHER]
            points = torch.stack([(1 - t) * self._start + t * self._end for t in some])
            values, gradients = self._field(points)
            require_finite(values, "the output on the path")
            require_finite(gradients, "the gradient on the path")
            slopes = (gradients.double() * self._reach).flatten(2).sum(dim=2)
            self.nodes += [_Node(*node) for node in zip(some, values, slopes, gradients, strict=True)]
        self.nodes.sort(key=lambda node: node.place)

    def wrong(self) -> Tensor:
        """How far the integral over each piece is from the change of the functions there, (pieces, k) ≥ 0."""
        values, slopes = (torch.stack(parts) for parts in zip(*((n.values, n.slopes) for n in self.nodes), strict=True))
        places = torch.tensor([node.place for node in self.nodes], dtype=torch.float64, device=values.device)
        return (values.diff(dim=0) - places.diff()[:, None] * (slopes[1:] + slopes[:-1]) / 2).abs()

    def attribution(self, nodes: Sequence[_Node]) -> Tensor:
        """The attribution (k, C, H, W) by the trapezoidal rule on ``nodes`` alone."""
        total = torch.zeros_like(nodes[0].gradients, dtype=torch.float64)
        places = [nodes[0].place, *(node.place for node in nodes), nodes[-1].place]
        for node, before, after in zip(nodes, places, places[2:], strict=False):
            total += (after - before) / 2 * node.gradients.double()
        return total * self._reach
