"""What a perturbation model is: how parameters make an image, and which parameters are allowed."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Perturbation(Protocol):
    """A family of images around a benign one, described by parameters θ that the loop moves.

    θ is a tensor with one row per image: the image itself for models that add to it, a field of displacements
    for one that moves pixels. Nothing here couples two images of a batch.
    """

    @property
    def name(self) -> str:
        """What command lines and rows call it."""
        ...

    @property
    def eps(self) -> float:
        """The budget, in the model's own unit."""
        ...

    @property
    def unit(self) -> str:
        """That unit in words."""
        ...

    def start(self, x: Tensor) -> Tensor:
        """The θ that leaves images ``x`` (N, C, H, W) as they are."""
        ...

    def image(self, x: Tensor, theta: Tensor) -> Tensor:
        """The images (N, C, H, W) in [0, 1] that ``theta`` makes of ``x``."""
        ...

    def pull_back(self, x: Tensor, theta: Tensor, direction: Tensor) -> Tensor:
        """A ``direction`` (N, C, H, W) in the images as one in θ: its product with the Jacobian of :meth:`image`.

        A term that the model itself minimises (the roughness of a flow field) is added here.
        """
        ...

    def steepest(self, direction: Tensor) -> Tensor:
        """The move of size 1 in the model's norm along which ``direction`` (shaped like θ) gains most."""
        ...

    def share(self, theta: Tensor) -> float:
        """What each value of θ may change when all change alike and the whole move has size 1 in the model's norm."""
        ...

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """``theta`` brought back within the budget, and so that its images stay in [0, 1]."""
        ...

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """(N,) how much of the budget ``theta`` uses, in the unit of ``eps``."""
        ...

    def harmless(self, x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """A random θ of full size that nobody aimed; each image's own generator, on the CPU, decides for it."""
        ...

    def rounded(self, x: Tensor, image: Tensor) -> Tensor:
        """``image`` (N, C, H, W) as it would be saved, uint8, still within the budget.

        ``x`` consists of multiples of 1/255, and ``image`` is one that :meth:`image` made of it.
        """
        ...

    def whole(self, x: Tensor, theta: Tensor) -> Tensor:
        """``theta`` with the image that :meth:`rounded` would save, where it has such within the budget."""
        ...

    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        """(N,) bool: whether ``image`` (N, C, H, W) is within the budget around ``x``, as far as pixels alone tell."""
        ...
