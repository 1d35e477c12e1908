"""How numbers come to a GPU, and are asked of it, without a wait.

A copy from the host's ordinary memory, and every question about a value, waits until all is done that was asked of the
device before; and it has nothing to do meanwhile.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ANSWERING = frozenset({"cpu"})
"""The kinds of devices of which a value can be asked at no cost."""


def filled(numbers: Sequence[float], like: Tensor) -> Tensor:
    """The ``numbers`` (n,) in the type of ``like`` and where that is: each is filled in there, and none is copied."""
    parts = [torch.full((1,), number, dtype=like.dtype, device=like.device) for number in numbers]
    return torch.cat(parts)


def sent(values: Tensor, like: Tensor) -> Tensor:
    """The ``values``, which the host made, in the type of ``like`` and where that is."""
    values = values.to(like.dtype)
    return (values.pin_memory() if like.is_cuda else values).to(like.device, non_blocking=not like.is_mps)


def may(where: Tensor) -> bool:
    """Whether ``where`` (bool) may be true anywhere: it is said of a device that would have to be waited for."""
    return where.device.type not in ANSWERING or bool(where.any())
