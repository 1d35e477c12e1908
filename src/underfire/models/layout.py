"""How the picture lies in an activation, and the proof of it by changing the image place by place."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["channels first", "channels last", "tokens"]

_SIDE = 4  # the image is changed in so many places along each side
_FOUND = 0.5  # share of the places that must show where they are; one axis without a picture leaves a quarter
_AGREEING = 0.2  # least correlation of where the image and where the cells change
_SHIFTS = (0.0, -0.5, 0.5)
_SQUARE = 3.0  # cells of another shape than this many to one are none, but where they lie as convolutions leave them
_OTHERS = 64  # tokens before the cells that are tried one by one


@dataclass(frozen=True)
class Layout:
    """Where an activation has its cells and its channels.

    Attributes:
        kind: (N, C, h, w), (N, h, w, C), or tokens (N, prefix + h·w + …, C), row after row.
        grid: (h, w).
        prefix: how many tokens, such as a class token, stand before the cells.
    """

    kind: Kind
    grid: tuple[int, int]
    prefix: int = 0

    def picture(self, activation: Tensor) -> Tensor:
        """The cells of ``activation`` as (N, C, h, w), a view of it."""
        if self.kind == "channels first":
            return activation
        if self.kind == "channels last":
            return activation.permute(0, 3, 1, 2)
        picture: Tensor = self.cells(activation).permute(0, 2, 1).unflatten(2, self.grid)
        return picture

    def fits(self, values: Tensor) -> bool:
        """Whether ``values`` have cells where an activation has them, whatever their channels."""
        if self.kind == "tokens":
            return values.ndim == 3 and values.shape[1] >= self.prefix + math.prod(self.grid)
        sides = values.shape[2:] if self.kind == "channels first" else values.shape[1:3]
        return values.ndim == 4 and tuple(sides) == self.grid

    def cells(self, tokens: Tensor) -> Tensor:
        """Those of ``tokens`` (N, T, …) that are cells, (N, h·w, …), a view."""
        h, w = self.grid
        return tokens[:, self.prefix : self.prefix + h * w]

    def spread(self, channels: Tensor) -> Tensor:
        """``channels`` (N, C) in a shape that goes with every cell of an activation, and with its other tokens."""
        if self.kind == "channels first":
            return channels[:, :, None, None]
        return channels[:, None, None] if self.kind == "channels last" else channels[:, None]


def places(size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """The rows and columns of pixels of each place of an image of ``size`` (H, W), one row of places after another."""
    rows, columns = (
        [slice(side * i // count, side * (i + 1) // count) for i in range(count)]
        for side, count in zip(size, _counts(size), strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def changed(image: Tensor, other: Tensor) -> Tensor:
    """``image`` (C, H, W) with one place after another as in ``other``, (K, C, H, W)."""
    where = places((image.shape[1], image.shape[2]))
    rows = image.repeat(len(where), 1, 1, 1)
    for row, (vertical, horizontal) in zip(rows, where, strict=True):
        row[:, vertical, horizontal] = other[:, vertical, horizontal]
    return rows


def far(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Which of the cells of ``grid``, row after row, lie neither in a place of an image of ``size`` nor beside it.

    (K, h·w) for one of the :func:`places` after another.
    """
    away = []
    for count, side in zip(_counts(size), grid, strict=True):
        place_of_cell = (torch.arange(side) + 0.5) * count // side
        away.append((place_of_cell[None] - torch.arange(count)[:, None]).abs() > 1)
    rows, columns = away
    return (rows[:, None, :, None] | columns[None, :, None, :]).flatten(2).flatten(0, 1)


def strengths(difference: Tensor) -> dict[Kind, Tensor]:
    """How much the cells of an activation (K, …) differ, the root mean square over what may be its channels."""
    if difference.ndim == 4:
        return {"channels first": _rms(difference, 1), "channels last": _rms(difference, 3)}
    return {"tokens": _rms(difference, 2)} if difference.ndim == 3 else {}


def layout_of(change: Mapping[Kind, Tensor], size: tuple[int, int], *, whole: bool = False) -> Layout | None:
    """The layout in which an activation changes where the image does; None if there is none.

    Args:
        change: its :func:`strengths`, when one of the :func:`places` after another is changed.
        size: (H, W) of the image.
        whole: all that the logits read of the image passes through the activation.
    """
    best, found = 0.0, None
    for layout, cells in _candidates(change, size):
        agreement = _agreement(layout.kind, cells, size, whole=whole)
        if agreement > best:
            best, found = agreement, layout
    return found


def _candidates(change: Mapping[Kind, Tensor], size: tuple[int, int]) -> Iterator[tuple[Layout, Tensor]]:
    """The layouts that an activation may have by its shape, and the change (K, h, w) of their cells."""
    for kind, strength in change.items():
        if kind == "tokens":
            for grid in _grids(strength.shape[1], size):
                spare = strength.shape[1] - math.prod(grid)
                for prefix in sorted({*range(min(spare, _OTHERS) + 1), spare}):
                    layout = Layout(kind, grid, prefix)
                    yield layout, layout.cells(strength).unflatten(1, grid)
        elif _may_be_cells(strength.shape[1:], size, squareness=math.inf if kind == "channels first" else _SQUARE):
            yield Layout(kind, (strength.shape[1], strength.shape[2])), strength


def _rms(values: Tensor, dim: int) -> Tensor:
    return values.square().mean(dim=dim).sqrt()


def _may_be_cells(grid: tuple[int, ...], size: tuple[int, int], *, squareness: float) -> bool:
    """Whether a grid has more than one cell, no more than there are pixels, and these of a likely shape."""
    cell = [side / max(count, 1) for side, count in zip(size, grid, strict=True)]
    return math.prod(grid) > 1 and min(cell) >= 1 and max(cell) <= squareness * min(cell)


def _grids(tokens: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Grids of square cells that fill at least half of ``tokens``, the finest first."""
    height, width = size
    found = set()
    for h in range(1, min(tokens, height) + 1):
        for w in (math.floor(h * width / height), math.ceil(h * width / height)):
            if tokens <= 2 * h * w and h * w <= tokens and _may_be_cells((h, w), size, squareness=_SQUARE):
                found.add((h, w))
    return sorted(found, reverse=True)


def _agreement(kind: Kind, change: Tensor, size: tuple[int, int], *, whole: bool) -> float:
    """Correlation of where cells ``change`` (K, h, w) and where the image did; 0 if too few places show it.

    Cells of convolutions may lie half a cell beside the places that they are named after. Large cells, each of which
    sees much of the image, or cells of few channels, of which many are at rest, may show nothing. They count if nothing
    shows that they lie in another way and they are few, or ``whole`` and of the shape of pixels.
    """
    shifts = (0.0,) if kind == "tokens" else _SHIFTS
    found = max(_agreement_at(shift, change, size) for shift in shifts)
    grid = (change.shape[1], change.shape[2])
    few = max(grid) < _SIDE
    if found or kind != "channels first" or not (few or (whole and _may_be_cells(grid, size, squareness=_SQUARE))):
        return found
    turned = (change.flip(1), change.flip(2), change.flip(1, 2))
    others = (*turned, *(cells.transpose(1, 2) for cells in (change, *turned)))
    return 0.0 if any(_agreement_at(0.0, cells, size) for cells in others) else torch.finfo(change.dtype).tiny


def _agreement_at(shift: float, change: Tensor, size: tuple[int, int]) -> float:
    """The same for cells that lie ``shift`` cells further down and to the right."""
    grid, counts = (change.shape[1], change.shape[2]), _counts(size)
    cells = torch.nan_to_num(change).flatten(1).double()
    excess = _centred(cells / (cells.mean(dim=0) + torch.finfo(cells.dtype).tiny))
    wanted = _centred(_shares(counts, grid, shift)).to(excess)
    length = float(excess.norm() * wanted.norm())
    agreement = float((excess * wanted).sum()) / length if length else 0.0
    coarse = (min(counts[0], grid[0]), min(counts[1], grid[1]))
    shares = _shares(coarse, grid, shift).to(excess)
    strongest = (excess @ (shares / shares.sum(dim=1, keepdim=True)).T).argmax(dim=1)
    own = _shares(counts, coarse).argmax(dim=1).to(strongest.device)
    shown = float((strongest == own).double().mean())
    return agreement if shown >= _FOUND and agreement >= _AGREEING else 0.0


def _centred(values: Tensor) -> Tensor:
    """What rows and columns of ``values`` (K, M) do not explain by themselves."""
    values = values - values.mean(dim=0)
    return values - values.mean(dim=1, keepdim=True)


def _counts(size: tuple[int, int]) -> tuple[int, int]:
    return min(_SIDE, size[0]), min(_SIDE, size[1])


@lru_cache(maxsize=256)
def _shares(coarse: tuple[int, int], fine: tuple[int, int], shift: float = 0.0) -> Tensor:
    """How much of each of the cells of ``fine`` each cell of ``coarse`` covers, (K, M), both row after row."""
    vertical, horizontal = (_covered(a, b, shift) for a, b in zip(coarse, fine, strict=True))
    return torch.einsum("ai,bj->abij", vertical, horizontal).flatten(2).flatten(0, 1)


def _covered(parts: int, cells: int, shift: float) -> Tensor:
    """Which share of each of ``cells`` equal intervals each of ``parts`` covers, (parts, cells)."""
    start = torch.arange(parts).double()[:, None] / parts
    cell = (torch.arange(cells).double()[None] + shift) / cells
    low, high = torch.maximum(start, cell), torch.minimum(start + 1 / parts, cell + 1 / cells)
    return (high - low).clamp_min(0) * cells
