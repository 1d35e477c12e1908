"""The schedules published for attacks on a map whose label stays, to compare with.

Top cells or centre of mass moved: Ghorbani, Abid and Zou, "Interpretation of Neural Networks is Fragile", AAAI 2019.
Led to a given map: Dombrowski et al., "Explanations can be manipulated and geometry is to blame", NeurIPS 2019. What
is theirs: the steps and their length, the losses, the second derivatives, and which iterate is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from underfire.attacks.budget import chosen_steps
from underfire.attacks.control import Mixer, Schedule
from underfire.attacks.engine import Setting
from underfire.attacks.goals import MAP_GOALS, Goal
from underfire.attacks.keepers import BEST, LATEST
from underfire.attacks.labels import Confidence
from underfire.attacks.map_attack import LabelKept
from underfire.attacks.perturbations import chosen
from underfire.attacks.rules import Adam, Rule, Sign
from underfire.attacks.scored import ObjectiveOf
from underfire.attacks.smoothed import Softplus, smoothed_objective
from underfire.attacks.target_maps import one_interpreter
from underfire.errors import InputError
from underfire.interpreters import CAM, GRAD, IG, GradCAM
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget

STEPS = 300
"""Of Ghorbani et al."""

STEP_SIZE = 0.5 / 255
"""Of theirs, by sign."""

BETA = 30.0
"""Of the softplus in that attack: our choice, in the middle of `BETAS` by ratio."""

LED_STEPS = 1500
"""Of Dombrowski et al."""

TRAVEL = LED_STEPS * 1e-3 * 0.225
"""How far a pixel value can go in so many of their steps: 0.001 each, in standard deviations of 0.225."""

BETAS = (10.0, 100.0)
"""Of the softplus in their attack, which grows from step to step by the same factor."""

OUTPUT_WEIGHT = 25.0
"""Of the squared change of the probabilities, beside the mean square of maps whose mean is one.

They weigh the mean over a map by 10¹¹ and that over the output by 10⁶; their maps have 224² cells that add up to one,
and their output has 1000 classes: 10⁶ / 1000 is 25 times 10¹¹ / 224⁴.
"""


class PublishedMapAttack(LabelKept):
    """Moves or leads a map by published schedules, in the same loop as :class:`MapAttack`, which is meant to be used.

    ``topk`` and ``center`` are those of Ghorbani et al. 2019: steps of half a grey level by the sign of the gradient of
    the share of the map in the benign map's top cells, or of the shift of its centre of mass, projected on the ball. Of
    the iterates with the same prediction the one whose map has moved most is kept. ``led`` is that of Dombrowski et al.
    2019: Adam's steps along the gradient of the squared distance to the given map and of the squared change of the
    probabilities. They take the last iterate; here it is, of those with the same prediction, the one nearest the given
    map. Fewer steps than they took are longer in proportion, and every step is projected on the ball, which they did
    not have.

    Gradients of GRAD and IG are differentiated through a network with softplus in the place of ReLU. Nobody published
    a schedule for CAM and Grad-CAM: they get the same steps, on exact gradients. IG's path is estimated from random
    points, as :class:`ADV2` does, but drawn evenly; the papers differentiate all of the path at every step, which takes
    as many passes as it has points. Since the estimate says little of an iterate's map, the last one with the same
    prediction is kept there.

    A step counts as that of :class:`AuthorsADV2` does: 1 pass for CAM; for GRAD 2, a forward and backward pass whose
    graph is kept and the backward pass through both; for IG 3, two of which are at the path point. The look at the
    network as it is, which tells of an iterate's prediction and of GRAD's map, isn't counted.

    Args:
        interpreter: the interpreter under attack: CAM, Grad-CAM, GRAD or IG.
        goal: ``"topk"``, ``"center"`` or ``"led"``, as for :class:`MapAttack`.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if it is not given.
        seed: of the random path points of IG.
        steps: all of them, if not the published number: 300, or 1500 where the map is led.
        passes: in place of steps, how many forward and backward passes, counted as above, an image may cost.

    Raises:
        InputError: a number is out of range, or there is no schedule for the goal or the interpreter.
    """

    name = "map-published"
    title = "Map attack as published"
    version = 1

    def __init__(
        self,
        interpreter: Interpreter,
        *,
        goal: Literal["topk", "center", "led"] = "topk",
        eps: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        passes: int | None = None,
    ) -> None:
        attacked = _scheduled(interpreter)
        if goal not in ("topk", "center", "led"):
            raise InputError(f"goal {goal!r} has no published schedule; give topk, center or led.")
        self.wanted, led = Goal("kept", goal), goal == "led"
        default = LED_STEPS if led else STEPS
        count = chosen_steps(steps, passes, (attacked,), warm=lambda _: 0, default=default)
        size = TRAVEL / max(1, count) if led else STEP_SIZE
        rule: Rule = Adam(mean=0.9, spread=0.999, longest=math.inf) if led else Sign()
        setting = Setting(
            chosen(None, eps),
            Schedule(count, warm=0, first=size, peak=size, last=size),
            map_goal=MAP_GOALS[goal],
            label=Confidence(keep=0.0),
            mix=MapAlone(),
            rule=rule,
            keep=LATEST if isinstance(attacked, IG) else BEST,
        )
        objective_of: ObjectiveOf = _Led(count) if led else moving_objective
        super().__init__(attacked.classifier, (attacked,), setting, seed=seed, objective_of=objective_of)


def _scheduled(given: object) -> Interpreter:
    """``given``, for which there is a schedule.

    Raises:
        InputError: it is no interpreter, or another one.
    """
    if isinstance(given, list | tuple):
        raise InputError(
            f"PublishedMapAttack attacks one interpreter, and a {type(given).__name__} was given; give it alone."
        )
    interpreter = one_interpreter(given, "PublishedMapAttack")
    if not isinstance(interpreter, CAM | GradCAM | GRAD | IG):
        raise InputError(f"no published schedule fits {interpreter.name!r}, only cam, gradcam, grad, ig.")
    return interpreter


@dataclass(frozen=True)
class MapAlone:
    """A step on the map and nothing else: the sum of the maps' directions, unscaled."""

    def begin(self, x: Tensor) -> Mixer:  # noqa: ARG002 - remembers nothing
        """A mixer, the same for any images."""
        return _Unmixed()


class _Unmixed:
    def __call__(
        self,
        prediction: Tensor,
        directions: Sequence[Tensor],
        distances: Sequence[Tensor],  # noqa: ARG002
        needs_confidence: Tensor,  # noqa: ARG002
        step: int,  # noqa: ARG002
    ) -> Tensor:
        return sum(directions, torch.zeros_like(prediction))

    def select(self, places: Tensor) -> None:
        pass


def moving_objective(interpreter: Interpreter, target: MapTarget) -> MapObjective:
    """That of Ghorbani et al., whose loss is the goal's own."""
    return smoothed_objective(interpreter, target, Softplus(BETA), squared_shape)


@dataclass(frozen=True)
class _Led:
    """That of Dombrowski et al., of an attack of so many steps."""

    steps: int

    def __call__(self, interpreter: Interpreter, target: MapTarget) -> MapObjective:
        softplus = Softplus(BETAS[0])
        inner = smoothed_objective(interpreter, target, softplus, squared_shape)
        growth: float = (BETAS[1] / BETAS[0]) ** (1 / self.steps)
        return OutputKept(inner, softplus, growth)


class OutputKept:
    """An objective, and beside its loss `OUTPUT_WEIGHT` times the squared change of the probabilities.

    That change is since the first look, which is at the benign images. After every look the kinks get sharper.

    Args:
        inner: the objective.
        softplus: what it differentiates through.
        growth: the factor by which that one's β grows from look to look.
    """

    needs_backward = True

    def __init__(self, inner: MapObjective, softplus: Softplus, growth: float) -> None:
        self.taps = inner.taps
        self._inner, self._softplus, self._growth = inner, softplus, growth
        self._before: Tensor | None = None

    def __call__(self, view: ForwardPass) -> MapGradient:
        """Both losses and the direction that lowers their sum."""
        answer = self._inner(view)
        self._softplus.beta *= self._growth
        with torch.enable_grad():
            probabilities = view.classifier.decision.probabilities(view.logits)
            if self._before is None:
                self._before = probabilities.detach()
            loss = OUTPUT_WEIGHT * (probabilities - self._before).square().sum(dim=1)
        slope = view.gradient(loss) if answer.at is None else view.gradient_at(answer.at, loss)
        return replace(answer, loss=answer.loss + loss.detach(), direction=answer.direction + slope)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only."""
        self._inner.select(places)
        self._before = None if self._before is None else self._before[places]


def squared_shape(raw: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,) of unscaled maps (N, h, w): the mean squared difference of both, scaled to mean one.

    Both count from their minimum. A constant map counts as 0 everywhere.
    """
    return (_mean_one(raw) - _mean_one(target)).square().mean(dim=(1, 2))


def _mean_one(maps: Tensor) -> Tensor:
    risen = maps - maps.amin(dim=(1, 2), keepdim=True)
    mean = risen.mean(dim=(1, 2), keepdim=True)
    return risen / mean.where(mean > torch.finfo(mean.dtype).tiny, 1.0)
