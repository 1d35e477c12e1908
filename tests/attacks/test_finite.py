"""What is not finite stops an attack with the image's place, at once or when it is asked."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from support.toys import images, relu_net
from underfire import CAM, Classifier, Linf, MinimumNorm, NonFiniteError, Universal
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting, descend
from underfire.attacks.finite import FiniteChecks
from underfire.interpreters import ForwardPass, MapGradient, MapObjective, MapTarget
from underfire.models.folded import prepared

WRONG = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [0.0, torch.inf]])


def test_at_once_it_stops_there_and_put_off_when_it_is_asked() -> None:
    with pytest.raises(NonFiniteError, match="the loss of image 1 contains NaN"):
        FiniteChecks(at_once=True).add(WRONG, "the loss")
    checks = FiniteChecks(at_once=False)
    checks.add(WRONG[:1], "the loss")
    checks.ask()
    checks.add(WRONG[:1], "the loss")
    checks.add(WRONG, "the direction")
    checks.add(WRONG.flip(0), "the loss")
    with pytest.raises(NonFiniteError, match="the direction of image 1 contains NaN"):
        checks.ask()
    checks.ask()  # it was told


@pytest.mark.parametrize("at_once", [False, True])
def test_rows_that_do_not_count_may_be_anything(at_once: bool) -> None:
    checks = FiniteChecks(at_once=at_once)
    checks.add(WRONG, "the loss", own=1)
    checks.add(WRONG, "the loss", own=2, live=torch.tensor([True, False]))
    checks.ask()


@pytest.mark.parametrize("at_once", [False, True])
def test_the_place_may_be_another_than_that_in_the_values(at_once: bool) -> None:
    def stopped() -> None:
        checks = FiniteChecks(at_once=at_once)
        checks.add(WRONG, "the loss", rows=torch.tensor([7, 5, 6]))
        checks.ask()

    with pytest.raises(NonFiniteError, match="image 5"):
        stopped()


def test_what_was_not_finite_is_told_in_place_of_what_it_led_to() -> None:
    def divided(values: Tensor) -> None:
        checks = FiniteChecks(at_once=False)
        with checks.told_first():
            checks.add(values, "the loss")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        divided(WRONG[:1])
    with pytest.raises(NonFiniteError, match="the loss of image 1"):
        divided(WRONG)


def _spoilt(scores: Callable[[Classifier, Tensor], Tensor]) -> Callable[[Classifier, Tensor], Tensor]:
    """``scores`` with NaN for the image at place 1 of three that are attacked."""

    def spoilt(classifier: Classifier, x: Tensor) -> Tensor:
        place = torch.arange(len(x))[:, None] == 1
        return scores(classifier, x).masked_fill(place & x.requires_grad, torch.nan)

    return spoilt


class _StrictObjective:
    """Fails where an image is not finite."""

    def __init__(self, objective: MapObjective) -> None:
        self.taps, self.needs_backward = objective.taps, objective.needs_backward
        self._objective, self.select = objective, objective.select

    def __call__(self, view: ForwardPass) -> MapGradient:
        if not torch.isfinite(view.logits).all():
            raise ValueError("no number")
        return self._objective(view)


class _Strict(CAM):
    def objective(self, target: MapTarget) -> MapObjective:
        return _StrictObjective(super().objective(target))


@pytest.mark.parametrize("attack", ["descend", "minimum norm", "universal"])
def test_an_interpreter_that_fails_on_it_is_not_what_is_told(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underfire.attacks.engine.RHYTHM", {"cpu": 8})
    for module in ("minimum_norm", "universal"):
        monkeypatch.setattr(f"underfire.attacks.{module}.SYNCHRONOUS", frozenset())
    classifier = Classifier(relu_net(), input_size=32)
    x, target = (images(3, 32) * 255).round() / 255, torch.tensor([1, 2, 3])
    strict = _Strict(classifier)
    maps = strict(x, target)
    objective = strict.objective(MapTarget(target, maps, ("a", "b", "c"), 0))
    monkeypatch.setattr(Classifier, "scores", _spoilt(Classifier.scores))
    schedule = Schedule(8, warm=0, first=1 / 255, peak=2 / 255, last=0.1 / 255)
    runs: dict[str, Callable[[], object]] = {
        "descend": lambda: descend(prepared(classifier), x, target, [objective], Setting(Linf(8 / 255), schedule)),
        "minimum norm": lambda: MinimumNorm(strict, goal="target/led", passes=30)(x, target, target_map=maps),
        "universal": lambda: Universal(strict, passes=12, batch_size=3).fit(x, target),
    }
    with pytest.raises(NonFiniteError, match="of image 1 contains NaN"):
        runs[attack]()
