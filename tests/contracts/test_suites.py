"""The public suites pass the built-in parts, and catch those that lie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from underfire import ADV2, CAM, GRAD, L2, PGD, AttackResult, Classifier, Flow, Interpreter, JointAttack, Linf, Square
from underfire.attacks.perturbations import Perturbation
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.testing import check_attack, check_perturbation, check_signal

Make = Callable[[Classifier], JointAttack]


@pytest.mark.parametrize(
    "make",
    [
        lambda c: PGD(c, steps=40),
        lambda c: ADV2(CAM(c), steps=40),
        lambda c: ADV2([CAM(c), GRAD(c)], perturbation=L2(0.5), steps=40),
        lambda c: Square(CAM(c), queries=60),
    ],
    ids=["pgd", "adv2", "adv2 on two in L2", "square"],
)
def test_attacks_keep_the_contract(make: Make) -> None:
    check_attack(make)


class _Honest(PGD):
    """Altered by nothing."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, steps=40)

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        return self.alter(super().run(x, target, goals, keys))

    def alter(self, result: AttackResult) -> AttackResult:
        return result


class _AlwaysSucceeds(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, success=torch.ones_like(result.success))


class _Certain(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, confidence=torch.ones_like(result.confidence))


class _Predicts(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, prediction=result.target)


class _BeyondBudget(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, x_adv=(result.x + 3 * (result.x_adv - result.x)).clamp(0, 1))


class _BeyondRange(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, x_adv=result.x_adv - 1)


class _DoesNothing(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, x_adv=result.x)


class _ChannelsLast(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, x_adv=result.x_adv.permute(0, 2, 3, 1))


class _SaysOnePass(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        return replace(result, passes=torch.ones_like(result.passes))


class _Couples(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        mean = (result.x_adv - result.x).mean(dim=0, keepdim=True)
        with torch.no_grad():
            x_adv = (result.x + mean).clamp(0, 1)
            p = self.classifier.probabilities(x_adv)
        prediction = p.argmax(dim=1) if len(x_adv) else result.prediction
        return replace(
            result,
            x_adv=x_adv,
            prediction=prediction,
            success=prediction == result.target,
            confidence=p.gather(1, result.target[:, None]).squeeze(1),
        )


class _Trains(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        self.classifier.module.eval()
        return result


class _Draws(_Honest):
    def alter(self, result: AttackResult) -> AttackResult:
        torch.rand(1)
        return result


class _Overwrites(_Honest):
    def __call__(
        self,
        x: Tensor,
        target: Tensor | None,
        *,
        target_map: object = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
        result = super().__call__(x, target, label=label, keys=keys)
        x.data.copy_(result.x_adv)
        return result


class _TakesAnything(_Honest):
    def __call__(
        self,
        x: Tensor,
        target: Tensor | None,
        *,
        target_map: object = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
        if x.ndim == 4 and len(x) and float(x.max()) > 1:
            x = x / 255
        return super().__call__(x, target, label=label, keys=keys)


class _Misnamed(_Honest):
    name = "my-pgd"


def test_altered_by_nothing_it_passes() -> None:
    check_attack(_Honest)


@pytest.mark.parametrize(
    ("liar", "sentence"),
    [
        (_AlwaysSucceeds, "success is not whether the target is predicted"),
        (_Certain, "the confidence is not the classifier's"),
        (_Predicts, "the predictions are not the classifier's"),
        (_BeyondBudget, "outside its budget"),
        (_BeyondRange, r"images leave \[0, 1\]"),
        (_DoesNothing, "no image is changed"),
        (_ChannelsLast, r"\(N, C, H, W\)"),
        (_SaysOnePass, "tells of 5 passes"),
        (_Couples, "what else is in the batch changes an image"),
        (_Trains, "leaves the training modes of the model changed"),
        (_Draws, "global random state"),
        (
            _Overwrites,
            "the benign images of its result are others",
        ),
        (_TakesAnything, r"values beyond \[0, 1\] are not refused"),
        (_Misnamed, "my-pgd"),
    ],
)
def test_the_suite_catches_a_lying_attack(liar: Make, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_attack(liar)


@pytest.mark.parametrize("make", [Linf, L2, Flow])
def test_perturbations_keep_the_contract(make: Callable[[], Perturbation]) -> None:
    check_perturbation(make)


class _WrongWay(Linf):
    def pull_back(self, x: Tensor, theta: Tensor, direction: Tensor) -> Tensor:
        return -super().pull_back(x, theta, direction)


class _Unbounded(Linf):
    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        return theta.clamp(0, 1)


class _OutOfRange(Linf):
    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        return x + (theta - x).clamp(-self.eps, self.eps)

    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        return super().contains(x, image)


class _Shares(L2):
    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        return super().size(x, theta).max().expand(len(x))


class _RoundsAway(Linf):
    def rounded(self, x: Tensor, image: Tensor) -> Tensor:
        return (image * 255 + 9).clamp(0, 255).to(torch.uint8) if len(x) else super().rounded(x, image)


class _TakesAll(Linf):
    def contains(self, x: Tensor, image: Tensor) -> Tensor:
        return torch.ones(len(x), dtype=torch.bool)


class _Begins(Linf):
    def start(self, x: Tensor) -> Tensor:
        return (x + 1 / 255).clamp(0, 1)


class _Borrows(Linf):
    def start(self, x: Tensor) -> Tensor:
        return x


class _LongSteps(L2):
    def steepest(self, direction: Tensor) -> Tensor:
        return 2 * super().steepest(direction)


@pytest.mark.parametrize(
    ("liar", "sentence"),
    [
        (_WrongWay, "moves the image against it"),
        (_Unbounded, "project leaves more than the budget"),
        (_OutOfRange, r"projected images leave \[0, 1\]"),
        (_Shares, "what else is in the batch changes size"),
        (_RoundsAway, "as it is saved is outside the budget"),
        (_TakesAll, "contains takes an image that is far"),
        (_Begins, "its start is another image"),
        (_Borrows, "its start shares memory with the image"),
        (_LongSteps, "its steepest move is not of size 1"),
    ],
)
def test_the_suite_catches_a_lying_perturbation(liar: Callable[[], Perturbation], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_perturbation(liar)


class _Measures(EnsembleSignals):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__([CAM(classifier), GRAD(classifier)])


class _Standardised(_Measures):
    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        found = super().measure(x, keys)
        return found - found.mean(dim=0)


class _NotANumber(_Measures):
    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        return super().measure(x, keys) / 0


class _Halves(_Measures):
    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        return super().measure(x, keys).float()


class _Fewer(_Measures):
    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        return super().measure(x, keys)[:, 1:]


class _ByChance(_Measures):
    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        return super().measure(x, keys) + torch.rand(1)


def test_signals_keep_the_contract() -> None:
    check_signal(_Measures)


@pytest.mark.parametrize(
    ("liar", "sentence"),
    [
        (_Standardised, "what else is in the batch changes"),
        (_NotANumber, "NaN or infinite"),
        (_Halves, "not float64"),
        (_Fewer, "numbers for 5 images"),
        (_ByChance, "measures other signals"),
    ],
)
def test_the_suite_catches_lying_signals(liar: type[_Measures], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_signal(liar)
