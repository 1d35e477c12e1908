"""What an attack looks at in place of its own iterate, at one step: the image as somebody else will see it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Glimpse:
    """What is shown of a batch of iterates at one step.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        back: a direction (N, C, H, W) in ``images`` as one in the iterates: its product with the Jacobian.
        maps: whether the maps are looked at too, or the prediction alone.
    """

    images: Tensor
    back: Callable[[Tensor], Tensor]
    maps: bool = True


class Lens(Protocol):
    """Shows the iterates of one attack; what it shows of an image depends on that image, its row and the step alone."""

    def __call__(self, images: Tensor, rows: Tensor, step: int) -> Glimpse:
        """What is shown at ``step``, counted from 0, of ``images`` (N, C, H, W).

        ``rows`` (N,) are their places in the attacked batch. The look at the last iterates, after all steps, has the
        number of steps for its own.
        """
        ...


def bare(images: Tensor, rows: Tensor, step: int) -> Glimpse:  # noqa: ARG001 - whatever they are
    """The iterates as they are."""
    return Glimpse(images, _unchanged)


def _unchanged(direction: Tensor) -> Tensor:
    return direction
