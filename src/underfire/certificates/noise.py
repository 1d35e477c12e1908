"""Gaussian noise on images: from a seed for certificates and audits, from the operating system for deployed systems."""

import math
import os
import secrets
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from underfire.attacks.budget import check_number
from underfire.errors import InputError
from underfire.seeding import generator

LEVELS = 4096
"""Noisy values are rounded to multiples of one by so many, before anything else sees them.

A classifier could tell from the last bits of a sum of floating-point numbers what was added to what, and the theorem is
of real numbers. Formed in float64 and rounded so coarsely, an image of 224×224×3 sums differs from the exact one with a
probability below 1e-5, as long as σ is at most `MOST_SIGMA` (``docs/explanation/certificates.md``).
"""

MOST_SIGMA = 1.0
"""Of pixel values from 0 to 1: up to here the rounding to `LEVELS` is proven to be harmless."""

_BITS = 53  # of a uniform number in float64


class NoiseSource(Protocol):
    """Where the randomness of an image's draws comes from."""

    def uniform(self, draw: int, count: int) -> Tensor:
        """So many float64 numbers, uniform in [0, 1), of the draw of that number; independent of all other draws."""
        ...

    def key(self, draw: int) -> str:
        """The owner of the interpreter's own random numbers in that draw."""
        ...


@dataclass(frozen=True)
class SeededNoise:
    """Draws that belong to a seed, to an owner (an image), and to a purpose; the same whatever the batch.

    Whoever can compute them knows what the system shows: they are for certificates, audits and tests.
    """

    seed: int
    owner: str
    purpose: str = "certificate"

    def uniform(self, draw: int, count: int) -> Tensor:
        """As the protocol says."""
        source = generator(self.seed, self.owner, self.purpose, draw)
        return torch.rand(count, generator=source, dtype=torch.float64)

    def key(self, draw: int) -> str:
        """As the protocol says; another one for each draw, so that nothing of the interpreter's is used twice."""
        return f"{self.owner} {self.purpose} {draw}"


@dataclass(frozen=True)
class HeldNoise:
    """Frozen noise: the first draw of a source in place of each."""

    source: NoiseSource

    def uniform(self, draw: int, count: int) -> Tensor:  # noqa: ARG002 - all are one
        """As the protocol says."""
        return self.source.uniform(0, count)

    def key(self, draw: int) -> str:  # noqa: ARG002
        """As the protocol says."""
        return self.source.key(0)


@dataclass(frozen=True)
class SystemNoise:
    """Fresh draws from the operating system's generator, which no attacker can compute and no call repeats."""

    def uniform(self, draw: int, count: int) -> Tensor:  # noqa: ARG002 - every call is another draw
        """As the protocol says."""
        bits = np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(64 - _BITS)
        return torch.from_numpy(bits.astype(np.float64) / 2.0**_BITS)

    def key(self, draw: int) -> str:  # noqa: ARG002
        """As the protocol says."""
        return secrets.token_hex(16)


def check_sigma(sigma: float) -> None:
    """Refuses, with an `InputError`, what is no standard deviation of noise in pixel values."""
    check_number("sigma", sigma)
    if not 1 / LEVELS <= sigma <= MOST_SIGMA:
        raise InputError(
            f"sigma is {sigma!r}; give the standard deviation of the noise, in pixel values from 1/{LEVELS} to "
            f"{MOST_SIGMA:g}."
        )


def normal(source: NoiseSource, draw: int, shape: torch.Size) -> Tensor:
    """Independent standard normal numbers of that ``shape`` in float64, by the method of Box and Muller (1958)."""
    count = shape.numel()
    half = (count + 1) // 2
    first, second = source.uniform(draw, 2 * half).split(half)
    length, angle = (-2 * torch.log1p(-first)).sqrt(), math.tau * second
    return torch.cat([length * angle.cos(), length * angle.sin()])[:count].reshape(shape)


def noisy(x: Tensor, sigma: float, source: NoiseSource, draw: int) -> Tensor:
    """The image ``x`` (C, H, W) with noise of standard deviation ``sigma``, on the grid of `LEVELS`; not cut to [0, 1].

    In the type of ``x``, and where that is.
    """
    z = x.detach().to("cpu", torch.float64) + sigma * normal(source, draw, x.shape)
    return ((z * LEVELS).round() / LEVELS).to(x)
