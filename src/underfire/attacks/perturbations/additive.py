"""What perturbation models share that add to an image: the image itself is the parameter."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.devices import maybe_any
from underfire.images.png import from_8bit


class Additive(ABC):
    """θ is the perturbed image, so that nothing has to be made of it, nor carried back to it."""

    def start(self, x: Tensor) -> Tensor:
        """The image itself is the parameter."""
        return x.clone()

    def image(self, x: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002 - θ is the image
        """``theta``, the image itself."""
        return theta

    def pull_back(self, x: Tensor, theta: Tensor, direction: Tensor) -> Tensor:  # noqa: ARG002 - the Jacobian is 1
        """``direction``, unchanged."""
        return direction

    def whole(self, x: Tensor, theta: Tensor) -> Tensor:
        """``theta`` in whole grey levels; as it is where these leave the ball around an ``x`` of other values."""
        levels = from_8bit(self.rounded(x, theta), theta.dtype)
        inside = self.contains(x, levels)
        return torch.where(inside[:, None, None, None], levels, theta) if maybe_any(~inside) else levels

    @abstractmethod
    def rounded(self, x: Tensor, image: Tensor) -> Tensor:
        """As :meth:`Perturbation.rounded`."""

    @abstractmethod
    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        """As :meth:`Perturbation.contains`."""


def random_signs(x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """±1 for every value of ``x`` (N, C, H, W), those of each image from its own of the ``draws`` (on the CPU)."""
    return torch.stack([torch.randint(2, x.shape[1:], generator=draw) * 2 - 1 for draw in draws]).to(x)
