"""Every interpreter keeps the contract, and the contract's suite catches those that don't."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from underfire import CAM, GRAD, IG, Classifier, GradCAM, Interpreter
from underfire.interpreters import ALL, Aim, ForwardPass, Pull, Task
from underfire.testing import check_interpreter


@pytest.mark.parametrize("interpreter", ALL, ids=lambda g: g.name)
def test_every_interpreter_keeps_the_contract(interpreter: type[Interpreter]) -> None:
    check_interpreter(interpreter)


@pytest.mark.parametrize(
    "make",
    [
        CAM,
        GradCAM,
        lambda c: GRAD(c, probe=1e-7),
        lambda c: IG(c, probe=1e-7, points=64, strata=16),
        lambda c: IG(c, probe=1e-7, points=64, strata=16, output="logit", baseline=0.5),
    ],
    ids=["cam", "gradcam", "grad", "ig", "ig-logit"],
)
def test_directions_are_gradients_to_four_digits(make: Callable[[Classifier], Interpreter]) -> None:
    check_interpreter(make, tolerance=1e-4)


class _Altered:
    """An aim whose answers are changed on the way out."""

    def __init__(self, aim: Aim, alter: Callable[[Pull], Pull]) -> None:
        self._aim, self._alter = aim, alter
        self.taps, self.goes_back = aim.taps, aim.goes_back

    def __call__(self, view: ForwardPass) -> Pull:
        return self._alter(self._aim(view))

    def select(self, places: Tensor) -> None:
        self._aim.select(places)


class _Honest(CAM):
    """Altered by nothing, so that what the others are caught for is what they do."""

    def aim(self, task: Task) -> Aim:
        return _Altered(super().aim(task), lambda answer: answer)


class _WrongSign(CAM):
    def aim(self, task: Task) -> Aim:
        return _Altered(super().aim(task), lambda answer: replace(answer, direction=-answer.direction))


class _Elsewhere(GradCAM):
    """A direction in the activation that is said to be one in the image."""

    def aim(self, task: Task) -> Aim:
        return _Altered(super().aim(task), lambda answer: replace(answer, at=None))


class _Detached(GRAD):
    """Integrates nothing: the direction of a map taken for constant, as chunked code that detaches gives."""

    def aim(self, task: Task) -> Aim:
        return _Altered(super().aim(task), lambda answer: replace(answer, direction=0 * answer.direction))


class _SquaredGap(CAM):
    """Its gap is another measure than the one that maps are judged by."""

    def aim(self, task: Task) -> Aim:
        return _Altered(super().aim(task), lambda answer: replace(answer, gap=answer.gap.square()))


class _SummedGap(GRAD):
    """The sum over the cells where the mean was promised."""

    def aim(self, task: Task) -> Aim:
        cells = self.grid[0] * self.grid[1]
        return _Altered(super().aim(task), lambda answer: replace(answer, gap=answer.gap * cells))


class _OneLossForAll(CAM):
    def aim(self, task: Task) -> Aim:
        return _Altered(super().aim(task), lambda answer: replace(answer, loss=answer.loss.mean()))


class _BatchScaled(CAM):
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = super().compute(x, y, keys)
        return maps * maps.mean()


class _Trains(CAM):
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        self.classifier.module[0][0].bias.data.add_(1e-3)  # type: ignore[index]
        return super().compute(x, y, keys)


class _Draws(CAM):
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        torch.rand(1)
        return super().compute(x, y, keys)


class _DividesByZero(CAM):
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = super().compute(x, y, keys)
        return maps / maps.amax(dim=(1, 2), keepdim=True)


class _Unscaled(CAM):
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return super().compute(x, y, keys) * 255


def test_an_aim_in_other_hands_is_the_same_aim() -> None:
    check_interpreter(_Honest, tolerance=1e-4)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (_WrongSign, "differs from finite differences"),
        (_Elsewhere, "not shaped like the images"),
        (_Detached, "differs from finite differences"),
        (_SquaredGap, "the gap is far from the maps' distance"),
        (_SummedGap, "the gap is far from the maps' distance"),
        (_OneLossForAll, "the loss is not one number per image"),
        (_BatchScaled, "gives other maps"),
        (_Trains, "gives another map|changes .* of the model"),
        (_Draws, "global random state"),
        (_DividesByZero, "not a number|NaN"),
        (_Unscaled, "leave"),
    ],
)
def test_the_suite_catches_a_broken_interpreter(broken: type[Interpreter], sentence: str) -> None:
    with pytest.raises((AssertionError, ArithmeticError), match=sentence):
        check_interpreter(broken)
