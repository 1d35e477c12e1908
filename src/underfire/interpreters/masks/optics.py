"""What a mask does to an image: jitter, blur, and the composite of the two; all linear, each with its transpose."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.interpreters.masks.settings import MaskFit

_MARGIN = 1  # the image is enlarged by the jitter and one pixel: 228² for 224² and a jitter of 3


@dataclass(frozen=True)
class Scene:
    """Images (N, C, H + p, W + p), enlarged so that crops of (H, W) can be moved about, sharp and blurred."""

    sharp: Tensor
    blurred: Tensor


@dataclass(frozen=True)
class Crops:
    """One crop (N, C, H, W) of every image of a scene: blurred, and what sharp adds to it."""

    blurred: Tensor
    detail: Tensor


@dataclass(frozen=True)
class Optics:
    """The matrices of one fit for images of one size; bilinear resizing and Gaussian blur are separable.

    Attributes:
        size: (H, W) of the images.
        sharpen, soften: per axis, from the image to the enlarged one (H + p, H), and to that blurred.
        spread: per axis, from mask cells to pixels of the smoothed mask (H, h). Rows sum to 1.
    """

    size: tuple[int, int]
    sharpen: tuple[Tensor, Tensor]
    soften: tuple[Tensor, Tensor]
    spread: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, fit: MaskFit, size: tuple[int, int], like: Tensor) -> Self:
        """Those of ``fit`` for images of ``size``, of the type and on the device of ``like``."""
        enlarged = [n + fit.jitter + _MARGIN for n in size]
        resized = [_resize(n, m) for n, m in zip(size, enlarged, strict=True)]
        blurred = [_blur(m, fit.image_kernel, fit.image_sigma) @ r for m, r in zip(enlarged, resized, strict=True)]
        cells = fit.grid(size)
        spread = [_blur(n, fit.mask_kernel, fit.mask_sigma) @ _resize(h, n) for h, n in zip(cells, size, strict=True)]
        first, second, third = (
            (a.to(like.device, like.dtype), b.to(like.device, like.dtype)) for a, b in (resized, blurred, spread)
        )
        return cls(size, first, second, third)

    def scene(self, x: Tensor) -> Scene:
        """The scene of images ``x`` (N, C, H, W)."""
        return Scene(_apply(self.sharpen, x), _apply(self.soften, x))

    def crops(self, scene: Scene, offsets: Tensor) -> Crops:
        """The crops of ``scene`` whose upper left corners are ``offsets`` (N, 2)."""
        blurred = self._cut(scene.blurred, offsets)
        return Crops(blurred, self._cut(scene.sharp, offsets) - blurred)

    def composite(self, crops: Crops, masks: Tensor) -> Tensor:
        """Sharp where ``masks`` (N, h, w) are 1 and blurred where they are 0: (N, C, H, W)."""
        return crops.blurred + self.smooth(masks) * crops.detail

    def smooth(self, masks: Tensor) -> Tensor:
        """The smoothed masks (N, 1, H, W) at the size of the images."""
        return _apply(self.spread, masks[:, None])

    def in_mask(self, crops: Crops, cotangent: Tensor) -> Tensor:
        """The gradient (N, h, w) in the masks of what has the gradient ``cotangent`` (N, C, H, W) in the composite."""
        return _transposed(self.spread, (cotangent * crops.detail).sum(dim=1, keepdim=True))[:, 0]

    def in_image(self, masks: Tensor, offsets: Tensor, cotangent: Tensor) -> Tensor:
        """The gradient (N, C, H, W) in the images of what has the gradient ``cotangent`` in the composite."""
        shown = self.smooth(masks) * cotangent
        sharp, blurred = self._place(shown, offsets), self._place(cotangent - shown, offsets)
        return _transposed(self.sharpen, sharp) + _transposed(self.soften, blurred)

    def _cut(self, images: Tensor, offsets: Tensor) -> Tensor:
        h, w = self.size
        corners = zip(images, offsets.tolist(), strict=True)
        return torch.stack([image[:, top : top + h, left : left + w] for image, (top, left) in corners])

    def _place(self, crops: Tensor, offsets: Tensor) -> Tensor:
        """The transpose of cutting: zeros around the crops."""
        (h, w), (height, width) = self.size, (len(matrix) for matrix in self.sharpen)
        placed = crops.new_zeros((*crops.shape[:2], height, width))
        for image, crop, (top, left) in zip(placed, crops, offsets.tolist(), strict=True):
            image[:, top : top + h, left : left + w] = crop
        return placed


def _apply(matrices: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
    rows, columns = matrices
    return rows @ images @ columns.T


def _transposed(matrices: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
    rows, columns = matrices
    return rows.T @ images @ columns


def _resize(n: int, m: int) -> Tensor:
    """Bilinear resizing of ``n`` values to ``m``, as a matrix (m, n); ends are repeated."""
    return F.interpolate(torch.eye(n, dtype=torch.float64)[None], size=m, mode="linear", align_corners=False)[0].T


def _blur(n: int, kernel: int, sigma: float) -> Tensor:
    """Gaussian blur of ``n`` values, as a matrix (n, n) whose rows sum to 1; ends are repeated."""
    reach = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = (-0.5 * (reach / sigma).square()).exp()
    weights /= weights.sum()
    sources = (torch.arange(n)[:, None] + reach.long()).clamp(0, n - 1)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, sources, weights.expand(n, -1).contiguous())
