"""Attacks on problems whose solution is known to exist, because it was planted.

After Zimmermann, Brendel, Tramèr and Carlini, "Increasing confidence in adversarial robustness evaluations", NeurIPS
2022: an attack that does not find what surely lies in its budget says nothing by failing elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from underfire import metrics
from underfire.attacks.goals import Goal
from underfire.attacks.labels import KeptLabel
from underfire.attacks.perturbations.base import Perturbation
from underfire.attacks.pgd import PGD
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.interpreters.map_goals import TOP
from underfire.models.classifier import Classifier
from underfire.models.decisions import probability
from underfire.seeding import generator

_AT_ONCE = 10  # images of one pass
FRESH = 100  # random points that must not reach the goal
LONGEST = 2.0  # of a planted row of weights, relative to the row whose map it shows


@dataclass(frozen=True)
class PlantedGoal:
    """What an attack must reach in the image as it is saved.

    Attributes:
        goal: label and map.
        value: of the maps (N, h, w) of images and the maps of the problem, a number (N,), the smaller the better.
        at_most: the largest value that reaches the goal; None for that of the planted point.
        far: the value from which on an image misses it by far; whoever minds the label alone must end there.
    """

    goal: Goal
    value: Callable[[Tensor, Tensor], Tensor]
    at_most: float | None
    far: float

    @property
    def limit(self) -> float:
        """``at_most``.

        Raises:
            ValueError: it is that of a point, and there is none yet.
        """
        if self.at_most is None:
            raise ValueError(f"the goal '{self.goal}' is measured by a planted point")
        return self.at_most


def _near(goal: Goal) -> PlantedGoal:
    return PlantedGoal(goal, metrics.l1, at_most=0.03, far=0.15)


def _overlap(maps: Tensor, benign: Tensor) -> Tensor:
    return metrics.iou_top(maps, benign, share=TOP).where(~metrics.is_constant(maps), 1.0)


def _unmoved(maps: Tensor, benign: Tensor) -> Tensor:
    return 1 - metrics.center_shift(maps, benign)


def _alike(maps: Tensor, benign: Tensor) -> Tensor:
    return (1 - metrics.l1(maps, benign)).where(~metrics.is_constant(maps), 1.0)


GOALS: Mapping[str, PlantedGoal] = MappingProxyType(
    {
        str(planted.goal): planted
        for planted in (
            *(_near(Goal.parse(goal)) for goal in ("target/kept", "other/kept", "target/led", "kept/led")),
            PlantedGoal(Goal("kept", "topk"), _overlap, at_most=0.11, far=0.5),
            PlantedGoal(Goal("kept", "center"), _unmoved, at_most=None, far=0.95),
            PlantedGoal(Goal("kept", "l1"), _alike, at_most=None, far=0.9),
        )
    }
)
"""What is asked for by each goal.

``kept`` and ``led``: a mean absolute difference of at most 0.03 from the benign or the given map. ``topk``: an IoU of
both maps' top fifths of at most 0.11, as two random ones have. ``center`` and ``l1``: a map that moved as far as the
planted point's. In the problems of ``swapped_optimum`` one step along the gradient reaches ``topk`` and ``l1``: these
two only tell attacks that do not follow it.
"""

TARGET_KEPT = GOALS["target/kept"]
"""ADV²'s."""


def by_iou(goal: str, tau: float) -> PlantedGoal:
    """``goal`` as a joint success rate at ``tau`` counts it, and as an attack for the smallest budget looks for it."""
    wanted = Goal.parse(goal)
    return PlantedGoal(wanted, partial(wanted.shortfall, tau=tau), at_most=0.0, far=0.1)


@dataclass(frozen=True)
class Standing:
    """How near images are to the goal of a planted problem.

    Attributes:
        prediction: (N,) int64, of the images as they are saved.
        label: (N,) bool, whether that is the label wanted.
        value: (N,) of their maps.
        reached: (N,) bool, whether both are as the goal has them.
    """

    prediction: Tensor
    label: Tensor
    value: Tensor
    reached: Tensor


@dataclass(frozen=True)
class Validity:
    """Whether a planted problem tells a strong attack from a weak one.

    Attributes:
        keeps_label: every benign image has its label.
        optimum: every planted point reaches the goal.
        random_hits: how many of ``random_points`` random points reach it.
        random_points: in the balls, half of them corners.
        label_only: the smallest value at which an attack on the label alone, PGD with its defaults, ends; that of the
            benign images where the label is to be kept.
        far: the value that it must have at least.
        rank, rows: of the equations that planted the point, where any did.
        norm_ratio: length of the planted row of weights, relative to the row of the benign class.
    """

    keeps_label: bool
    optimum: bool
    random_hits: int
    random_points: int
    label_only: float
    far: float
    rank: int = 0
    rows: int = 0
    norm_ratio: float = 1.0

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it, in words; empty if it is valid."""
        checks = (
            (self.rank == self.rows, f"only {self.rank} of its {self.rows} equations are independent"),
            (
                self.norm_ratio <= LONGEST,
                f"its row of weights is {self.norm_ratio:.2f} times as long as that of the benign class, more than"
                f" {LONGEST:g} times",
            ),
            (self.keeps_label, "a benign image loses its label"),
            (self.optimum, "a planted point does not reach the goal"),
            (self.random_hits == 0, f"{self.random_hits} of {self.random_points} random points reach the goal"),
            (
                self.label_only >= self.far,
                f"who minds the label alone ends at {self.label_only:.3f}, nearer than {self.far:g}",
            ),
        )
        return tuple(fault for holds, fault in checks if not holds)


@dataclass(frozen=True)
class PlantedOptimum:
    """N images of a classifier, and in the ball around each a point that reaches the goal.

    Attributes:
        goal: of the attack.
        interpreter: under attack, of the classifier with the planted points.
        perturbation: what the attack may do.
        x: benign images (N, C, H, W) in whole grey levels, as fractions of 255.
        label: (N,) int64, their classes.
        target: (N,) int64, target classes.
        optimum: the planted points (N, C, H, W).
        maps: the maps (N, h, w) that the goal compares with: those to lead to, else the benign ones.
        keys: one name per image, the owner of its random numbers.
        validity: what :func:`measure_validity` found; None as long as it was not called.
    """

    goal: PlantedGoal
    interpreter: Interpreter
    perturbation: Perturbation
    x: Tensor
    label: Tensor
    target: Tensor
    optimum: Tensor
    maps: Tensor
    keys: tuple[str, ...]
    validity: Validity | None = None

    @property
    def classifier(self) -> Classifier:
        """The classifier with the planted points."""
        return self.interpreter.classifier

    @property
    def aim(self) -> Tensor | None:
        """What an attack is given beside the images: the target classes, the labels to be kept, or None."""
        return {"target": self.target, "other": None, "kept": self.label}[self.goal.goal.label]

    @property
    def target_map(self) -> Tensor | None:
        """The maps (N, h, w) that an attack is given to lead to; None for other goals."""
        return self.maps if self.goal.goal.map == "led" else None

    def judge(self, x_adv: Tensor) -> Standing:
        """How near ``x_adv`` (N, C, H, W), one for each image, are to the goal, as they would be saved."""
        images = self.perturbation.rounded(self.x, x_adv).to(self.x.dtype) / 255
        classifier, wanted = self.classifier, self.goal.goal.label
        with torch.no_grad():
            benign, logits = classifier(self.x), classifier(images)
        prediction = logits.argmax(dim=1)
        if wanted == "kept":
            before = probability(classifier.decision, benign, self.label)
            label = KeptLabel(before).met(classifier.decision, logits, self.label)
        else:
            label = prediction == self.target if wanted == "target" else prediction != self.label
        explained = {"target": self.target, "other": prediction, "kept": self.label}[wanted]
        value = self.goal.value(self.interpreter(images, explained, keys=self.keys), self.maps)
        return Standing(prediction, label, value, label & (value <= self.goal.limit))

    def require_valid(self) -> None:
        """Refuse a problem that says nothing of an attack.

        Raises:
            InputError: it is not valid, or was not measured.
        """
        what = f"the planted optimum of {self.interpreter.name}"
        if self.validity is None:
            raise InputError(f"whether {what} is valid was not measured; call measure_validity first.")
        if self.validity.faults:
            faults = ", ".join(self.validity.faults)
            raise InputError(f"{what} is not valid: {faults}; plant one by another seed, or into another image.")

    def repeated(self, place: int, copies: int) -> "PlantedOptimum":
        """The problem of the image ``place``, ``copies`` times."""
        of_images = ("x", "label", "target", "optimum", "maps")
        rows = {name: getattr(self, name)[[place] * copies] for name in of_images}
        return replace(self, **rows, keys=(self.keys[place],) * copies)


def measure_validity(planted: PlantedOptimum, *, seed: int = 0, count: int = FRESH) -> Validity:
    """Whether ``planted`` is a fair problem, tried with ``count`` random points for each image, drawn for ``seed``."""
    hits = 0
    for place, key in enumerate(planted.keys):
        draw = generator(seed, key, "fresh points")
        points = random_points(planted.perturbation, planted.x[place], draw, count)
        hits += sum(int(planted.repeated(place, len(p)).judge(p).reached.sum()) for p in points.split(_AT_ONCE))
    x, label = planted.x, planted.label
    alone = x
    if planted.goal.goal.label != "kept":
        alone = PGD(planted.classifier, perturbation=planted.perturbation)(x, planted.target, keys=planted.keys).x_adv
    return Validity(
        keeps_label=bool((planted.classifier(x).argmax(dim=1) == label).all()),
        optimum=bool(planted.judge(planted.optimum).reached.all()),
        random_hits=hits,
        random_points=count * len(x),
        label_only=float(planted.judge(alone).value.min()),
        far=planted.goal.far,
    )


def random_points(model: Perturbation, x: Tensor, draw: torch.Generator, count: int) -> Tensor:
    """Random points (count, C, H, W) within the budget around ``x`` (C, H, W): half uniform, half at its corners."""
    images = x.expand(count, *x.shape)
    start, corners = model.start(images), model.harmless(images, [draw] * count)
    share = torch.rand(corners.shape, generator=draw, dtype=torch.float64).to(corners)
    share[count // 2 :] = 1
    return model.image(images, model.project(images, start + share * (corners - start)))
