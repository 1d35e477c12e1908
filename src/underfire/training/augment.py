"""Random views of a photo, and what fills the place of a part that is taken away.

All randomness belongs to the photo and the epoch, never to the batch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.training.plan import TrainingPlan

_ASPECTS = (3 / 4, 4 / 3)
_BLUR = 16  # side in pixels of the cells whose means make the blurred image
_NOISE = 0.2  # standard deviation of the noise on a random colour


def random_view(photo: Tensor, size: tuple[int, int], draw: torch.Generator, plan: TrainingPlan) -> Tensor:
    """A random crop of ``photo`` (C, H, W) in [0, 1], resized to ``size``, mirrored or not, brighter or darker."""
    height, width = photo.shape[1:]
    share, aspect, down, right, mirror, bright = (float(value) for value in torch.rand(6, generator=draw))
    area = height * width * (plan.smallest_crop + share * (1 - plan.smallest_crop))
    ratio = math.exp(math.log(_ASPECTS[0]) + aspect * math.log(_ASPECTS[1] / _ASPECTS[0])) * width / height
    h = min(height, max(1, round(math.sqrt(area / ratio))))
    w = min(width, max(1, round(math.sqrt(area * ratio))))
    top, left = int(down * (height - h + 1)), int(right * (width - w + 1))
    crop = photo[None, :, top : top + h, left : left + w]
    view = F.interpolate(crop, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    view = view.flip(-1) if mirror < 0.5 else view
    return (view * (1 + plan.brightness * (2 * bright - 1))).clamp(0, 1)


def random_fill(x: Tensor, draw: torch.Generator) -> Tensor:
    """What a part of image ``x`` (C, H, W) is replaced by: the blurred image, or a random colour with noise."""
    kind = float(torch.rand((), generator=draw))
    if kind < 0.5:
        return blurred(x[None])[0]
    colour = torch.rand((x.shape[0], 1, 1), generator=draw)
    noise = torch.randn(x.shape, generator=draw) * _NOISE
    return (colour + noise).clamp(0, 1).to(x)


def blurred(x: Tensor) -> Tensor:
    """Images ``x`` (N, C, H, W) with all detail below some 16 pixels gone."""
    height, width = x.shape[2:]
    cells = (max(1, height // _BLUR), max(1, width // _BLUR))
    return F.interpolate(F.adaptive_avg_pool2d(x, cells), size=(height, width), mode="bilinear", align_corners=False)
