"""Step rules: from a direction to a move of about one step per pixel value."""

import torch
from torch import Tensor


def sign(direction: Tensor) -> Tensor:
    """The move of PGD, one whole step for every pixel value (N, C, H, W)."""
    return direction.sign()


class Adam:
    """Moves by the ratio of the mean direction to its spread (Kingma & Ba 2015), at most ``LONGEST`` steps.

    A map's direction is noisy: the next iterate crosses kinks of the network that the last one did not. Where a
    pixel's direction changes from step to step it hardly moves; the sign of the mean would move it a whole step
    and undo what the others gained.
    """

    MEAN, SPREAD, LONGEST = 0.9, 0.95, 1.5

    def __init__(self, like: Tensor) -> None:
        self._mean = torch.zeros_like(like)
        self._square = torch.zeros_like(like)
        self._count = 0

    def __call__(self, direction: Tensor) -> Tensor:
        """The move (N, C, H, W) for the next ``direction``, in steps."""
        self._count += 1
        self._mean = self.MEAN * self._mean + (1 - self.MEAN) * direction
        self._square = self.SPREAD * self._square + (1 - self.SPREAD) * direction.square()
        mean = self._mean / (1 - self.MEAN**self._count)
        spread = (self._square / (1 - self.SPREAD**self._count)).sqrt()
        return (mean / spread.clamp_min(torch.finfo(spread.dtype).tiny)).clamp(-self.LONGEST, self.LONGEST)
