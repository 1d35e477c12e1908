"""Cells of a fixed class's map that no small change moves in or out of its top.

Source: Anani, Lorenz, Fritz and Schiele, "Pixel-level certified explanations via randomized smoothing", ICML 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import special, stats
from torch import Tensor

from underfire import metrics
from underfire.attacks.budget import check_number, check_whole
from underfire.certificates.bounds import check_alpha
from underfire.certificates.certification import ALPHA, SIGMA, image_named
from underfire.certificates.noise import SeededNoise
from underfire.certificates.system import BATCH, Denoiser, NoisySystem
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.interpreters.map_goals import TOP
from underfire.models.frozen import detached, ordinary
from underfire.seeding import owners


@dataclass(frozen=True)
class CellCertificate:
    """Which cells are surely among the top ones of a class's map, whichever class is predicted, and which are not.

    The system shows the cells that are among the top ones of a draw with a chance of more than one half. Within
    ``radius`` of a photo these are all of ``sure_in`` and none of ``sure_out``, with a confidence of 1 − α for all of
    the photo's cells together.

    Attributes:
        radius: L2 distance in pixel values, σΦ⁻¹(τ).
        sure_in: (N, h, w) bool.
        sure_out: (N, h, w) bool.
        benign: (N, h, w) bool, the top cells of the photo's own map, without noise.
    """

    radius: float
    sure_in: Tensor
    sure_out: Tensor
    benign: Tensor

    @property
    def free(self) -> Tensor:
        """(N, h, w) bool: cells of which neither is sure."""
        return ~(self.sure_in | self.sure_out)

    @property
    def iou(self) -> Tensor:
        """(N,) float64, the least IoU that the shown set can have with ``benign`` within the radius."""
        possible = (self.benign | ~self.sure_out).sum(dim=(1, 2))
        certain = (self.benign & self.sure_in).sum(dim=(1, 2)).double()
        return (certain / possible.clamp(min=1)).where(possible > 0, 1.0)


def certify_cells(
    interpreter: Interpreter,
    x: Tensor,
    y: Tensor,
    *,
    sigma: float = SIGMA,
    samples: int = 100,
    selection: int = 10,
    tau: float = 0.75,
    top: float = TOP,
    alpha: float = ALPHA,
    denoise: Denoiser | None = None,
    seed: int = 0,
    keys: Sequence[str] | None = None,
    batch_size: int = BATCH,
) -> CellCertificate:
    """Certify the top cells of the maps of images ``x`` (N, C, H, W) in [0, 1] for given classes ``y`` (N,), int64.

    The class is fixed, so this says nothing of attacks that change the prediction; `certify` does.

    Args:
        interpreter: as for `certify`.
        x: images.
        y: the classes that the maps explain.
        sigma: σ, the standard deviation of the noise in pixel values.
        samples: draws that count, n.
        selection: draws before these, which guess of each cell whether it is in or out.
        tau: the share τ of draws, in (0.5, 1), that must agree with the guess; the larger, the longer the radius and
            the fewer the cells.
        top: share of the cells, in (0, 1], that are a map's top.
        alpha: the chance, for each image, that a cell is wrong; shared evenly by its cells.
        denoise, seed, keys, batch_size: as for `certify`.

    Raises:
        InputError: something doesn't fit, a number is out of range, or draws would depend on each other.
        NonFiniteError: a map contains NaN or infinity.
    """
    system = NoisySystem(interpreter, sigma, denoise, batch_size)
    _check_numbers(samples, selection, tau, top, alpha)
    names = owners(x, keys) if isinstance(x, Tensor) else ()
    benign = metrics.top_cells(interpreter(x, y, keys=names), top)
    sure_in, sure_out = torch.zeros_like(benign), torch.zeros_like(benign)
    with ordinary(), system.classifier.frozen():
        for i, name in enumerate(names):
            with image_named(i):
                if not i:
                    system.check_rows(detached(x)[i], SeededNoise(seed, name))
                chosen = _count_tops(system, detached(x)[i], y[i], SeededNoise(seed, name, "cells"), selection, top)
                counts = _count_tops(system, detached(x)[i], y[i], SeededNoise(seed, name), samples, top)
            inside, sure = decide_cells(chosen, selection, counts, samples, tau=tau, alpha=alpha)
            sure_in[i], sure_out[i] = inside & sure, ~inside & sure
    return CellCertificate(sigma * float(special.ndtri(tau)), sure_in, sure_out, benign)


def decide_cells(
    chosen: Tensor, selection: int, counts: Tensor, samples: int, *, tau: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Whether cells (h, w) are taken for inside, and whether that is sure.

    They are where they were ``chosen`` (h, w) in more than half of the first draws. It is sure where the counting draws
    would agree as often with a probability of at most α over the number of cells if a draw agreed with probability τ.

    Args:
        chosen: in how many of ``selection`` draws a cell was inside.
        selection: how many there were.
        counts: in how many of ``samples`` others.
        samples: how many there were.
        tau, alpha: see above.
    """
    inside = 2 * chosen > selection
    agreeing = torch.where(inside, counts, samples - counts).cpu().numpy()
    chance = stats.binom.sf(agreeing - 1, samples, tau)
    return inside, torch.as_tensor(chance <= alpha / counts.numel()).to(inside.device)


def _count_tops(system: NoisySystem, x: Tensor, label: Tensor, source: SeededNoise, draws: int, top: float) -> Tensor:
    """In how many draws each cell (h, w) is among the top ones of the map for ``label``."""
    total = torch.zeros(system.interpreter.grid, dtype=torch.int64, device=x.device)
    for maps in system.maps_of(label, x, source, range(draws)):
        total += metrics.top_cells(maps, top).sum(dim=0)
    return total


def _check_numbers(samples: int, selection: int, tau: float, top: float, alpha: float) -> None:
    for what, number in (("samples", samples), ("selection", selection)):
        check_whole(what, number)
        if number < 1:
            raise InputError(f"{what} is {number}; give at least 1 draw.")
    for what, share in (("tau", tau), ("top", top)):
        check_number(what, share)
    if not 0.5 < tau < 1:
        raise InputError(f"tau is {tau!r}; give the share of draws that must agree, above 0.5 and below 1.")
    if not 0 < top <= 1:
        raise InputError(f"top is {top!r}; give the share of cells that are a map's top, above 0 and up to 1.")
    check_alpha(alpha)
