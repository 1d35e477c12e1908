"""The shape of each map: how spread out it is, and how far it lies from the others."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from underfire.defenses.signals.base import Signal, SignalInput


class Shapes(Signal):
    """Of each interpreter the entropy of its map, in nats, and the distance of its centroid from the mean centroid.

    The distance is a share of the picture's side; a single interpreter has none.
    """

    name: ClassVar[str] = "shapes"

    def names(self, interpreters: Sequence[str]) -> tuple[str, ...]:
        """Such as ``cam entropy`` and ``cam centroid``."""
        measures = ("entropy", "centroid") if len(interpreters) > 1 else ("entropy",)
        return tuple(f"{name} {measure}" for name in interpreters for measure in measures)

    def measure(self, given: SignalInput) -> Tensor:
        """Entropy and centroid of each map, (N, S)."""
        centroids = torch.stack([centroid(maps) for maps in given.maps.values()])
        apart = (centroids - centroids.mean(dim=0)).square().sum(dim=2).sqrt()
        columns = []
        for maps, distance in zip(given.maps.values(), apart, strict=True):
            columns.append(entropy(maps))
            if len(given.maps) > 1:
                columns.append(distance)
        return torch.stack(columns, dim=1)


def entropy(maps: Tensor) -> Tensor:
    """The entropy (N,) in nats, in [0, ln D], of each of ``maps`` (N, …) ≥ 0 as a distribution over its D cells.

    A map that is 0 everywhere points nowhere: its distribution is the uniform one.
    """
    return torch.stack([torch.special.entr(cells).sum() for cells in _distributions(maps).flatten(1)])


def centroid(maps: Tensor) -> Tensor:
    """The mean place (N, 2), row and column as shares of the sides, of each of ``maps`` (N, h, w) as a distribution."""
    parts = []
    for cells in _distributions(maps):
        down, across = (cells.sum(dim=1 - axis) for axis in (0, 1))
        parts.append(torch.stack([(line * _middles(len(line))).sum() for line in (down, across)]))
    return torch.stack(parts)


def _distributions(maps: Tensor) -> Tensor:
    """``maps`` (N, …), each divided by its sum; uniform where that is 0."""
    total = maps.flatten(1).sum(dim=1).reshape(-1, *[1] * (maps.ndim - 1))
    return torch.where(total > 0, maps / total.where(total > 0, 1.0), 1 / maps[0].numel())


def _middles(cells: int) -> Tensor:
    """The middle of each of ``cells`` cells, as a share of the side that they fill."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
