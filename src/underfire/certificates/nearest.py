"""The nearest image found at which a randomised system reaches a goal: what a certificate is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole
from underfire.attacks.control import UNMET, Balance, Schedule
from underfire.attacks.engine import Setting, descend
from underfire.attacks.goals import Until
from underfire.attacks.keepers import LAST
from underfire.attacks.labels import Confidence, LabelGoal, OtherLabel
from underfire.attacks.minimum_norm import SEEK
from underfire.attacks.perturbations import L2
from underfire.attacks.rules import Momentum
from underfire.attacks.transforms import AveragedDraws
from underfire.certificates.certification import count_together
from underfire.certificates.events import ImageGoals
from underfire.certificates.noise import HeldNoise, NoiseSource, SeededNoise
from underfire.certificates.system import NoisySystem
from underfire.errors import InputError
from underfire.interpreters.base import MapObjective, MapTarget, tried
from underfire.models.folded import prepared
from underfire.models.frozen import ordinary

RATE = 0.5
"""A goal is reached where this share of the draws meets it."""

FIRST, SHORTER, LONGER = 4.0, 0.8, 3.0
"""The first radius, in σ; the next as a share of the best one that was found; and of one that was too small."""

STEP = 0.25
"""A step, as a share of the radius. So short, a change is a sum over the draws of many steps: one step's few draws say
little of the mean over all, and what many of them share is what lowers that."""

HALVINGS, LEAST = 4, 0.6
"""In so many steps the shortest part of a change that still reaches the goal is found; the least part that is tried."""

MULTIPLES = (0.9, 0.95, 1.0, 1.1, 1.2, 1.5, 2.0)
"""Of what the search found the first of these with which fresh draws reach the goal is what was found."""


@dataclass(frozen=True)
class SearchEffort:
    """What a search may cost.

    Attributes:
        rounds: radii that are tried.
        steps: of each round, at a gradient that is a mean over draws.
        averaged: fresh draws for each step's gradient.
        judged: draws by which images are compared.
        scored: fresh draws that estimate how often the image found reaches the goal.
    """

    rounds: int = 4
    steps: int = 8
    averaged: int = 8
    judged: int = 16
    scored: int = 64

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in vars(self).items():
            check_whole(name, value)
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1.")

    @property
    def of_one_draw(self) -> "SearchEffort":
        """For noise that is one draw, whose gradient needs no mean: half of the steps do."""
        return replace(self, steps=(self.steps + 1) // 2, averaged=1, judged=1, scored=1)


@dataclass(frozen=True)
class NearestImage:
    """What a search found.

    Attributes:
        image: (C, H, W), the benign one where nothing was found.
        distance: its L2 distance in pixel values; infinite where nothing was found, and 0 where noise is enough.
        met: in how many fresh draws of it the goal was met.
        scored: how many there were.
        passes: forward and backward passes of the search, with those of maps; forward passes that judge are not
            counted.
    """

    image: Tensor
    distance: float
    met: int
    scored: int
    passes: int

    version: ClassVar[int] = 2
    """Raised whenever the same call finds other images."""


def nearest_image(
    system: NoisySystem,
    asked: ImageGoals,
    effort: SearchEffort,
    *,
    seed: int = 0,
    begin: Tensor | None = None,
    held: bool = False,
) -> NearestImage:
    """Search for the nearest image at which half of the draws of ``system`` meet a goal.

    The loop of all attacks in L2 balls whose radius follows what is found. Every step descends on the mean over fresh
    draws; of what it leads to, the shortest part that still meets the goal in half of other draws counts, and fresh
    draws, of which the search knows nothing, have the last word.

    Args:
        system: under attack.
        asked: the one goal, and the image.
        effort: of the search.
        seed: of all draws.
        begin: an image (C, H, W) to begin at, such as one that reaches less.
        held: the noise is one draw, the same for attacker and system, as where a system's seed is known.
    """
    with ordinary():
        search = _NearestSearch(system, asked, effort.of_one_draw if held else effort, seed, held=held)
        return search.run(begin)


@dataclass(frozen=True)
class _Onwards(L2):
    """An L2 ball in which a descent begins at a given image."""

    begin: Tensor = field(default_factory=lambda: torch.zeros(0))

    def start(self, x: Tensor) -> Tensor:
        """That image."""
        return self.begin.expand_as(x).clone()


class _NearestSearch:
    """One search.

    Attributes:
        passes: spent so far.
    """

    def __init__(self, system: NoisySystem, asked: ImageGoals, effort: SearchEffort, seed: int, *, held: bool) -> None:
        (self._goal,) = asked.goals
        self._system, self._asked, self._effort, self._seed = system, asked, effort, seed
        self._x, self._held = asked.image.x, held
        self._descends = self._goal.map != "free" and tried(system.interpreter) is None
        self._drawn = self.passes = 0

    def run(self, begin: Tensor | None) -> NearestImage:
        """Search, and score what is found."""
        n = self._effort.scored
        if self._met(self._x, "judge"):
            met = self._count(self._x, "score", n)
            if met >= RATE * n:  # else those that judge are luckier than most
                return NearestImage(self._x, 0.0, met, n, self.passes)
        if begin is not None and torch.equal(begin, self._x):
            begin = None
        best = None if begin is None else self._shortest(begin, LEAST)
        shorter = [] if best is None else [best]
        size = torch.inf if best is None else self._distance(best)
        radius = SHORTER * size
        if best is None:
            radius = max(FIRST * self._system.sigma, 0.0 if begin is None else self._distance(begin))
        iterate = self._x if begin is None else begin
        for _ in range(self._effort.rounds):
            reached = self._descended(iterate if best is None else best, radius)
            found = self._shortest(reached, 0.0 if best is None else LEAST)
            if found is not None and self._distance(found) < size:
                best, size = found, self._distance(found)
                shorter.append(best)
                radius = SHORTER * size
            elif best is None:
                iterate, radius = reached, LONGER * radius
            else:
                radius = (radius + size) / 2
        return self._scored(shorter)

    def _scored(self, shorter: Sequence[Tensor]) -> NearestImage:
        """Of images, each nearer than those before, a multiple of the last change that reaches the goal in fresh draws.

        If the draws that judged the last one were luckier than these, the one before it may have what it lacks.
        """
        n = self._effort.scored
        for found, factor in product(reversed(shorter), MULTIPLES):
            image = self._along(found, factor)
            met = self._count(image, "score", n)
            if 2 * met >= n:
                return NearestImage(image, self._distance(image), met, n, self.passes)
        return NearestImage(self._x, torch.inf, 0, n, self.passes)

    def _along(self, image: Tensor, factor: float) -> Tensor:
        return (self._x + factor * (image - self._x)).clamp(0, 1)

    def _distance(self, image: Tensor) -> float:
        return float((image.double() - self._x.double()).square().sum().sqrt())

    def _shortest(self, image: Tensor, low: float) -> Tensor | None:
        """The image on the way to ``image``, not before the share ``low`` of it, that is nearest and meets the goal.

        It is found by bisection, if ``image`` meets the goal; else it is None.
        """
        if not self._met(image, "judge"):
            return None
        high = 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._met(self._along(image, middle), "judge") else (middle, high)
        return self._along(image, high)

    def _met(self, image: Tensor, purpose: str) -> bool:
        return self._count(image, purpose, self._effort.judged) >= RATE * self._effort.judged

    def _count(self, image: Tensor, purpose: str, draws: int) -> int:
        with self._system.classifier.frozen():
            return int(count_together([self._system], [self._asked], image, self._noise(purpose), draws))

    def _noise(self, purpose: str) -> NoiseSource:
        if self._held:
            return HeldNoise(SeededNoise(self._seed, self._asked.image.key, "held"))
        return SeededNoise(self._seed, self._asked.image.key, f"{purpose} {self._goal}")

    # Descent

    def _descended(self, begin: Tensor, radius: float) -> Tensor:
        """Where a few steps from ``begin`` lead, at a distance of ``radius``."""
        effort, classifier = self._effort, self._system.classifier
        label, classes = self._aim(begin)
        rows = self._x.expand(effort.averaged, -1, -1, -1)
        setting = Setting(
            _Onwards(radius, begin),
            Schedule.constant(effort.steps, STEP * radius),
            map_goal=Until(self._goal, self._asked.tau(self._goal)),
            label=label,
            mix=Balance(weighting=UNMET),
            rule=Momentum(mean=0.0),
            transform=AveragedDraws(self._drawing()),
            keep=LAST,
        )
        outcome = descend(prepared(classifier), rows, classes, self._objectives(classes), setting)
        self._drawn += effort.steps
        self.passes += int(outcome.passes.sum())
        found = outcome.x_adv[0]
        return self._along(found, max(1.0, radius / max(self._distance(found), radius * 1e-3)))

    def _drawing(self) -> Callable[[Tensor, int], Tensor]:
        """Draws that no other step, of this round or another, has."""
        noise, count, before = self._noise("search"), self._effort.averaged, self._drawn

        def drawing(image: Tensor, step: int) -> Tensor:
            first = (before + step) * count
            return self._system.images(image, noise, range(first, first + count))

        return drawing

    def _aim(self, begin: Tensor) -> tuple[LabelGoal, Tensor]:
        """What is wanted of the label, and the class (averaged,) that this is about."""
        image, count = self._asked.image, self._effort.averaged
        sure = Confidence(keep=0.0, seek=SEEK)
        if self._goal.label == "target" and image.target is not None:
            return sure, image.target.expand(count)
        if self._goal.label == "kept":
            return sure, image.label.expand(count)
        if not self._descends:
            return OtherLabel(keep=0.0, seek=SEEK), image.label.expand(count)
        z = self._system.images(begin, self._noise("judge"), range(count))
        mean = self._system.classifier.probabilities(z).mean(dim=0)
        return sure, mean.scatter(0, image.label, -1.0).argmax().expand(count)  # the map to keep is of one class

    def _objectives(self, classes: Tensor) -> list[MapObjective]:
        if not self._descends:
            return []
        image, count = self._asked.image, len(classes)
        until = Until(self._goal, self._asked.tau(self._goal))
        reference = image.led_map if self._goal.map == "led" and image.led_map is not None else image.benign_map
        maps = until.aimed(reference.expand(count, -1, -1))
        keys = tuple(f"{image.key} {draw}" for draw in range(count))
        return [self._system.interpreter.objective(MapTarget(classes, maps, keys, self._seed, until))]
