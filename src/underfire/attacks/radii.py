"""Which radius a search for the smallest one tries next, image by image."""

import torch
from torch import Tensor

from underfire.attacks.perturbations.norms import Norm

UNMET, PATIENCE = 100, 30
"""Steps at one radius after which it is given up: where the label is had but nothing was found yet, and elsewhere."""

QUICK = 3
"""Steps within which a radius that is met was easy."""

STRIDE, LONGEST = 0.25, 0.5
"""The share by which a radius gets smaller at first, and at most."""


class Radii:
    """The radius that each image tries, on its way down.

    An image whose goal is met tries a radius that is smaller by its stride, a share that doubles where the last one was
    easy and is halved where it was not, so that the iterate, brought into the smaller ball, is not far from the goal.
    One whose goal is not met for long tries a larger radius: twice as large where nothing is found yet, else one
    between this and the best. The last one below the best is tried until the end.

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
        self._labelled = torch.zeros_like(self.steps, dtype=torch.bool)  # at the present radius
        self._low, self._stride = torch.zeros_like(self.now), torch.full_like(self.now, STRIDE)

    def met(self, rows: Tensor, sizes: Tensor, where: Tensor) -> None:
        """At changes of ``sizes`` (n,) the goal of the images ``rows`` is met, ``where`` (n,) that says so."""
        factor = torch.where(self.steps[rows] <= QUICK, 2.0, 0.5).to(sizes)
        stride = self._stride[rows] * factor.where(self.best[rows].isfinite(), 1.0)
        self._stride[rows] = stride.clamp(max=LONGEST).where(where, self._stride[rows])
        self.best[rows] = sizes.where(where, self.best[rows])
        low = self._low[rows]
        self._low[rows] = low.where(~where | (low < sizes), 0.0)  # an attack that goes on reached what was given up
        self._go(rows, self._norm.below(self._low[rows], sizes, self._stride[rows]), where)

    def refuse(self, rows: Tensor, sizes: Tensor, where: Tensor) -> None:
        """What was taken for met by the images ``rows``, ``where`` (n,) it was, was not.

        ``sizes`` (n,) are the best that are known to be.
        """
        self.best[rows] = sizes.where(where, self.best[rows])
        self._stride[rows] = self._stride[rows].where(~where, LONGEST)

    def step(self, rows: Tensor, reached: Tensor) -> Tensor:
        """A step is taken from the images ``rows``, with the label or not; which (n,) of them give up their radius."""
        self.steps[rows] += 1
        self._labelled[rows] |= reached
        waiting = self._labelled[rows] & self.best[rows].isinf()
        return self.steps[rows] >= torch.where(waiting, UNMET, PATIENCE)

    def give_up(self, rows: Tensor, where: Tensor) -> Tensor:
        """The images ``rows``, ``where`` (n,) they do, try a larger radius if there is one.

        Returns which (n,) of them go on from the best they have.
        """
        before, best = self.now[rows], self.best[rows]
        found = best.isfinite()
        self._low[rows] = before.where(where, self._low[rows])
        self._stride[rows] = (self._stride[rows] / 2).where(where, self._stride[rows])
        between = self._norm.below(before, best.where(found, 1.0), self._stride[rows])
        self._go(rows, between.where(found, (2 * before).clamp(max=self._most)), where)
        return where & found & (self.now[rows] != before)

    def _go(self, rows: Tensor, radii: Tensor, where: Tensor) -> None:
        changed = where & (radii != self.now[rows])
        self.now[rows] = radii.where(changed, self.now[rows])
        self.steps[rows] = self.steps[rows].where(~changed, 0)
        self._labelled[rows] &= ~changed
