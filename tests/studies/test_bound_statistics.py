"""Both bounds in closed form, on random models and attributions, and with mistakes planted."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.nets import linear_classifier, pixel_weights, squares_classifier
from support.toys import images, relu_net
from underfire.errors import InputError
from underfire.interpreters import IG
from underfire.interpreters.path import Field, PathAttribution, integrate
from underfire.models.classifier import Classifier
from underfire.studies import bound_statistics as bound
from underfire.studies.bound_statistics import (
    BoundViolationError,
    check_lower_bound,
    logit_attributions,
    proposition_1,
    two_class,
    two_class_discrepancy,
)


class _Binary(torch.nn.Module):
    """Two logits, (0, w·x + b)."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        logit = (x * self.weight).sum(dim=(1, 2, 3)) + self.bias
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def binary(weight: Tensor, bias: float = 0.0) -> Classifier:
    return Classifier(_Binary(weight, bias), input_size=(weight.shape[1], weight.shape[2]))


def changed(x: Tensor, seed: int, eps: float = 0.03) -> Tensor:
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x.double() + eps * step.sign()).clamp(0, 1).to(x.dtype)


def test_a_linear_binary_model_in_closed_form() -> None:
    """Every path point has the gradient s'·w, so Δm = (f(x*) − f(x°)) · d·w / Σ d·w."""
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 4, 4, generator=draw, dtype=torch.float64)
    x, y = images(2, 4, dtype=torch.float64)
    classifier, terms = binary(weight, bias=-0.4), (y - x) * weight
    found = proposition_1(classifier, x, y, label=0, target=1, tolerance=1e-5)
    p = classifier.probabilities(torch.stack([x, y]))[:, 1]
    prediction = float(p[1] - p[0])
    assert found.prediction == pytest.approx(prediction, abs=1e-12)
    assert found.interpretation == pytest.approx(
        abs(prediction / float(terms.sum())) * float(terms.abs().sum()), rel=1e-3
    )
    assert found.slack == pytest.approx(found.interpretation - prediction, abs=1e-12)
    assert found.residual <= 1e-5


def test_equality_where_every_term_is_at_least_zero() -> None:
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = images(1, 4, dtype=torch.float64)[0]
    along = (x + 0.04 * weight.sign()).clamp(0, 1)
    found = proposition_1(binary(weight), x, along, label=0, target=1, tolerance=1e-5)
    assert found.slack == pytest.approx(0, abs=2e-5)
    one_against = along.clone()
    one_against[0, 0, 0] = x[0, 0, 0] - 0.04 * weight[0, 0, 0].sign()
    found = proposition_1(binary(weight), x, one_against, label=0, target=1, tolerance=1e-5)
    assert found.slack > 1e-4


def test_the_restriction_of_a_binary_model_is_the_model() -> None:
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, y = images(2, 4, dtype=torch.float64)
    p = binary(weight).probabilities(torch.stack([x, y]))[:, 1]
    found = proposition_1(binary(weight), x, y, label=0, target=1, tolerance=1e-3)
    assert found.prediction == pytest.approx(float(p[1] - p[0]), abs=1e-12)


def test_the_restriction_is_the_softmax_over_two_logits(relu_classifier: Classifier) -> None:
    x, y = images(2, 32)
    logits = relu_classifier(torch.stack([x, y])).detach().double()[:, [4, 7]]
    p = logits.softmax(dim=1)[:, 1]
    found = proposition_1(relu_classifier, x, y, label=4, target=7, tolerance=0.01)
    assert found.prediction == pytest.approx(float(p[1] - p[0]), abs=1e-6)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000), label=st.integers(0, 9), step=st.integers(1, 9), eps=st.sampled_from([0.01, 0.05, 0.3])
)
def test_proposition_1_holds_for_any_image_of_a_network(seed: int, label: int, step: int, eps: float) -> None:
    classifier = Classifier(relu_net(seed % 7), mean=0.5, std=0.25, input_size=32)
    x = images(1, 32, seed=seed)[0]
    y = changed(x, seed, eps)
    found = proposition_1(classifier, x, y, label=label, target=(label + step) % 10, tolerance=0.02)
    assert found.residual <= 0.02 + 1e-6
    assert -1 <= found.prediction <= found.interpretation + found.residual


def test_an_image_against_itself_has_nothing(relu_classifier: Classifier) -> None:
    x = images(1, 32)[0]
    found = proposition_1(relu_classifier, x, x, label=0, target=1, tolerance=0.01)
    assert (found.prediction, found.interpretation, found.slack) == (0, 0, 0)


def test_nothing_stays_on_the_model(relu_classifier: Classifier) -> None:
    x, y = images(2, 32)
    relu_classifier.module.train()
    proposition_1(relu_classifier, x, y, label=0, target=1, tolerance=0.05)
    assert relu_classifier.module.training
    assert all(p.requires_grad and p.grad is None for p in relu_classifier.module.parameters())


def test_a_broken_quadrature_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """An integration that says it is complete and is not."""

    def lying(field: Field, start: Tensor, end: Tensor, *, tolerance: float) -> PathAttribution:
        return replace(honest := integrate(field, start, end, tolerance=tolerance), values=0.5 * honest.values)

    weight = torch.ones(3, 4, 4, dtype=torch.float64)
    x = images(1, 4, dtype=torch.float64)[0]
    monkeypatch.setattr(bound, "integrate", lying)
    with pytest.raises(BoundViolationError, match=r"Proposition 1, ℓ_prd ≤ ‖Δm‖₁, is violated: 0\.\d+ > 0\.\d+"):
        proposition_1(binary(weight, -float(x.sum())), x, (x + 0.05).clamp(0, 1), label=0, target=1, tolerance=1e-3)


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 0.98), (float("nan"), 1.0), (1.0, float("nan"))])
def test_what_is_not_below_is_a_violation(lower: float, upper: float) -> None:
    with pytest.raises(BoundViolationError):
        check_lower_bound(lower, upper, 0.01, "the bound")


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 1.0), (1.0, 0.991), (-1.0, 0.0)])
def test_what_is_below_within_the_tolerance_is_none(lower: float, upper: float) -> None:
    check_lower_bound(lower, upper, 0.01, "the bound")


def test_arguments_are_checked(relu_classifier: Classifier) -> None:
    x = images(1, 32)[0]
    with pytest.raises(InputError, match="class 10 does not exist"):
        proposition_1(relu_classifier, x, x, label=0, target=10, tolerance=0.01)
    with pytest.raises(InputError, match="outside"):
        proposition_1(relu_classifier, x, x + 5, label=0, target=1, tolerance=0.01)
    with pytest.raises(InputError, match="images of shape"):
        logit_attributions(relu_classifier, x[:, :8], label=0, target=1, tolerance=0.01)


def test_the_measure_over_two_classes_of_a_linear_model() -> None:
    """I(x, c) = w_c · (x − x̄)/s: D is half the weighted distance of the images, for both classes."""
    classifier, weight = linear_classifier(), pixel_weights() / 0.25
    x, y = images(2, 16, dtype=torch.float64)
    before, after = (logit_attributions(classifier, z, label=1, target=4, tolerance=1e-9) for z in (x, y))
    found = two_class(before, after)
    assert torch.allclose(before.values, weight[[1, 4]] * x, atol=1e-12)
    expected = sum(float(((x - y) * weight[c]).abs().sum()) for c in (1, 4)) / 2
    assert found.discrepancy == pytest.approx(expected, rel=1e-9)
    assert found.half_margin == pytest.approx(abs(float(((x - y) * (weight[1] - weight[4])).sum())) / 2, rel=1e-9)
    assert found.discrepancy == two_class_discrepancy(before.values, after.values)


def test_the_measure_over_two_classes_meets_its_bound() -> None:
    """Equality: the terms of the label only fall, those of the target only rise."""
    rise = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    after = before + torch.stack([-rise, 2 * rise])
    moved = (after - before).sum(dim=(1, 2))
    assert two_class_discrepancy(before, after) == pytest.approx(float(moved[1] - moved[0]) / 2)


def test_the_attributions_are_those_of_ig() -> None:
    classifier = squares_classifier()
    x = images(1, 16, dtype=torch.float64)
    found = logit_attributions(classifier, x[0], label=2, target=0, tolerance=1e-8, baseline=0.5)
    for row, c in enumerate((2, 0)):
        same = IG(classifier, points=4, output="logit", baseline=0.5).integrate(x, torch.tensor([c]))
        assert torch.allclose(found.values[row], same.values[0], atol=1e-10)


values = st.floats(-1e3, 1e3)
maps = st.lists(st.tuples(values, values, values, values), min_size=1, max_size=20)


@given(terms=maps)
def test_the_theorem_for_any_complete_attributions(terms: list[tuple[float, float, float, float]]) -> None:
    """Whatever the terms, outputs that they sum to, from a baseline of their own, move no more than D allows."""
    before_label, after_label, before_target, after_target = torch.tensor(terms, dtype=torch.float64).T
    before, after = torch.stack([before_label, before_target]), torch.stack([after_label, after_target])
    outputs = [a.sum(dim=1) + torch.tensor([3.0, -7.0]) for a in (before, after)]
    margins = [float(z[0] - z[1]) for z in outputs]
    found = two_class_discrepancy(before, after)
    assert found >= abs(margins[0] - margins[1]) / 2 - 1e-9
    if margins[0] >= 0 >= margins[1]:
        assert found >= margins[0] / 2 - 1e-9


@settings(max_examples=12)
@given(seed=st.integers(0, 1000), step=st.integers(1, 9))
def test_the_theorem_on_a_network(seed: int, step: int) -> None:
    classifier = Classifier(relu_net(seed % 5), mean=0.5, std=0.25, input_size=32)
    x = images(1, 32, seed=seed)[0]
    label = seed % 10
    before, after = (
        logit_attributions(classifier, z, label=label, target=(label + step) % 10, tolerance=0.5)
        for z in (x, changed(x, seed))
    )
    found = two_class(before, after)
    logits = classifier(torch.stack([x, changed(x, seed)])).detach()
    margins = logits[:, label] - logits[:, (label + step) % 10]
    assert found.half_margin == pytest.approx(abs(float(margins[0] - margins[1])) / 2, abs=1e-3)
    assert found.discrepancy >= found.half_margin - found.residual


def test_one_class_alone_can_be_evaded() -> None:
    """The target's logit overtakes the label's while the label's attribution stays, and what is shown stays too."""
    before, after = torch.tensor([[2.0, 1.0], [0.0, 0.0]]), torch.tensor([[2.0, 1.0], [2.0, 1.5]])
    assert (before[0] - after[0]).abs().sum() == 0  # the label's maps
    assert (before[0] - torch.tensor([2.0, 1.5])).abs().sum() == 0.5  # what a person compares
    assert two_class_discrepancy(before, after) == 1.75  # ½ |3 − (3 − 3.5)|


def test_an_attribution_that_is_not_complete_is_a_violation() -> None:
    classifier = linear_classifier()
    x, y = images(2, 16, dtype=torch.float64)
    before, after = (logit_attributions(classifier, z, label=1, target=4, tolerance=1e-9) for z in (x, y))
    with pytest.raises(BoundViolationError, match="bound over two classes"):
        two_class(replace(before, values=torch.zeros_like(before.values)), replace(after, values=0 * after.values))


@pytest.mark.parametrize("shapes", [((2, 4), (2, 5)), ((3, 4), (3, 4)), ((1, 4), (1, 4))])
def test_two_attributions_of_two_classes_are_compared(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="give two of"):
        two_class_discrepancy(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
