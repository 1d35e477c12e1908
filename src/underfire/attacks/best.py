"""The iterate to keep, chosen per image."""

import torch
from torch import Tensor

ENOUGH = 0.5 / 255
"""A gap this small is done: drawn in 256 levels, the map differs from its target by half a level in the mean."""


class Best:
    """The best iterate of each image so far, as the parameters θ of its perturbation.

    Any iterate whose label holds beats any whose label does not; among the former the smaller gap to the target
    maps wins, among the latter the smaller prediction loss; among equals the later one.

    Attributes:
        theta: parameters of the kept iterates, one row per image.
        nll, gap: (N,) their losses; infinite as long as nothing was offered.
    """

    def __init__(self, theta: Tensor) -> None:
        n = theta.shape[0]
        self.theta = theta.clone()
        self.nll = torch.full((n,), torch.inf, dtype=theta.dtype, device=theta.device)
        self.gap = self.nll.clone()
        self._holds = torch.zeros(n, dtype=torch.bool, device=theta.device)

    def offer(self, theta: Tensor, *, rows: Tensor, holds: Tensor, nll: Tensor, gap: Tensor) -> None:
        """Keep ``theta`` where it beats what is kept for the images ``rows``; ``holds``, ``nll``, ``gap`` are its."""
        before = self._holds[rows]
        lower = torch.where(holds, gap <= self.gap[rows], nll <= self.nll[rows])
        better = (holds & ~before) | ((holds == before) & lower)
        self.take(theta[better], rows=rows[better], holds=holds[better], nll=nll[better], gap=gap[better])

    def follow(self, theta: Tensor, *, rows: Tensor, holds: Tensor, nll: Tensor, gap: Tensor) -> None:
        """Keep ``theta`` where its label holds, or where none has held yet and it has the lower prediction loss."""
        later = holds | (~self._holds[rows] & (nll <= self.nll[rows]))
        self.take(theta[later], rows=rows[later], holds=holds[later], nll=nll[later], gap=gap[later])

    def take(self, theta: Tensor, *, rows: Tensor, holds: Tensor, nll: Tensor, gap: Tensor) -> None:
        """Keep ``theta`` for the images ``rows``, whatever was kept before."""
        self.theta[rows] = theta
        self._holds[rows], self.nll[rows], self.gap[rows] = holds, nll, gap

    def done(self, rows: Tensor) -> Tensor:
        """Which of the images ``rows`` need no further step: the label holds and the gap is at most ``ENOUGH``."""
        return self._holds[rows] & (self.gap[rows] <= ENOUGH)
