"""The ways in which the attacker who knows a detector looks at an image: as the detector does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.squeezing import Squeezer, SqueezingSignals
from underfire.defenses.views import View
from underfire.seeding import derive_seed


class Look(Protocol):
    """One way of looking at the iterates."""

    @property
    def maps(self) -> bool:
        """Whether the maps are looked at too, or the prediction alone."""
        ...

    def shown(self, images: Tensor, rows: Tensor, keys: Sequence[str], step: int) -> Tensor:
        """``images`` (N, C, H, W), of the batch's ``rows``, as they are seen at ``step``; differentiable in them."""
        ...

    def carried(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Target ``maps`` (N, h, w) of images of ``size``, moved as the image is."""
        ...


@dataclass(frozen=True)
class Bare:
    """The iterates as they are."""

    maps = True

    def shown(self, images: Tensor, rows: Tensor, keys: Sequence[str], step: int) -> Tensor:  # noqa: ARG002
        """``images``."""
        return images

    def carried(self, maps: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ARG002
        """``maps``."""
        return maps


@dataclass(frozen=True)
class Viewed(Bare):
    """The iterates in a view of the detector; its noise belongs to the image, the attack's seed and the step."""

    view: View
    seed: int

    def shown(self, images: Tensor, rows: Tensor, keys: Sequence[str], step: int) -> Tensor:  # noqa: ARG002
        """The view of ``images``."""
        return self.view.seen(images, [str(derive_seed(self.seed, key, "view", step)) for key in keys])

    def carried(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """``maps`` as the view moves them."""
        return self.view.carried(maps, size)


@dataclass(frozen=True)
class Agreed(Bare):
    """The region in which the target ``goals`` (N, h, w), by interpreter's name, agree."""

    signals: EnsembleSignals
    goals: Mapping[str, Tensor]
    maps = False

    def shown(self, images: Tensor, rows: Tensor, keys: Sequence[str], step: int) -> Tensor:  # noqa: ARG002
        """``images``, blurred elsewhere."""
        return self.signals.agreed(images, {name: found[rows] for name, found in self.goals.items()}, keys)


@dataclass(frozen=True)
class Squeezed(Bare):
    """The iterates as a squeezer leaves them; a direction goes back through it unchanged."""

    squeezer: Squeezer
    maps = False

    def shown(self, images: Tensor, rows: Tensor, keys: Sequence[str], step: int) -> Tensor:  # noqa: ARG002
        """``images``, squeezed."""
        with torch.no_grad():
            moved = self.squeezer(images).clamp(0, 1) - images
        return images + moved


def looks_of(signals: EnsembleSignals | SqueezingSignals, goals: Mapping[str, Tensor], seed: int) -> tuple[Look, ...]:
    """All ways to look at what ``signals`` measure, those at maps first, the image as it is before all.

    Args:
        signals: of the detector.
        goals: target maps (N, h, w) by interpreter's name.
        seed: of the attack, which draws the noise of its views.
    """
    if isinstance(signals, SqueezingSignals):
        return (Bare(), *map(Squeezed, signals.squeezers))
    views = [Viewed(view, seed) for view in signals.views]
    return (Bare(), *views, *([Agreed(signals, goals)] if signals.groups.agreed else []))
