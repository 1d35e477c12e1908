"""Masks that show an image in part, and what each of them weighs in a map."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError


@dataclass(frozen=True)
class MaskSet:
    """K masks for each of N images.

    Attributes:
        shown: (N, K, a, b) in [0, 1], the masks in cells: 1 where the image is shown.
        weights: (N, K, h, w), so that a map is Σ_k f(x ⊙ M_k)·weights[k].
        corners: (N, K, 2), int64: soft masks, interpolated between their cells and cut out of a larger picture there.
            None: each cell covers its segment of the image evenly.
    """

    shown: Tensor
    weights: Tensor
    corners: Tensor | None = None

    @classmethod
    def of_segments(cls, shown: Tensor, weights: Tensor, grid: tuple[int, int], like: Tensor) -> Self:
        """The masks of one image by the segments of ``grid``, ``shown`` (K, a·b) and what they weigh (K, a·b) in it."""
        return cls(*(part.unflatten(1, grid)[None].to(like.device, like.dtype) for part in (shown, weights)))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Those of several images as one."""
        corners = [part.corners for part in parts if part.corners is not None]
        return cls(
            torch.cat([part.shown for part in parts]),
            torch.cat([part.weights for part in parts]),
            torch.cat(corners) if corners else None,
        )

    def __len__(self) -> int:
        """K."""
        return self.shown.shape[1]

    def select(self, places: Tensor) -> "MaskSet":
        """The same for the images at ``places``."""
        return MaskSet(self.shown[places], self.weights[places], None if self.corners is None else self.corners[places])

    def pixels(self, images: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The masks (n, H, W) of ``size`` at the places ``images`` (n,) and ``masks`` (n,)."""
        shown = self.shown[images, masks]
        return in_pixels(shown, None if self.corners is None else self.corners[images, masks], size)

    def together(self, factors: Tensor, size: tuple[int, int]) -> Tensor:
        """Σ_k factors·masks (N, H, W) in pixels, for ``factors`` (N, K)."""
        if self.corners is None:
            return in_pixels(torch.einsum("nk,nkab->nab", factors, self.shown), None, size)
        sums = [
            torch.einsum("k,khw->hw", one, in_pixels(shown, corners, size))
            for one, shown, corners in zip(factors, self.shown, self.corners, strict=True)
        ]
        return torch.stack(sums)

    def maps(self, values: Tensor) -> Tensor:
        """The maps (N, h, w) of f's ``values`` (N, K)."""
        return torch.einsum("nk,nkhw->nhw", values, self.weights)

    def slopes(self, slope: Tensor) -> Tensor:
        """⟨slope, weights⟩ (N, K): how a loss of slope (N, h, w) in the maps changes with each of f's values."""
        return torch.einsum("nhw,nkhw->nk", slope, self.weights)


def segments_of(segments: int, size: tuple[int, int]) -> tuple[int, int]:
    """(a, b) cells of an image of ``size`` that is to have ``segments`` on each side; no more than there are pixels.

    Raises:
        InputError: there are none.
    """
    if segments < 1:
        raise InputError(f"segments is {segments}; an image has at least 1 on each side.")
    return (min(segments, size[0]), min(segments, size[1]))


def in_pixels(shown: Tensor, corners: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Masks (n, a, b) in cells as masks (n, H, W) of ``size`` in pixels; ``corners`` as in :class:`MaskSet`."""
    (a, b), (h, w) = shown.shape[1:], size
    if corners is None:
        rows, columns = (torch.arange(n, device=shown.device) * k // n for n, k in ((h, a), (w, b)))
        return shown[:, rows][:, :, columns]
    cell = cell_of((a, b), size)
    larger = ((a + 1) * cell[0], (b + 1) * cell[1])
    soft = F.interpolate(shown[:, None], size=larger, mode="bilinear", align_corners=False)[:, 0]
    windows = soft.unfold(1, h, 1).unfold(2, w, 1)
    return windows[torch.arange(len(soft), device=soft.device), corners[:, 0], corners[:, 1]]


def cell_of(cells: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels of a soft mask's cell, of which ``cells`` cover an image of ``size``."""
    return (-(-size[0] // cells[0]), -(-size[1] // cells[1]))
