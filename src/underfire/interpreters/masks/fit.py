"""The fit of deletion masks: Adam on the objective, a batch at a time, each image with its own jitter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from underfire.interpreters.base import ForwardPass
from underfire.interpreters.masks.optics import Crops, Optics
from underfire.interpreters.masks.settings import MaskFit
from underfire.models.classifier import Classifier
from underfire.seeding import generator

_FIRST, _SECOND, _STABILITY = 0.9, 0.999, 1e-8  # Adam's


@dataclass(frozen=True)
class Composites:
    """One look at the composites of masks: log p_c (N,) and its gradient in them (N, C, H, W); detached."""

    log_probability: Tensor
    gradient: Tensor


def look(classifier: Classifier, optics: Optics, crops: Crops, masks: Tensor, classes: Tensor) -> Composites:
    """Log p_c of the composites and its gradient, in one pass; inside ``classifier.frozen()``."""
    view = ForwardPass(classifier, optics.composite(crops, masks))
    nll = view.nll(classes)
    return Composites(-nll.detach(), -view.gradient(nll, last=True))


def penalty(fit: MaskFit, masks: Tensor) -> tuple[Tensor, Tensor]:
    """What ``masks`` (N, h, w) pay for their shape, sparsity·Σ|1 − m| + smoothness·TV₃: (N,), and its gradient."""
    down, right = masks[:, 1:, :-1] - masks[:, :-1, :-1], masks[:, :-1, 1:] - masks[:, :-1, :-1]
    squared = down.square() + right.square() + 1e-8
    value = fit.sparsity * (1 - masks).abs().sum(dim=(1, 2)) + fit.smoothness * squared.pow(1.5).sum(dim=(1, 2))
    slope = -fit.sparsity * (1 - masks).sign()
    along, across = (3 * fit.smoothness * squared.sqrt() * step for step in (down, right))
    slope[:, 1:, :-1] += along
    slope[:, :-1, 1:] += across
    slope[:, :-1, :-1] -= along + across
    return value, slope


@dataclass
class FitCourse:
    """Masks (N, h, w) on their way, with Adam's memory; ``done`` counts the steps taken."""

    masks: Tensor
    mean: Tensor
    square: Tensor
    done: int = 0

    @classmethod
    def begin(cls, fit: MaskFit, like: Tensor) -> Self:
        """The start of as many masks as there are in ``like`` (N, h, w)."""
        masks = torch.full_like(like, fit.start)
        return cls(masks, torch.zeros_like(masks), torch.zeros_like(masks))

    def step(self, gradient: Tensor, lr: float) -> None:
        """One step of Adam against ``gradient`` (N, h, w); masks stay in [0, 1]."""
        self.done += 1
        self.mean = _FIRST * self.mean + (1 - _FIRST) * gradient
        self.square = _SECOND * self.square + (1 - _SECOND) * gradient.square()
        mean, square = self.mean / (1 - _FIRST**self.done), self.square / (1 - _SECOND**self.done)
        self.masks = (self.masks - lr * mean / (square.sqrt() + _STABILITY)).clamp(0, 1)

    def select(self, places: Tensor) -> None:
        """Go on with the masks at ``places`` only."""
        self.masks, self.mean, self.square = self.masks[places], self.mean[places], self.square[places]


def jitters(fit: MaskFit, seed: int, keys: Sequence[str]) -> Tensor:
    """Corners (N, steps, 2) of the crops of each image at each step, drawn from the image's own seed."""
    shape = (fit.steps, 2)
    draws = [torch.randint(0, fit.jitter + 1, shape, generator=generator(seed, key, "mask")) for key in keys]
    return torch.stack(draws) if draws else torch.zeros((0, *shape), dtype=torch.int64)


@dataclass(frozen=True)
class Fitted:
    """Deletion masks and how they came about.

    Attributes:
        masks: (N, h, w) in [0, 1]; 0 where the image was deleted.
        objective: (N, steps), the objective at each step, under that step's jitter.
    """

    masks: Tensor
    objective: Tensor

    @property
    def settled(self) -> Tensor:
        """(N,) bool: the mean objective of the last tenth is within 5 % of that of the tenth before, or lower by less.

        A fit of fewer than 20 steps has nothing to compare, and is not settled.
        """
        tenth = self.objective.shape[1] // 10
        if tenth < 2:
            return torch.zeros(self.objective.shape[0], dtype=torch.bool, device=self.objective.device)
        late = self.objective[:, -tenth:].mean(dim=1)
        before = self.objective[:, -2 * tenth : -tenth].mean(dim=1)
        return late > 0.95 * before


def fit_masks(
    classifier: Classifier, fit: MaskFit, x: Tensor, classes: Tensor, keys: Sequence[str], seed: int
) -> Fitted:
    """Fit the masks of images ``x`` (N, C, H, W) for ``classes`` (N,), inside ``classifier.frozen()``."""
    optics = Optics.of(fit, classifier.input_size, x)
    scene, corners = optics.scene(x), jitters(fit, seed, keys)
    course, objective = FitCourse.begin(fit, x.new_empty((x.shape[0], *fit.grid(classifier.input_size)))), []
    for step in range(fit.steps):
        crops = optics.crops(scene, corners[:, step])
        seen = look(classifier, optics, crops, course.masks, classes)
        value, slope = penalty(fit, course.masks)
        probability = seen.log_probability.exp()
        objective.append(probability + value)
        course.step(optics.in_mask(crops, seen.gradient) * probability[:, None, None] + slope, fit.lr)
    return Fitted(course.masks, torch.stack(objective, dim=1))
