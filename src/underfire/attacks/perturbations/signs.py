"""Random signs, the same for an image whatever its batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def random_signs(x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """±1 for every value of ``x`` (N, C, H, W), those of each image from its own of the ``draws`` (on the CPU)."""
    return torch.stack([torch.randint(2, x.shape[1:], generator=draw) * 2 - 1 for draw in draws]).to(x)
