"""The mean of several interpreters' maps: the simplest way to make one explanation of many, a baseline."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.defenses.ensemble_signals import GRID, on_grid
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter, MapObjective, MapTarget, check_together


class MeanMap(Interpreter):
    """The mean of the maps of several interpreters, each brought to the common grid of 28×28 cells.

    It is there to be looked at, and no target: whoever wants it attacks its parts, as `AdaptiveADV2` does.

    Args:
        interpreters: one or more, of one classifier and of different names.

    Raises:
        InputError: there is none, or they don't belong together.
    """

    name = "mean-map"
    family = "ensemble"
    summary = "the mean of several maps"

    def __init__(self, interpreters: Sequence[Interpreter]) -> None:
        if not interpreters:
            raise InputError("no interpreter was given; a mean is of at least one map.")
        check_together(interpreters)
        super().__init__(interpreters[0].classifier)
        self.interpreters = tuple(interpreters)
        self.grid = (GRID, GRID)
        self.passes_per_map = sum(g.passes_per_map for g in interpreters)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The means (N, 28, 28)."""
        maps = torch.stack([on_grid(g.compute(x, y, keys)) for g in self.interpreters])
        return maps.mean(dim=0).to(x)

    def objective(self, target: MapTarget) -> MapObjective:  # noqa: ARG002 - whatever it is
        """None.

        Raises:
            InputError: always.
        """
        raise InputError("the mean map is no target of an attack; attack the interpreters that it is made of.")
