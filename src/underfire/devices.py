"""Numbers to and from a GPU without synchronising.

A copy from pageable memory and every read of a value (``item``, ``bool``, ``nonzero``) wait until the device has done
all that it was given, and leave it idle.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SYNCHRONOUS = frozenset({"cpu"})
"""The kinds of devices that have finished when a call returns, so that reading a value costs nothing."""


def filled(numbers: Sequence[float], like: Tensor) -> Tensor:
    """The ``numbers`` (n,) in the type of ``like`` and where that is: each is filled in there, and none is copied."""
    parts = [torch.full((1,), number, dtype=like.dtype, device=like.device) for number in numbers]
    return torch.cat(parts)


def sent(values: Tensor, like: Tensor) -> Tensor:
    """The ``values``, which the host made, in the type of ``like`` and where that is."""
    values = values.to(like.dtype)
    return (values.pin_memory() if like.is_cuda else values).to(like.device, non_blocking=not like.is_mps)


def maybe_any(where: Tensor) -> bool:
    """False where nothing of ``where`` (bool) is true; on a device that would have to be waited for always True."""
    return where.device.type not in SYNCHRONOUS or bool(where.any())
