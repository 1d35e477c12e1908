"""Which radius a search for the smallest one tries next, image by image."""

import torch
from torch import Tensor

from underfire.attacks.perturbations.norms import LEVEL, Norm

PATIENCE = 24
"""Steps at one radius after which it is taken for too small."""


class Radii:
    """A bisection of radii by an attack under way: it goes on from where it is when the radius changes.

    An image whose goal is met tries a smaller radius. One whose goal is not met for :data:`PATIENCE` steps tries a
    larger one: twice the radius where nothing is found yet, else one between this radius and the best. A radius that
    was given up is not forgotten, but the last one below the best is tried until the end, since an attack that goes on
    may yet reach it.

    Attributes:
        now: (N,) the radii to try.
        best: (N,) the smallest ones at which the goal was met; infinite where there is none.
        steps: (N,) how many were taken at ``now``.
    """

    def __init__(self, norm: Norm, x: Tensor, most: float) -> None:
        self._norm, self._most = norm, most
        self.now = torch.full((len(x),), min(norm.first(x), most), dtype=torch.float64, device=x.device)
        self.best = torch.full_like(self.now, torch.inf)
        self.steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self._low = torch.zeros_like(self.now)

    def done(self, rows: Tensor) -> Tensor:
        """Which of the images ``rows`` cannot do better: met as they are, or by one grey level, the smallest change."""
        return self.best[rows] <= LEVEL * (1 + 1e-9)

    def met(self, rows: Tensor, sizes: Tensor) -> None:
        """At changes of ``sizes`` (n,) the goal of the images ``rows`` is met."""
        self.best[rows] = sizes
        low = self._low[rows]
        self._low[rows] = torch.where(low < sizes, low, self._norm.little_below(sizes))
        self._go(rows, self._norm.between(self._low[rows], sizes))

    def overdue(self, rows: Tensor) -> Tensor:
        """Which of the images ``rows`` have tried their radius for long."""
        return self.steps[rows] >= PATIENCE

    def give_up(self, rows: Tensor) -> None:
        """The images ``rows`` try a larger radius where there is one."""
        self._low[rows] = self.now[rows]
        best = self.best[rows]
        found = best.isfinite()
        next_one = self._norm.between(self._low[rows], torch.where(found, best, 1.0))
        self._go(rows, torch.where(found, next_one, (2 * self.now[rows]).clamp(max=self._most)))

    def _go(self, rows: Tensor, radii: Tensor) -> None:
        changed = radii != self.now[rows]
        self.now[rows] = radii
        self.steps[rows[changed]] = 0
