"""How far the maps of every two interpreters agree."""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from underfire.defenses.signals.base import Signal, SignalInput
from underfire.defenses.statistics import TOP, rank_correlations
from underfire.metrics import iou_top


class Pairs(Signal):
    """Of every two interpreters Spearman's rank correlation of their maps, and the IoU of their top fifths.

    A single interpreter has none.
    """

    name: ClassVar[str] = "pairs"
    depends_on_set: ClassVar[bool] = False

    def names(self, interpreters: Sequence[str]) -> tuple[str, ...]:
        """Such as ``cam~grad rank`` and ``cam~grad overlap``."""
        return tuple(f"{a}~{b} {measure}" for a, b in combinations(interpreters, 2) for measure in ("rank", "overlap"))

    def measure(self, given: SignalInput) -> Tensor:
        """Correlation and overlap of each pair, (N, S)."""
        columns = []
        for a, b in combinations(given.maps, 2):
            columns.append(rank_correlations(given.ranks[a], given.ranks[b]))
            columns.append(iou_top(given.maps[a], given.maps[b], share=TOP).double())
        return torch.stack(columns, dim=1) if columns else torch.zeros((len(given.x), 0), dtype=torch.float64)
