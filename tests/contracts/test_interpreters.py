"""Every interpreter keeps the contract, and the contract's suite catches those that don't."""

from collections.abc import Callable

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


class _WrongSign(CAM):
    def aim(self, task: Task) -> Aim:
        honest = super().aim(task)

        def pull(view: ForwardPass) -> Pull:
            answer = honest(view)
            return Pull(answer.loss, -answer.direction, answer.passes)

        return pull


class _Detached(GRAD):
    """Integrates nothing: the direction of a map taken for constant, as chunked code that detaches gives."""

    def aim(self, task: Task) -> Aim:
        honest = super().aim(task)

        def pull(view: ForwardPass) -> Pull:
            answer = honest(view)
            return Pull(answer.loss, torch.zeros_like(answer.direction), answer.passes)

        return pull


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


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (_WrongSign, "differs from finite differences"),
        (_Detached, "differs from finite differences"),
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
