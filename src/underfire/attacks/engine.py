"""The one loop of all attacks: forward pass, directions, step, best iterate."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from underfire.attacks.best import Best
from underfire.attacks.control import Balance, Confidence, Schedule, unit
from underfire.attacks.perturbations import Linf
from underfire.attacks.rules import Adam, sign
from underfire.classifier import Classifier
from underfire.interpreters.base import ForwardPass, Interpreter, Task, require_finite


@dataclass(frozen=True)
class Setting:
    """What the loop is told, apart from the images: budget, steps and how to choose between goals."""

    perturbation: Linf
    schedule: Schedule
    confidence: Confidence = field(default_factory=Confidence)
    keep_best: bool = True


@dataclass(frozen=True)
class Outcome:
    """The kept iterates (N, C, H, W) and the passes spent on each image."""

    x_adv: Tensor
    passes: int


def descend(
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    goals: Sequence[tuple[Interpreter, Task]],
    setting: Setting,
) -> Outcome:
    """Move ``x`` (N, C, H, W) towards ``target`` (N,) and the goals' maps; with no goal this is PGD.

    Every step pays one shared forward pass, a backward pass for the prediction, and what each goal's interpreter
    asks for. Each image follows its own path: nothing is averaged over the batch.

    Raises:
        NonFiniteError: a loss or a direction is not a number.
    """
    if x.shape[0] == 1:  # sums over one image take another order than over several: see Classifier.scores
        target = target.repeat(2)
        pair = [(interpreter, _twice(task, target)) for interpreter, task in goals]
        outcome = descend(classifier, x.repeat(2, 1, 1, 1), target, pair, setting)
        return Outcome(outcome.x_adv[:1], outcome.passes)
    with classifier.frozen():
        return _loop(classifier, x, target, goals, setting)


def _loop(
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    goals: Sequence[tuple[Interpreter, Task]],
    setting: Setting,
) -> Outcome:
    schedule, confidence = setting.schedule, setting.confidence
    aims = [interpreter.aim(task) for interpreter, task in goals]
    taps = tuple({tap: None for interpreter, _ in goals for tap in interpreter.taps})
    balance = Balance(x.shape[0], x)
    best = Best(x)
    adam = Adam(x)
    x_adv, passes = x, 0
    for step in range(schedule.steps + 1):
        last = step == schedule.steps
        if last and not setting.keep_best:
            return Outcome(x_adv, passes)
        joint = bool(aims) and step >= schedule.warm
        view = ForwardPass(classifier, x_adv, taps=taps if joint else ())
        passes += 1
        nll = view.nll(target).detach()
        require_finite(nll[:, None], "the prediction loss")
        pull: Tensor | None = None
        if joint:
            answers = [aim(view) for aim in aims]
            passes += sum(answer.passes for answer in answers)
            gap = torch.stack([answer.loss for answer in answers]).mean(dim=0)
            require_finite(gap[:, None], "the interpretation loss")
            best.offer(x_adv, holds=confidence.holds(view.logits, target), nll=nll, gap=gap)
            pull = torch.stack([unit(answer.direction) for answer in answers]).mean(dim=0)
        elif not aims:
            best.offer(x_adv, holds=view.logits.argmax(dim=1) == target, nll=nll, gap=nll)
        if last:
            break
        direction = unit(view.nll_gradient(target))
        if pull is not None:
            direction = balance.mix(direction, pull, confidence.wanting(view.logits, target))
        require_finite(direction, "the direction of the step")  # sign(NaN) is 0: the image would silently stay
        considered = adam(direction)  # from the first step on, so that the joint steps begin with a spread to go by
        move = considered if joint else sign(direction)
        x_adv = setting.perturbation.move(x_adv, x, move, schedule.size(step))
    return Outcome(best.x_adv, passes)


def _twice(task: Task, classes: Tensor) -> Task:
    """The task of one image, for a batch that holds it twice, with the very tensor that the loop aims at."""
    return replace(task, classes=classes, maps=task.maps.repeat(2, 1, 1), keys=task.keys * 2)
