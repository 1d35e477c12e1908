"""The schedules that the authors of ADV² published, to compare with (Zhang et al. 2020, and their code).

What is theirs: the steps and their length, λ, the losses, the second derivatives, and which iterate is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from torch import Tensor

from underfire.attacks.budget import chosen_steps
from underfire.attacks.control import Schedule, Weighted
from underfire.attacks.engine import Setting
from underfire.attacks.joint import Descent, Terms
from underfire.attacks.keepers import BEST, LAST, Keeper
from underfire.attacks.labels import Confidence
from underfire.attacks.perturbations import chosen
from underfire.attacks.rules import Sign
from underfire.attacks.smoothed import smoothed_clip, smoothed_objective
from underfire.attacks.target_maps import one_interpreter
from underfire.errors import InputError
from underfire.interpreters import CAM, GRAD, IG, GradCAM
from underfire.interpreters.base import Interpreter, MapObjective, MapTarget
from underfire.interpreters.maps import min_max
from underfire.models.classifier import Classifier

STEP_SIZE = 1 / 255


@dataclass(frozen=True)
class Stage:
    """Joint steps whose λ goes from ``first`` to ``last`` in a straight line."""

    steps: int
    first: float
    last: float


@dataclass(frozen=True)
class Published:
    """The schedule for one family of interpreters.

    Attributes:
        warm: steps on the prediction alone.
        stages: the joint steps, one stage after the other.
        keep: which iterate counts.
        every: of the joint iterates, every so many-th is a candidate.
        confidence: a candidate's p_t is at least this.
    """

    warm: int
    stages: tuple[Stage, ...]
    keep: Keeper
    every: int
    confidence: float

    @property
    def steps(self) -> int:
        """All of them."""
        return self.warm + sum(stage.steps for stage in self.stages)

    def weights(self) -> tuple[float, ...]:
        """λ of each joint step."""
        return tuple(
            stage.first + (stage.last - stage.first) * step / max(1, stage.steps - 1)
            for stage in self.stages
            for step in range(stage.steps)
        )

    def scaled(self, steps: int) -> "Published":
        """The same in ``steps`` steps: every part in proportion, rounded so that they add up."""
        ends, end = [], 0
        for part in (self.warm, *(stage.steps for stage in self.stages)):
            end += part
            ends.append(round(end * steps / self.steps))
        stages = tuple(
            Stage(after - before, stage.first, stage.last)
            for stage, before, after in zip(self.stages, ends, ends[1:], strict=False)
        )
        every = max(1, round(self.every * steps / self.steps))
        return Published(ends[0], stages, self.keep, every, self.confidence)


ACTIVATIONS = Published(400, (Stage(1200, 5.0, 10.0),), LAST, every=1, confidence=0.0)
"""For CAM, and for Grad-CAM, which they did not attack."""

GRADIENTS = Published(
    300,
    (Stage(301, 0.001, 0.001), Stage(201, 0.004, 0.004), Stage(101, 0.01, 0.01), Stage(101, 0.05, 0.05)),
    BEST,
    every=10,
    confidence=0.8,
)
"""For GRAD, and for IG, which they did not attack."""

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {CAM.name: ACTIVATIONS, GradCAM.name: ACTIVATIONS, GRAD.name: GRADIENTS, IG.name: GRADIENTS}
)
"""By the name of the interpreter whose schedule it is."""


class AuthorsADV2(Descent):
    """ADV² by the schedule of its authors, in the same loop as :class:`ADV2`, which is meant to be used instead.

    Sign steps of 1/255. The gradient of −log p_t is always on and is added, unscaled, to λ times the gradient of the
    interpretation loss. CAM: mean squared error, exact gradient, λ rising from 5 to 10, the last iterate. GRAD: sum of
    squared errors, double backward through a network whose kinks are smoothed, λ in four stages, the best of every
    tenth joint iterate with p_t above 0.8. They have no schedule for IG: it gets that of GRAD, the path estimated
    from random points as :class:`ADV2` does, but drawn evenly. Grad-CAM gets that of CAM.

    A joint step counts 1 pass for CAM. For GRAD it counts 2: a forward and backward pass whose graph is kept, and the
    backward pass through both; the prediction's own gradient, taken on the network as it is, costs another backward
    pass that isn't counted. For IG it counts 3, two of which are at the path point.

    Args:
        interpreter: the interpreter under attack: CAM, Grad-CAM, GRAD or IG.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if it is not given (the authors take 0.031).
        seed: of the random path points of IG.
        steps: all of them, warm start included, if not the published number; all parts change in proportion.
        passes: in place of steps, how many forward and backward passes, counted as above, an image may cost.

    Raises:
        InputError: a number is out of range, or there is no schedule for the interpreter.
    """

    name = "adv2-authors"
    title = "ADV² by its authors"
    version = 1

    def __init__(
        self,
        interpreter: Interpreter,
        *,
        eps: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        passes: int | None = None,
    ) -> None:
        published = _published(interpreter)
        plan = published.scaled(
            chosen_steps(
                steps, passes, (interpreter,), warm=lambda count: published.scaled(count).warm, default=published.steps
            )
        )
        setting = Setting(
            chosen(None, eps),
            Schedule(plan.steps, plan.warm, first=STEP_SIZE, peak=STEP_SIZE, last=STEP_SIZE),
            label=Confidence(keep=plan.confidence),
            mix=Weighted(plan.warm, plan.weights()),
            rule=Sign(),
            keep=plan.keep,
            every=plan.every,
        )
        super().__init__(interpreter.classifier, (interpreter,), setting, seed=seed, objective_of=objective_of)

    @classmethod
    def planned(cls, _classifier: Classifier, interpreters: Sequence[Interpreter], terms: Terms) -> Self:
        """The attack on the one of ``interpreters`` by the terms of a plan.

        Raises:
            InputError: they are several, or there is no schedule for it.
        """
        if len(interpreters) != 1:
            names = ", ".join(g.name for g in interpreters)
            raise InputError(f"the preset 'authors' attacks one interpreter, not {names} at once; name one of them")
        effort = terms.effort
        return cls(
            interpreters[0], eps=terms.perturbation.eps, steps=effort.steps, passes=effort.passes, seed=terms.seed
        )


def _published(given: object) -> Published:
    """The schedule for an interpreter, which may be of a class derived from one of theirs.

    Raises:
        InputError: it is no interpreter, or there is no schedule for it.
    """
    if isinstance(given, list | tuple):
        raise InputError(f"AuthorsADV2 attacks one interpreter, and a {type(given).__name__} was given; give it alone.")
    interpreter = one_interpreter(given, "AuthorsADV2")
    for known in (CAM, GradCAM, GRAD, IG):
        if isinstance(interpreter, known):
            return PUBLISHED[known.name]
    names = ", ".join(PUBLISHED)
    raise InputError(f"no schedule of the authors is implemented for {interpreter.name!r}, only for {names}.")


def objective_of(interpreter: Interpreter, target: MapTarget) -> MapObjective:
    """The authors' objective at the map of CAM, Grad-CAM, GRAD or IG."""
    loss = mean_squares if isinstance(interpreter, CAM | GradCAM) else summed_squares
    return smoothed_objective(interpreter, target, smoothed_clip, loss)


def mean_squares(raw: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,) of unscaled maps (N, h, w): mean squared error after min–max scaling."""
    return (min_max(raw) - target).square().mean(dim=(1, 2))


def summed_squares(raw: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,) of unscaled maps (N, h, w): sum of squared errors after min–max scaling."""
    return (min_max(raw) - target).square().sum(dim=(1, 2))
