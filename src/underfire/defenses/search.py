"""A search by a detector's score alone: no gradient leads to its ranks and kept labels, but it can be asked.

It begins where an attack with gradients has ended. Sources: the proposals are those of Andriushchenko et al., "Square
Attack", ECCV 2020; that attackers who ask a defence must be tried, Carlini et al., "On evaluating adversarial
robustness", 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole
from underfire.attacks.perturbations import Linf
from underfire.attacks.windows import draws, redraw, share_at
from underfire.defenses.detector import Detector
from underfire.defenses.signals import Signals
from underfire.errors import InputError, NonFiniteError
from underfire.images.levels import from_8bit
from underfire.seeding import generator, owners

PASSES = 1000
"""Passes for an image whose attacker names none."""

_LEVEL = 1e-2  # of a grey level: float32 holds multiples of 1/255 far better


@dataclass(frozen=True)
class Searched:
    """What a search made of N images.

    Attributes:
        x_adv: (N, C, H, W) in [0, 1], in whole grey levels.
        scores: (N,) of the detector, float64 on the CPU.
        passes: (N,) forward and backward, int64 on the CPU.
    """

    x_adv: Tensor
    scores: Tensor
    passes: Tensor


class ScoreSearch:
    """Changes attacked images that a detector flags, by chance, and keeps what the detector finds less suspect.

    A query asks for the score of one image. Each proposes to fill a window of the best image so far with the benign
    pixels and stripes of a random height up to eps, and is taken if the target label holds and the score rises. An
    image that is not flagged, or has not the target label, asks no more.

    Args:
        detector: a fitted one.
        eps: L∞ budget around the benign image, in pixel values of [0, 1]; whole grey levels are within it.
        passes: how many forward and backward passes an image may cost; a query counts as the detector's
            ``passes_per_image``.
        seed: of the proposals, which belong to (seed, key of the image).

    Raises:
        InputError: the detector is not fitted, a number is out of range, or the passes don't pay for two queries.
    """

    def __init__(self, detector: Detector, *, eps: float = Linf.eps, passes: int = PASSES, seed: int = 0) -> None:
        detector.check_fitted()
        self.detector, self.perturbation, self.seed = detector, Linf(eps), seed
        self.queries = queries_for(passes, detector.signals)

    def __call__(self, x: Tensor, x_adv: Tensor, target: Tensor, *, keys: Sequence[str] | None = None) -> Searched:
        """Search on from ``x_adv`` (N, C, H, W), which an attack made of benign ``x`` for the classes ``target`` (N,).

        ``keys`` names the owner of each image's random numbers; by default the content of its benign image.

        Raises:
            InputError: the tensors don't fit the classifier or each other, ``x`` is not in whole grey levels, or
                ``x_adv`` is outside the budget.
            NonFiniteError: a signal is not a number.
        """
        classifier = self.detector.signals.classifier
        for images in (x, x_adv):
            classifier.check_images(images)
        classifier.check_classes(target, x.shape[0])
        if x.shape != x_adv.shape:
            raise InputError(f"{len(x_adv)} attacked images for {len(x)} benign ones; give one for each.")
        if not torch.allclose(x * 255, (x * 255).round(), rtol=0, atol=_LEVEL):
            raise InputError("a benign image is not in whole grey levels; give images as they are saved in 8 bit.")
        if not bool(self.perturbation.contains(x, x_adv).all()):
            raise InputError(f"an attacked image is not within {self.perturbation.eps:g} of its benign one.")
        sources = [generator(self.seed, key, "score search") for key in owners(x, keys)]
        price = self.detector.signals.passes_per_image
        best = self._whole(x, x_adv.detach())
        scores, holds = self._ask(best, target)
        passes = torch.full((x.shape[0],), price)
        threshold = self.detector.threshold_
        for query in range(1, self.queries):
            rows = ((scores < threshold) & holds).nonzero()[:, 0]
            if not len(rows):
                break
            there = rows.to(x.device)
            found = self._proposals(x[there], best[there], [sources[row] for row in rows.tolist()], query)
            try:
                score, held = self._ask(found, target[there])
            except NonFiniteError as error:
                raise NonFiniteError(error.what, int(rows[error.index])) from error
            passes[rows] += price
            better = held & (score > scores[rows])
            best[there[better.to(x.device)]] = found[better.to(x.device)]
            scores[rows[better]] = score[better]
        return Searched(best, scores, passes)

    def _ask(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The scores (n,) of ``images``, and whether the label holds, on the CPU."""
        with torch.no_grad():
            holds = self.detector.signals.classifier(images).argmax(dim=1) == target
        return self.detector.score_samples(images), holds.cpu()

    def _proposals(self, x: Tensor, best: Tensor, sources: Sequence[torch.Generator], query: int) -> Tensor:
        """The ``best`` images with one window each drawn anew, in whole grey levels."""
        images, share = best.clone(), share_at(query / self.queries)
        for image, own, source in zip(images, x, sources, strict=True):
            drawn = draws(image, source)
            redraw(image, own, drawn, share=share, height=self.perturbation.eps * drawn.part)
        return self._whole(x, self.perturbation.project(x, images))

    def _whole(self, x: Tensor, images: Tensor) -> Tensor:
        """``images`` as they would be saved."""
        return from_8bit(self.perturbation.rounded(x, images), x.dtype)


def queries_for(passes: int, signals: Signals) -> int:
    """How often ``passes`` pay for the score of an image, of a detector with these ``signals``.

    Raises:
        InputError: they are no whole number, or don't pay for two queries.
    """
    check_whole("passes", passes)
    price = signals.passes_per_image
    if passes < 2 * price:
        raise InputError(f"passes is {passes}; a search takes two queries of {price} at least.")
    return passes // price
