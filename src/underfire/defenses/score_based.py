"""A score-based black-box attack on a detector: its ranks and kept labels have no gradient, but it can be queried.

It starts where an attack with gradients has ended. Sources: the proposals are those of Andriushchenko et al., "Square
Attack", ECCV 2020; that a defence must be attacked through its scores as well, Carlini et al., "On evaluating
adversarial robustness", 2019.
"""

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole
from underfire.attacks.engine import Outcome
from underfire.attacks.joint import JointAttack
from underfire.attacks.perturbations import Linf
from underfire.attacks.scored import score
from underfire.attacks.trace import Course, Trace
from underfire.attacks.windows import draws, redraw, share_at
from underfire.defenses.detector import Detector
from underfire.defenses.detector_attack import DetectorAttackResult, ScoredImages
from underfire.defenses.evaluator import renumbered
from underfire.defenses.signals import Signals
from underfire.errors import InputError
from underfire.images.png import from_8bit
from underfire.interpreters.base import Interpreter
from underfire.seeding import generator

PASSES = 1000
"""Passes for an image, where the caller gives none."""

_LEVEL = 1e-2  # of a grey level: float32 holds multiples of 1/255 far better


class ScoreSearch(JointAttack):
    """Changes attacked images that a detector flags, at random, and keeps changes that raise the detector's score.

    A query is the score of one image. Each proposes to fill a window of the best image so far with the benign pixels
    and stripes of a random height up to eps, and is accepted if the target label is kept and the score rises. An image
    that is not flagged, or has not the target label, takes no further query. All images are in whole grey levels.

    Args:
        detector: a fitted one.
        start: (N, C, H, W) in [0, 1], the images to start from, one for each benign image of the call and within the
            budget around it, as an attack made them for the same target; by default the benign ones.
        eps: L∞ budget around the benign image, in pixel values of [0, 1]; whole grey levels are within it.
        passes: how many forward and backward passes an image may cost; a query counts as the detector's
            ``passes_per_image``.
        seed: of the proposals, which belong to (seed, key of the image).

    Raises:
        InputError: the detector is not fitted, a number is out of range, or the passes don't pay for two queries.
    """

    name: ClassVar[str] = "score-based"
    version: ClassVar[int] = 1

    def __init__(
        self,
        detector: Detector,
        *,
        start: Tensor | None = None,
        eps: float = Linf.eps,
        passes: int = PASSES,
        seed: int = 0,
    ) -> None:
        detector.check_fitted()
        super().__init__(detector.signals.classifier, (), seed=seed)
        self.detector, self.start, self.perturbation = detector, start, Linf(eps)
        self.queries = queries_for(passes, detector.signals)

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> DetectorAttackResult:
        """Search on a checked batch, and score what is found.

        Raises:
            InputError: ``x`` is not in whole grey levels, or the images to start from don't fit it or the budget.
            NonFiniteError: a signal is not a number.
        """
        started = time.perf_counter()
        if not torch.allclose(x * 255, (x * 255).round(), rtol=0, atol=_LEVEL):
            raise InputError("a benign image is not in whole grey levels; give images as they are saved in 8 bit.")
        begun = self._checked_start(x)
        x = self._whole(x, x)
        best = ScoredImages.of(self.detector, self._whole(x, begun), target)
        queries = torch.ones(len(x), dtype=torch.int64)
        first, half = best.losses.clone(), best.losses
        sources = [generator(self.seed, key, "score search") for key in keys]
        for query in range(1, self.queries):
            if query == (self.queries + 1) // 2:
                half = best.losses.clone()
            rows = ((best.scores < self.detector.threshold_) & best.reached).nonzero()[:, 0]
            if not len(rows):
                break
            there = rows.to(x.device)
            proposed = self._proposals(x[there], best.images[there], [sources[row] for row in rows.tolist()], query)
            with renumbered(rows.tolist()):
                _accept(best, ScoredImages.of(self.detector, proposed, target[there]), rows)
            queries[rows] += 1
        trace = Trace(torch.zeros_like(first), Course(first, half, best.losses), None)
        used = self.perturbation.size(x, best.images)
        result = score(
            self.name,
            self.classifier,
            x,
            target,
            goals,
            Outcome(best.images, used, queries * self.detector.signals.passes_per_image, trace),
            perturbation=self.perturbation,
            steps=self.queries,
            keys=keys,
            started=started,
        )
        return DetectorAttackResult.of(result, self.detector, best.scores)

    def _checked_start(self, x: Tensor) -> Tensor:
        """The images (N, C, H, W) to start from."""
        if self.start is None:
            return x
        self.classifier.check_images(self.start)
        if x.shape != self.start.shape:
            raise InputError(f"{len(self.start)} images to start from for {len(x)} benign ones; give one for each.")
        if not bool(self.perturbation.contains(x, self.start).all()):
            raise InputError(f"an image to start from is not within {self.perturbation.eps:g} of its benign one.")
        return self.start.detach()

    def _proposals(self, x: Tensor, best: Tensor, sources: Sequence[torch.Generator], query: int) -> Tensor:
        """The ``best`` images with one window each redrawn, in whole grey levels."""
        images, share = best.clone(), share_at(query / self.queries)
        for image, own, source in zip(images, x, sources, strict=True):
            drawn = draws(image, source)
            redraw(image, own, drawn, share=share, height=self.perturbation.eps * drawn.part)
        return self._whole(x, self.perturbation.project(x, images))

    def _whole(self, x: Tensor, images: Tensor) -> Tensor:
        """``images`` as they would be saved."""
        return from_8bit(self.perturbation.rounded(x, images), x.dtype)


def _accept(best: ScoredImages, found: ScoredImages, rows: Tensor) -> None:
    """Put into ``best``, at its ``rows``, the images ``found`` that have the label and a higher score."""
    better = found.reached & (found.scores > best.scores[rows])
    there, chosen = rows[better].to(best.images.device), better.to(best.images.device)
    best.images[there] = found.images[chosen]
    best.losses[there] = found.losses[chosen]
    best.scores[rows[better]] = found.scores[better]


def queries_for(passes: int, signals: Signals) -> int:
    """How many scores of an image ``passes`` pay for, of a detector with these ``signals``.

    Raises:
        InputError: they are no whole number, or don't pay for two queries.
    """
    check_whole("passes", passes)
    price = signals.passes_per_image
    if passes < 2 * price:
        raise InputError(f"passes is {passes}; a search takes two queries of {price} at least.")
    return passes // price
