"""The iterate to keep, chosen per image."""

import torch
from torch import Tensor


class Best:
    """The best iterate of each image so far.

    Any iterate whose label holds beats any whose label does not; among the former the smaller gap to the target
    maps wins, among the latter the smaller prediction loss.
    """

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        n = x.shape[0]
        self._holds = torch.zeros(n, dtype=torch.bool, device=x.device)
        self._score = torch.full((n,), torch.inf, dtype=x.dtype, device=x.device)

    def offer(self, x_adv: Tensor, *, holds: Tensor, nll: Tensor, gap: Tensor) -> None:
        """Keep ``x_adv`` (N, C, H, W) where it beats what is kept; ``holds``, ``nll`` and ``gap`` are (N,)."""
        score = torch.where(holds, gap, nll)
        better = (holds & ~self._holds) | ((holds == self._holds) & (score < self._score))
        self.x_adv = torch.where(better[:, None, None, None], x_adv, self.x_adv)
        self._holds = self._holds | holds
        self._score = torch.where(better, score, self._score)
