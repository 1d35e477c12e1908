"""The evidence for the class in the region that the maps agree on."""

from collections.abc import Mapping, Sequence
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
        logits = given.predict(self.region(given.x, self.shown(given.maps, given.x, given.keys)))
        return log_odds(logits, given.classes)[:, None]

    def transforms(self, target_maps: Mapping[str, Tensor], _seed: int) -> tuple[ImageTransform, ...]:
        """The region in which the target maps agree, for the prediction alone."""
        return (_TargetRegion(self, target_maps),)

    def shown(self, maps: Mapping[str, Tensor], like: Tensor, keys: Sequence[str]) -> Tensor:
        """Which pixels (N, H, W) of images ``like`` (N, C, H, W) are in the top fifth of the mean of ``maps``, bool.

        ``maps`` (N, h, w) are one interpreter's each, on any grid; ``keys`` name the owners of the order of ties.
        """
        mean = torch.stack([on_grid(found) for found in maps.values()]).mean(dim=0)
        size, probe = (int(like.shape[2]), int(like.shape[3])), self._probe
        found = [ranks(agreed, size, seed=probe.seed, key=key) for agreed, key in zip(mean, keys, strict=True)]
        return (torch.stack(found) < round(probe.share * size[0] * size[1])).to(like.device)

    def region(self, x: Tensor, shown: Tensor) -> Tensor:
        """Images ``x`` (N, C, H, W), blurred where they are not ``shown`` (N, H, W); differentiable."""
        sigma = self._probe.blur * min(x.shape[2:])
        away = torch.cat([blurred(image[None], sigma) for image in x])
        return torch.where(shown[:, None], x, away)


class _TargetRegion(Unmoving):
    """Images of which only the top fifth of the mean of the target maps (N, h, w) is visible."""

    def __init__(self, signal: Agreed, target_maps: Mapping[str, Tensor]) -> None:
        self._signal, self._target_maps = signal, target_maps
        self._shown: tuple[Tensor | None, Tensor] = (None, torch.zeros(0))  # the latest rows, and what of them is
        self.maps = False

    def apply(self, images: Tensor, rows: Tensor, keys: Sequence[str], _step: int, /) -> Tensor:
        """``images``, blurred outside the region."""
        if self._shown[0] is not rows:  # a loop gives the same ones, until an image leaves it
            wanted = {name: maps[rows] for name, maps in self._target_maps.items()}
            self._shown = (rows, self._signal.shown(wanted, images, keys))
        return self._signal.region(images, self._shown[1])
