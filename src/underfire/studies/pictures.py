"""Saved images as a classifier takes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from underfire.images import read_png
from underfire.images.levels import from_8bit


def opened(paths: Sequence[Path], dtype: torch.dtype) -> Tensor:
    """The 8-bit PNGs at ``paths``, of one size, as (N, 3, H, W) in [0, 1]; raises `InputError` if one is damaged."""
    # Back to whole numbers first: a multiple of 1/255 in float32 is not the one in float64.
    return from_8bit(torch.stack([torch.round(read_png(path) * 255) for path in paths]), dtype)
