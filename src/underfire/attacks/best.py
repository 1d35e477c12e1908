"""The iterate to keep, chosen per image."""

import torch
from torch import Tensor

ENOUGH = 0.5 / 255
"""So small a map distance is done: drawn in 256 levels, map and target differ by half a level in the mean."""


class Best:
    """The best iterate of each image so far, as the parameters θ of its perturbation.

    Any iterate whose label is reached beats any whose label does not; among the former the smaller distance to the
    target maps wins, among the latter the smaller prediction loss; among equals the later one.

    Attributes:
        theta: parameters of the kept iterates, one row per image.
        nll, distance: (N,) their losses; infinite as long as nothing was offered.
    """

    def __init__(self, theta: Tensor) -> None:
        n = theta.shape[0]
        self.theta = theta.clone()
        self.nll = torch.full((n,), torch.inf, dtype=theta.dtype, device=theta.device)
        self.distance = self.nll.clone()
        self._reached = torch.zeros(n, dtype=torch.bool, device=theta.device)

    def offer(self, theta: Tensor, *, rows: Tensor, reached: Tensor, nll: Tensor, distance: Tensor) -> None:
        """Keep ``theta`` where it beats what is kept for the images ``rows``."""
        before = self._reached[rows]
        lower = torch.where(reached, distance <= self.distance[rows], nll <= self.nll[rows])
        better = (reached & ~before) | ((reached == before) & lower)
        self.take(theta[better], rows=rows[better], reached=reached[better], nll=nll[better], distance=distance[better])

    def follow(self, theta: Tensor, *, rows: Tensor, reached: Tensor, nll: Tensor, distance: Tensor) -> None:
        """Keep ``theta`` where its label is reached, or none was yet and it has the lower prediction loss."""
        later = reached | (~self._reached[rows] & (nll <= self.nll[rows]))
        self.take(theta[later], rows=rows[later], reached=reached[later], nll=nll[later], distance=distance[later])

    def take(self, theta: Tensor, *, rows: Tensor, reached: Tensor, nll: Tensor, distance: Tensor) -> None:
        """Keep ``theta`` for the images ``rows``, whatever was kept before."""
        self.theta[rows] = theta
        self._reached[rows], self.nll[rows], self.distance[rows] = reached, nll, distance

    def done(self, rows: Tensor) -> Tensor:
        """Which of the images ``rows`` need no further step: label reached, map distance at most ``ENOUGH``."""
        return self._reached[rows] & (self.distance[rows] <= ENOUGH)
