"""KernelSHAP: Shapley values of the image's segments, by least squares (Lundberg & Lee 2017)."""

import math

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.mask_sets import MaskSet, segments_of
from underfire.interpreters.masked import Masked
from underfire.interpreters.outputs import Output
from underfire.interpreters.surrogates import efficient
from underfire.models.classifier import Classifier
from underfire.seeding import generator


class KernelSHAP(Masked):
    """Shapley values of segments, estimated by f of random coalitions of them, min–max scaled.

    The values add up to f(x) − f(x̄). Coalitions are drawn with the chances of the Shapley kernel, each with its
    complement (Covert & Lee 2021), by every image for itself. Where all coalitions are no more than ``samples``, all
    are taken, and the values are exact.

    Args:
        classifier: the classifier to explain.
        samples: coalitions that are looked at, the whole and the empty one included.
        segments: on each side of the grid that the image is cut into; the map's own grid.
        baseline: value of a hidden pixel in [0, 1]; 0 is black.
        output: f, the class's ``"probability"`` or its ``"logit"``.
        per_step: how many coalitions each attack step goes backward through, drawn at random; None: all of them,
            which gives the exact gradient.
        renewed: how many others it evaluates again by a forward pass, in turn.
        seed: of the coalitions.

    Raises:
        InputError: an argument is out of range.
    """

    name = "kernelshap"
    title = "KernelSHAP"
    summary = "Shapley values of segments, by least squares on random coalitions"
    passes_per_map = 128
    passes_per_step = 5

    def __init__(
        self,
        classifier: Classifier,
        *,
        samples: int = 128,
        segments: int = 7,
        baseline: float = 0.0,
        output: Output = "probability",
        per_step: int | None = 2,
        renewed: int = 2,
        seed: int = 0,
    ) -> None:
        cells = segments_of(segments, classifier.input_size)
        players = cells[0] * cells[1]
        if samples < 4 or samples % 2:
            raise InputError(f"samples is {samples}; give an even number of coalitions, at least 4.")
        self._all = 2**players <= samples
        super().__init__(
            classifier,
            masks=2**players if self._all else samples,
            grid=cells,
            baseline=baseline,
            output=output,
            per_step=per_step,
            renewed=renewed,
            seed=seed,
        )

    def masks_of(self, key: str, like: Tensor) -> MaskSet:
        """The whole image, none of it, and the coalitions."""
        players = math.prod(self.grid)
        inner, weights = _every(players) if self._all else self._drawn(key, players, self.passes_per_map - 2)
        shown = torch.cat([torch.ones(1, players), torch.zeros(1, players), inner]).double()
        coefficients = efficient(shown, torch.cat([torch.zeros(2), weights]).double(), whole=0, none=1)
        return MaskSet.of_segments(shown, coefficients, self.grid, like)

    def _drawn(self, key: str, players: int, count: int) -> tuple[Tensor, Tensor]:
        """Coalitions (``count``, ``players``), half of them the others' complements, which all weigh alike."""
        draw = generator(self.seed, key, self.name)
        sizes = torch.arange(1, players, dtype=torch.float64)
        chances = 1 / (sizes * (players - sizes))
        drawn = 1 + torch.multinomial(chances, count // 2, replacement=True, generator=draw)
        ranks = torch.rand((count // 2, players), generator=draw, dtype=torch.float64).argsort(dim=1).argsort(dim=1)
        shown = (ranks < drawn[:, None]).float()
        return torch.cat([shown, 1 - shown]), torch.ones(count)


def _every(players: int) -> tuple[Tensor, Tensor]:
    """All coalitions but the whole and the empty one, and what the Shapley kernel gives each."""
    numbers = torch.arange(1, 2**players - 1)
    shown = (numbers[:, None] >> torch.arange(players)) & 1
    sizes = [int(size) for size in shown.sum(dim=1)]
    kernel = [(players - 1) / (math.comb(players, size) * size * (players - size)) for size in sizes]
    return shown.float(), torch.tensor(kernel, dtype=torch.float64)
