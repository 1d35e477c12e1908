"""The evidence for the class in the region that the maps agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from underfire.attacks.transforms import ImageTransform
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals.base import Signal, SignalInput
from underfire.defenses.statistics import TOP, log_odds, on_grid
from underfire.defenses.views import Unmoving
from underfire.interpreters.base import Interpreter
from underfire.interpreters.faithfulness import Probe, blurred, ranks


class Agreed(Signal):
    """The log-odds of the class when only the top fifth of the mean map is visible, the rest blurred.

    Args:
        seed: of the order of ties in the mean map.
    """

    name: ClassVar[str] = "agreed"

    def __init__(self, seed: int = 0) -> None:
        self._probe = Probe(share=TOP, seed=seed)

    @classmethod
    def default(cls, _size: tuple[int, int], seed: int, /) -> Self:
        """The signal with ``seed``."""
        return cls(seed)

    def names(self, _interpreters: Sequence[str]) -> tuple[str, ...]:
        """``agreed log-odds``."""
        return ("agreed log-odds",)

    def passes(self, _interpreters: Sequence[Interpreter | MeanMap]) -> int:
        """One for an image: the prediction on the region."""
        return 1

    def measure(self, given: SignalInput) -> Tensor:
        """The log-odds (N, 1)."""
        logits = given.predict(self.region(given.x, given.maps, given.keys))
        return log_odds(logits, given.classes)[:, None]

    def transforms(self, target_maps: Mapping[str, Tensor], _seed: int) -> tuple[ImageTransform, ...]:
        """The region in which the target maps agree, for the prediction alone."""
        return (_TargetRegion(self, target_maps),)

    def region(self, x: Tensor, maps: Mapping[str, Tensor], keys: Sequence[str]) -> Tensor:
        """Images ``x`` (N, C, H, W) of which only the top fifth of the mean of ``maps`` is visible, the rest blurred.

        ``maps`` (N, h, w) are one interpreter's each, on any grid; ``keys`` name the owners of the order of ties.
        Differentiable in ``x``.
        """
        mean = torch.stack([on_grid(found) for found in maps.values()]).mean(dim=0)
        size, probe = (int(x.shape[2]), int(x.shape[3])), self._probe
        parts = []
        for image, agreed, key in zip(x, mean, keys, strict=True):
            shown = ranks(agreed, size, seed=probe.seed, key=key) < round(probe.share * size[0] * size[1])
            away = blurred(image[None], probe.blur * min(size))[0]
            parts.append(torch.where(shown.to(x.device), image, away))
        return torch.stack(parts)


@dataclass(frozen=True)
class _TargetRegion(Unmoving):
    """Images of which only the top fifth of the mean of the target maps (N, h, w) is visible."""

    signal: Agreed
    target_maps: Mapping[str, Tensor]
    maps: bool = field(default=False, init=False)

    def apply(self, images: Tensor, rows: Tensor, keys: Sequence[str], _step: int, /) -> Tensor:
        """``images``, blurred outside the region."""
        return self.signal.region(images, {name: maps[rows] for name, maps in self.target_maps.items()}, keys)
