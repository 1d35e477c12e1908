"""Windows of an image redrawn at random: proposals of a random search (after Andriushchenko et al. 2020, Square)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WAVES = (2**0.5, 16.0)
"""Wavelengths of a window's stripes, in pixels. Flat windows, as published, move a convolutional network less: on four
photos and EfficientNet-Lite0, after 400 queries with windows of 1 % of the image, the mean of log p_t was -6.7 with
flat windows and -5.7 with stripes; it was -8.5 with NES on a 28 x 28 grid."""

LARGEST, SMALLEST = 0.1, 0.003
"""Share of the image that a proposal's window covers, at the first query and at the last."""


def share_at(part: float) -> float:
    """The share of the image that a window covers when ``part`` of the queries, from 0 to 1, are done: geometric."""
    return float(LARGEST * (SMALLEST / LARGEST) ** part)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one window, from [0, 1) each.

    Attributes:
        down, right: where it lies.
        turn, octave, phase: direction, wavelength and phase of its stripes.
        part: of the most height that stripes may have, for searches that want smaller ones too.
        signs: (C,) of the stripes in each channel, ±1.
    """

    down: float
    right: float
    turn: float
    octave: float
    phase: float
    part: float
    signs: Tensor


def draws(image: Tensor, source: torch.Generator) -> Draws:
    """Those of a window of ``image`` (C, H, W), from ``source``."""
    drawn = torch.rand(6 + image.shape[0], generator=source, dtype=torch.float64)
    down, right, turn, octave, phase, part = drawn[:6].tolist()
    return Draws(down, right, turn, octave, phase, part, signs=torch.where(drawn[6:] < 0.5, -1.0, 1.0))


def redraw(image: Tensor, benign: Tensor, drawn: Draws, *, share: float, height: float) -> None:
    """Fill a window of ``image`` (C, H, W), in place, with the pixels of ``benign`` and stripes.

    The window covers ``share`` of the image, and its stripes go up and down by ``height``.
    """
    h, w = image.shape[1:]
    side = max(1, min(h, w, round(math.sqrt(share * h * w))))
    top, left = int(drawn.down * (h - side + 1)), int(drawn.right * (w - side + 1))
    window = (slice(None), slice(top, top + side), slice(left, left + side))
    wavelength = WAVES[0] * (WAVES[1] / WAVES[0]) ** drawn.octave
    stripes = height * drawn.signs[:, None, None] * _stripes(side, drawn.turn * math.pi, wavelength, drawn.phase)
    image[window] = benign[window] + stripes.to(image)


def _stripes(side: int, angle: float, wavelength: float, phase: float) -> Tensor:
    """Stripes (side, side) of ±1 across the direction ``angle``; ``phase`` is a share of the wavelength."""
    step = torch.arange(side, dtype=torch.float64)
    along = math.cos(angle) * step[:, None] + math.sin(angle) * step[None, :]
    return torch.where((math.tau * (along / wavelength + phase)).cos() < 0, -1.0, 1.0).double()
