"""Every interpreter keeps the contract, and the contract's suite catches those that don't."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.toys import SMALL_FIT, every, untrained_rts
from underfire import (
    CAM,
    GRAD,
    IG,
    MASK,
    Classifier,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    Interpreter,
    LayerCAM,
)
from underfire.interpreters import ForwardPass, MapGradient, MapObjective, MapTarget
from underfire.interpreters.ig import PathObjective
from underfire.interpreters.maps import shape_distance
from underfire.models.recording import Spot
from underfire.seeding import generator
from underfire.testing import check_interpreter

EXACT = (CAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, EigenCAM, untrained_rts)


@every
def test_every_interpreter_keeps_the_contract(make: Callable[[Classifier], Interpreter]) -> None:
    check_interpreter(make, tolerance=1e-4 if make in EXACT else 0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda c: GRAD(c, probe=1e-7),
        lambda c: IG(c, probe=1e-7, points=32, strata=8),
        lambda c: IG(c, probe=1e-7, points=32, strata=8, output="logit", baseline=0.5),
    ],
    ids=["grad", "ig", "ig-logit"],
)
def test_directions_are_gradients_to_four_digits(make: Callable[[Classifier], Interpreter]) -> None:
    check_interpreter(make, tolerance=1e-4)


class _Altered:
    """An objective whose answers are changed on the way out."""

    def __init__(self, objective: MapObjective, alter: Callable[[MapGradient], MapGradient]) -> None:
        self._objective, self._alter = objective, alter
        self.taps, self.needs_backward = objective.taps, objective.needs_backward

    def __call__(self, view: ForwardPass) -> MapGradient:
        return self._alter(self._objective(view))

    def select(self, places: Tensor) -> None:
        self._objective.select(places)


class _Honest(CAM):
    """Altered by nothing, so that what the others are caught for is what they do."""

    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: answer)


class _WrongSign(CAM):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, direction=-answer.direction))


class _Elsewhere(GradCAM):
    """A direction in the activation that is said to be one in the image."""

    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, at=None))


class _Detached(GRAD):
    """Integrates nothing: the direction of a map taken for constant, as chunked code that detaches gives."""

    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, direction=0 * answer.direction))


class _SquaredGap(CAM):
    """Its distance is another measure than the one that maps are judged by."""

    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, distance=answer.distance.square()))


class _SummedGap(GRAD):
    """The sum over the cells where the mean was promised."""

    def objective(self, target: MapTarget) -> MapObjective:
        cells = self.grid[0] * self.grid[1]
        return _Altered(super().objective(target), lambda answer: replace(answer, distance=answer.distance * cells))


class _OneLossForAll(CAM):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, loss=answer.loss.mean()))


class _BatchScaled(CAM):
    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = super().compute(x, y, keys)
        return maps * maps.mean()


class _PredictsOtherwise(CAM):
    def predicted(self, x: Tensor, keys: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        logits, maps = super().predicted(x, keys)
        return logits, 1 - maps


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


class _SilentlyBack(CAM):
    """Its direction is carried back through the view, which it denies."""

    def objective(self, target: MapTarget) -> MapObjective:
        objective = _Altered(super().objective(target), lambda answer: answer)
        objective.needs_backward = False
        return objective


class _SilentlyBackFurther(GradCAM):
    """The same, where the map itself needs a backward pass."""

    def objective(self, target: MapTarget) -> MapObjective:
        objective = _Altered(super().objective(target), lambda answer: answer)
        objective.needs_backward = False
        return objective


class _Partless(CAM):
    """Does not say whether it goes back."""

    def objective(self, target: MapTarget) -> MapObjective:
        objective = _Altered(super().objective(target), lambda answer: answer)
        del objective.needs_backward
        return objective


class _Tapless(CAM):
    """Reads an activation that it has not asked for."""

    def objective(self, target: MapTarget) -> MapObjective:
        objective = _Altered(super().objective(target), lambda answer: answer)
        objective.taps = ()
        return objective


class _OtherAt(GradCAM):
    """Answers in an activation that it has not asked for."""

    def objective(self, target: MapTarget) -> MapObjective:
        elsewhere = replace(self.features, spot=Spot("0", call=7))
        return _Altered(super().objective(target), lambda answer: replace(answer, at=elsewhere))


class _Deaf(_Altered):
    """Goes on with all images."""

    def select(self, places: Tensor) -> None:
        pass


class _Orderly(_Altered):
    """Goes on with the right images, in the order they had."""

    def select(self, places: Tensor) -> None:
        self._objective.select(places.sort().values)


class _KeepsAll(GRAD):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Deaf(super().objective(target), lambda answer: answer)


class _KeepsAllActivations(CAM):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Deaf(super().objective(target), lambda answer: answer)


class _KeepsOrder(GRAD):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Orderly(super().objective(target), lambda answer: answer)


class _SharedDraws(IG):
    """Two copies of one image draw from one generator, in turn."""

    def objective(self, target: MapTarget) -> MapObjective:
        class Shared(PathObjective):
            def select(self, places: Tensor) -> None:
                draws = [self._draws[place] for place in places.tolist()]
                super().select(places)
                self._draws = draws

        return Shared(self, target, self.linearised, shape_distance)


class _Forgets(IG):
    """Whoever selects begins anew."""

    def objective(self, target: MapTarget) -> MapObjective:
        class Forgetful(PathObjective):
            def select(self, places: Tensor) -> None:
                draws = [generator(self._target.seed, key, IG.name) for key in self._target.keys]
                self._draws = draws
                super().select(places)

        return Forgetful(self, target, self.linearised, shape_distance)


class _OldGradients(IG):
    """Goes on with the gradients of other images."""

    def objective(self, target: MapTarget) -> MapObjective:
        class Old(PathObjective):
            def select(self, places: Tensor) -> None:
                gradients = self._gradients
                super().select(places)
                self._gradients = None if gradients is None else gradients[: len(places)]

        return Old(self, target, self.linearised, shape_distance)


class _ByTheBatch(CAM):
    """Its direction is scaled by the largest of the batch."""

    def objective(self, target: MapTarget) -> MapObjective:
        def alter(answer: MapGradient) -> MapGradient:
            share = 1e-3 * answer.direction.abs().amax()
            return replace(answer, direction=answer.direction * (1 + share))

        return _Altered(super().objective(target), alter)


class _SaysFewer(GRAD):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, passes=0))


class _PlansFewer(IG):
    """Plans every look like the later ones."""

    def further_passes(self, looks: int) -> int:
        return 2 * looks


class _PlansOneAlways(CAM):
    def further_passes(self, looks: int) -> int:
        return 1


class _HalfPulled(GRAD):
    """Its way back is changed for the derivative as well."""

    def pulled_back(self, x: Tensor, y: Tensor, keys: tuple[str, ...], cotangent: Tensor) -> Tensor:
        return 0.5 * super().pulled_back(x, y, keys, cotangent)


class _Estimating(MASK):
    """A fit for small pictures; its direction is held to descent alone."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, fit=SMALL_FIT)

    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: answer)


class _Climbs(_Estimating):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, direction=-answer.direction))


class _ClimbsWithOne(_Estimating):
    """A single image of the batch is led upwards."""

    def objective(self, target: MapTarget) -> MapObjective:
        def alter(answer: MapGradient) -> MapGradient:
            direction = answer.direction.clone()
            direction[1] *= -1
            return replace(answer, direction=direction)

        return _Altered(super().objective(target), alter)


class _StandsStill(_Estimating):
    def objective(self, target: MapTarget) -> MapObjective:
        return _Altered(super().objective(target), lambda answer: replace(answer, direction=0 * answer.direction))


@pytest.mark.parametrize("honest", [_Honest, _Estimating])
def test_an_objective_in_other_hands_is_the_same_objective(honest: type[Interpreter]) -> None:
    check_interpreter(honest, tolerance=1e-4)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (_WrongSign, "differs from finite differences"),
        (_Elsewhere, "not shaped like the images"),
        (_Detached, "differs from finite differences"),
        (_SquaredGap, "the distance is far from the maps' distance"),
        (_SummedGap, "the distance is far from the maps' distance"),
        (_OneLossForAll, "the loss is not one number per image"),
        (_BatchScaled, "gives other maps"),
        (_PredictsOtherwise, "predicted gives other maps than a call"),
        (_Trains, "gives another map|changes .* of the model"),
        (_Draws, "global random state"),
        (_DividesByZero, "not a number|NaN"),
        (_Unscaled, "leave"),
        (_SilentlyBack, "goes backward through a view, though its objective's needs_backward is False"),
        (_SilentlyBackFurther, "goes backward through a view, though its objective's needs_backward is False"),
        (_Partless, "its objective has no 'needs_backward'"),
        (_Tapless, "reads '0', which is not among its objective's taps"),
        (_OtherAt, "reads '0', which is not among its objective's taps"),
        (_KeepsAll, "after select, its objective does not go on with the images that are left"),
        (_KeepsAllActivations, "after select, its objective does not go on with the images that are left"),
        (_KeepsOrder, "having had other images before select changes an objective's distance"),
        (_SharedDraws, "having had other images before select changes an objective's"),
        (_Forgets, "having had other images before select changes an objective's"),
        (_OldGradients, "having had other images before select changes an objective's"),
        (_ByTheBatch, "what else is in the batch changes an objective's direction"),
        (_SaysFewer, r"further_passes\(1\) is 1, but the answers say 0 passes"),
        (_PlansFewer, r"further_passes\(1\) is 2, but the answers say 16 passes"),
        (_PlansOneAlways, r"further_passes\(0\) is not 0"),
        (_HalfPulled, "attribution_gradient differs from finite differences by 0.5 of their size"),
        (_Climbs, "a small step against the direction does not lower the loss"),
        (_ClimbsWithOne, "a small step against the direction does not lower the loss"),
        (_StandsStill, "the direction is zero"),
    ],
)
def test_the_suite_catches_a_broken_interpreter(broken: type[Interpreter], sentence: str) -> None:
    with pytest.raises((AssertionError, ArithmeticError), match=sentence):
        check_interpreter(broken)
