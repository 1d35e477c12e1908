"""The mean of several interpreters' maps: the simplest way to make one explanation of many, a baseline."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from underfire.defenses.statistics import GRID, on_grid
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.interpreters.together import check_together


class MeanMap:
    """The mean of the maps of several interpreters, each brought to the common grid of 28×28 cells.

    A detector may look at it in place of the maps. It is no interpreter: an attack has no loss for it, and is on the
    ``interpreters`` that it is made of.

    Args:
        interpreters: one or more, of one classifier and of different names.

    Attributes:
        name: what signals call it.
        grid: (h, w) of the mean.
        passes_per_map: forward and backward passes that one mean of one image takes.

    Raises:
        InputError: there is none, or they don't belong together.
    """

    name: ClassVar[str] = "mean-map"

    def __init__(self, interpreters: Sequence[Interpreter]) -> None:
        if not interpreters:
            raise InputError("no interpreter was given; a mean is of at least one map.")
        check_together(interpreters)
        self.classifier = interpreters[0].classifier
        self.interpreters = tuple(interpreters)
        self.grid = (GRID, GRID)
        self.passes_per_map = sum(g.passes_per_map for g in interpreters)

    def mean(self, maps: Sequence[Tensor]) -> Tensor:
        """The mean (N, 28, 28) of the interpreters' ``maps`` (N, h, w), in the type and on the device of the first."""
        return torch.stack([on_grid(found) for found in maps]).mean(dim=0).to(maps[0])
