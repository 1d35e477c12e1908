"""Maps to be scored side by side: those of interpreters, and controls that know nothing of the classifier."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from underfire import Classifier
from underfire.auditing.names import make_interpreters
from underfire.seeding import generator

Maps = Callable[[Tensor, Tensor, Sequence[str]], Tensor]
"""Maps (N, h, w) of images (N, C, H, W) for classes (N,), given the images' names."""

GRIDS = (7, 56)
"""Sides of the random maps, the coarsest and the finest of the interpreters': grain matters to what is measured."""

_CENTRE = 56  # side of the centre map
_WIDTH = 0.25  # its standard deviation, as a share of the side


def contenders(classifier: Classifier, interpreters: Sequence[str], *, rts: str | None = None) -> dict[str, Maps]:
    """The named interpreters, RTS with the weights in the file ``rts``, then the controls, by name.

    Raises:
        InputError: a name is unknown, or the classifier or the weights are not suited.
    """
    makers = make_interpreters(interpreters, classifier, rts=rts)
    made: dict[str, Maps] = {i.name: partial(_explained, i) for i in makers}
    return made | {f"random {side}×{side}": partial(_random, side) for side in GRIDS} | {"centre": _centre}


def _explained(interpreter: Callable[..., Tensor], x: Tensor, y: Tensor, names: Sequence[str]) -> Tensor:
    return interpreter(x, y, keys=names)


def _random(side: int, _x: Tensor, _y: Tensor, names: Sequence[str]) -> Tensor:
    return torch.stack([torch.rand(side, side, generator=generator(0, name, "random map", side)) for name in names])


def _centre(x: Tensor, _y: Tensor, _names: Sequence[str]) -> Tensor:
    place = (torch.arange(_CENTRE) - (_CENTRE - 1) / 2) / (_WIDTH * _CENTRE)
    bell = torch.exp(-0.5 * (place[:, None] ** 2 + place**2))
    return bell.expand(len(x), _CENTRE, _CENTRE)
