"""Input transforms of an attack (EOT): at each step the classifier sees a transformed copy of the iterates.

Source: Athalye, Engstrom, Ilyas and Kwok, "Synthesizing robust adversarial examples", ICML 2018 (expectation over
transformation). An attack descends on the transformed images; directions are pulled back to the iterates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from underfire.interpreters.base import ForwardPass, MapGradient, MapObjective, Tap


@dataclass(frozen=True)
class TransformedBatch:
    """A batch of iterates as the classifier sees it at one step.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        pull_back: maps a direction (N, C, H, W) in ``images`` to one in the iterates: its product with the Jacobian.
        maps: whether the maps are attacked at this step too, or the prediction alone.
    """

    images: Tensor
    pull_back: Callable[[Tensor], Tensor]
    maps: bool = True


class Transform(Protocol):
    """The input transform of one attack; each transformed image depends on its own iterate, row and step alone."""

    def __call__(self, images: Tensor, rows: Tensor, step: int, /) -> TransformedBatch:
        """The iterates ``images`` (N, C, H, W) as the classifier sees them at ``step``, counted from 0.

        ``rows`` (N,) are their places in the attacked batch. The last iterates, after all steps, are transformed once
        more, with the number of steps as their ``step``.
        """
        ...


def identity(images: Tensor, _rows: Tensor, _step: int, /) -> TransformedBatch:
    """The iterates as they are."""
    return TransformedBatch(images, _unchanged)


def _unchanged(direction: Tensor) -> Tensor:
    return direction


class AveragedDraws:
    """One image under as many draws of noise as the batch has rows, and the mean direction of all for each row.

    Every row begins at the same image, so that all go the same way: a descent on the mean loss over the draws.

    Args:
        drawing: from an image (C, H, W) and a step to what the classifier sees of it in each draw, (N, C, H, W) in
            [0, 1]; values on the edges were cut, and have no slope.
    """

    def __init__(self, drawing: Callable[[Tensor, int], Tensor]) -> None:
        self._drawing = drawing

    def __call__(self, images: Tensor, rows: Tensor, step: int, /) -> TransformedBatch:
        """The image under fresh draws."""
        seen = self._drawing(images[0], step)[rows]
        inside = ((seen > 0) & (seen < 1)).to(seen)

        def pull_back(direction: Tensor) -> Tensor:
            return (direction * inside).mean(dim=0).expand_as(direction)

        return TransformedBatch(seen, pull_back)


class ImageTransform(Protocol):
    """One differentiable transform of images, of the several that :class:`Cycle` applies in turn."""

    @property
    def maps(self) -> bool:
        """Whether the maps of transformed images are attacked too, or their prediction alone."""
        ...

    def apply(self, images: Tensor, rows: Tensor, keys: Sequence[str], step: int, /) -> Tensor:
        """``images`` (N, C, H, W) at the batch's ``rows`` (N,), named by ``keys``, transformed; differentiable."""
        ...

    def carry(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        """Target ``maps`` (N, h, w) of images of ``size`` (H, W), moved as the transform moves the images."""
        ...


class Cycle:
    """Applies several transforms in turn, one per step, the untransformed images first.

    Args:
        transforms: the others.
        keys: one name per image of the attacked batch.

    Attributes:
        current: the place of the latest step's transform in the cycle, 0 for none.
    """

    def __init__(self, transforms: Sequence[ImageTransform], keys: tuple[str, ...]) -> None:
        self._transforms, self._keys = tuple(transforms), keys
        self.current = 0
        self._named: tuple[Tensor | None, list[str]] = (None, [])  # the latest rows, and their keys

    def __call__(self, images: Tensor, rows: Tensor, step: int, /) -> TransformedBatch:
        """The iterates under the transform whose turn ``step`` is."""
        self.current = step % (1 + len(self._transforms))
        if self.current == 0:
            return identity(images, rows, step)
        transform, leaf = self._transforms[self.current - 1], images.detach().requires_grad_()
        with torch.enable_grad():
            transformed = transform.apply(leaf, rows, self._keys_of(rows), step)

        def pull_back(direction: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(transformed, leaf, direction)
            return pulled

        return TransformedBatch(transformed.detach(), pull_back, maps=transform.maps)

    def _keys_of(self, rows: Tensor) -> list[str]:
        if self._named[0] is not rows:  # a loop gives the same ones, until an image leaves it
            self._named = (rows, [self._keys[row] for row in rows.tolist()])
        return self._named[1]

    def target_maps(self, maps: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The target ``maps`` (N, h, w) of images of ``size`` under each transform that attacks maps.

        These come first in the cycle, so that places in the list are places in the cycle.
        """
        return [maps, *(transform.carry(maps, size) for transform in self._transforms if transform.maps)]


class CycledObjective:
    """The objective of one interpreter under a :class:`Cycle`: each transform has its own target map.

    Args:
        cycle: of the attack.
        objectives: one for each of ``cycle.target_maps``.
    """

    def __init__(self, cycle: Cycle, objectives: Sequence[MapObjective]) -> None:
        self._cycle, self._objectives = cycle, tuple(objectives)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Those of any of its objectives: they differ in the target map alone."""
        return self._objectives[0].taps

    @property
    def needs_backward(self) -> bool:
        """As any of its objectives."""
        return self._objectives[0].needs_backward

    def __call__(self, view: ForwardPass) -> MapGradient:
        """Loss and direction towards the target map of the current transform."""
        return self._objectives[self._cycle.current](view)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only, in every objective."""
        for objective in self._objectives:
            objective.select(places)
