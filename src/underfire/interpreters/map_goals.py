"""What an attack wants of a map: that it comes near a given one, or moves away from the benign one."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from underfire import metrics
from underfire.devices import filled
from underfire.interpreters.maps import RawLoss, distance

ENOUGH = 0.5 / 255
"""So small a distance from a given map is done: drawn in 256 levels, the two differ by half a level in the mean."""

TOP = 0.2
"""The share of a map's cells that count as its top."""


class MapGoal(Protocol):
    """A goal on maps: what is descended, and the measure by which iterates are told from each other.

    Attributes:
        name: as in a goal LABEL/MAP.
        enough: at so small a :meth:`distance` an image needs no further step.
    """

    name: ClassVar[str]

    @property
    def enough(self) -> float:
        """See above."""
        ...

    def aimed(self, reference: Tensor) -> Tensor:
        """The maps (N, h, w) to lead an interpreter to, where ``reference`` are those the goal is measured against."""
        ...

    def loss(self, own: RawLoss) -> RawLoss:
        """The loss of unscaled maps, given before those of :meth:`aimed`; ``own`` is the interpreter's of a led map."""
        ...

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """How far (N,) the ``maps`` in [0, 1] are from the goal, in [0, 1]; ``aimed`` as :meth:`aimed` gives them."""
        ...


@dataclass(frozen=True)
class Near:
    """The map comes near a given one: the benign one, which is kept, or another, to which it is led."""

    name: ClassVar[str] = "near"
    enough: ClassVar[float] = ENOUGH

    def aimed(self, reference: Tensor) -> Tensor:
        """The given maps themselves."""
        return reference

    def loss(self, own: RawLoss) -> RawLoss:
        """The interpreter's own."""
        return own

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """The L1 measure."""
        return distance(maps, aimed)


class _Away:
    """A map is moved away from the benign one; where it can only be led, it is led to one less the benign map.

    A constant map has moved nowhere: its distance is 1, the largest there is.
    """

    enough: ClassVar[float] = -1.0  # there is always further to go

    def aimed(self, reference: Tensor) -> Tensor:
        """One less the benign maps."""
        return 1 - reference


@dataclass(frozen=True)
class TopK(_Away):
    """The top cells of the benign map are no longer among the top cells (Ghorbani et al. 2019, top-k attack).

    What is descended is the share of the map, counted from its minimum, that lies in the benign map's top cells.
    """

    name: ClassVar[str] = "topk"

    def loss(self, own: RawLoss) -> RawLoss:  # noqa: ARG002
        """The share (N,) in [0, 1] of the map that lies in the top cells of the benign one."""
        return _share_in_top

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """The IoU of the top cells of both, and a thousandth of the loss, which decides between equals."""
        overlap = metrics.iou_top(maps, 1 - aimed, share=TOP).to(maps.dtype)
        found = (overlap + 1e-3 * _share_in_top(maps, aimed)).clamp(max=1.0)
        return found.where(~metrics.is_constant(maps), 1.0)


@dataclass(frozen=True)
class Center(_Away):
    """The map's centre of mass moves as far as it can (Ghorbani et al. 2019, mass-centre attack)."""

    name: ClassVar[str] = "center"

    def loss(self, own: RawLoss) -> RawLoss:  # noqa: ARG002
        """The shift (N,), negative; measured from a point beside the benign centre, for at that it has no slope."""
        return _center_loss

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """One less the shift, in diagonals of the map."""
        return 1 - metrics.center_shift(maps, 1 - aimed)


@dataclass(frozen=True)
class Apart(_Away):
    """The map's L1 distance from the benign one becomes as large as it can: it is led to one less the benign map."""

    name: ClassVar[str] = "l1"

    def loss(self, own: RawLoss) -> RawLoss:
        """The interpreter's own."""
        return own

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """One less the L1 measure."""
        return (1 - distance(maps, 1 - aimed)).where(~metrics.is_constant(maps), 1.0)


@dataclass(frozen=True)
class ApartL2(_Away):
    """The map's L2 distance from the benign one becomes as large as it can: what sensitivity is measured by.

    It is led to the map in [0, 1] that is furthest: 1 where the benign one is below one half, 0 elsewhere.
    """

    name: ClassVar[str] = "l2"

    def loss(self, own: RawLoss) -> RawLoss:
        """The interpreter's own, of that furthest map."""
        return lambda raw, aimed: own(raw, (aimed > 0.5).to(aimed.dtype))

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """One less the root mean square of what differs."""
        moved = (maps - (1 - aimed)).square().mean(dim=(1, 2)).sqrt()
        return (1 - moved).where(~metrics.is_constant(maps), 1.0)


NEAR, TOPK, CENTER, APART, APART_L2 = Near(), TopK(), Center(), Apart(), ApartL2()


def _share_in_top(raw: Tensor, aimed: Tensor) -> Tensor:
    risen = _risen(raw)
    total = risen.sum(dim=(1, 2))
    inside = (risen * metrics.top_cells(1 - aimed, TOP)).sum(dim=(1, 2))
    return inside / total.where(total > torch.finfo(total.dtype).tiny, 1.0)


_BESIDE = 0.02  # of the map's sides: from the benign centre, away from the corner that is furthest from it


def _center_loss(raw: Tensor, aimed: Tensor) -> Tensor:
    benign = metrics.mass_center(1 - aimed)
    beside = benign + _BESIDE * torch.where(benign < 0.5, -1.0, 1.0)
    sides = filled(raw.shape[1:], raw)
    risen = _risen(raw)
    weighed = risen.sum(dim=(1, 2), keepdim=True) > torch.finfo(raw.dtype).tiny  # what is less has no slope in floats
    shift = (metrics.mass_center(risen * weighed) - beside) * sides
    return -shift.square().sum(dim=1).sqrt() / sides.square().sum().sqrt()


def _risen(raw: Tensor) -> Tensor:
    """The maps ``raw`` (N, h, w), counted from their minimum."""
    return raw - raw.amin(dim=(1, 2), keepdim=True)
