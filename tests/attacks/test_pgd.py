"""PGD: the last iterate and the best one."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.nets import linear_classifier, pixel_weights
from support.toys import images
from underfire import L2, PGD, Classifier, InputError
from underfire.attacks.pgd import Keep

X = images(6, 32)
KEEPS: tuple[Keep, Keep] = ("best", "last")


def _targets(classifier: Classifier) -> torch.Tensor:
    return (classifier(X).argmax(dim=1) + 1) % classifier.num_classes


def test_one_step_on_a_linear_model_is_known() -> None:
    """Targeted: each pixel moves by the sign of Σ p_k (w_t − w_k)."""
    classifier = linear_classifier()
    x, target = images(3, 16, dtype=torch.float64), torch.tensor([4, 0, 2])
    p = classifier.probabilities(x)
    uphill = pixel_weights()[target] - torch.einsum("nk,kchw->nchw", p, pixel_weights())
    result = PGD(classifier, eps=0.05, steps=1, step_size=0.01, keep="last")(x, target)
    torch.testing.assert_close(result.x_adv, x + 0.01 * uphill.sign())


def test_enough_steps_on_two_linear_classes_reach_the_optimum() -> None:
    """Of all images in the ball, the corner sign(w_t − w_o) has the highest p_t; PGD ends there."""
    weight = pixel_weights(2)
    classifier = linear_classifier()
    parameters = dict(classifier.module.named_parameters())
    parameters["bias"].data[2:] = -99  # out of the race
    parameters["weight"].data[2:] = 0
    torch.testing.assert_close(parameters["weight"][:2].detach(), weight)
    x = images(3, 16, dtype=torch.float64)
    best = (x + 0.02 * (weight[1] - weight[0]).sign()).clamp(0, 1)
    result = PGD(classifier, eps=0.02, steps=30, step_size=0.001)(x, torch.tensor([1, 1, 1]))
    torch.testing.assert_close(result.x_adv, best)


def test_it_succeeds_on_the_toy(relu_classifier: Classifier) -> None:
    x = images(12, 32)
    target = (relu_classifier(x).argmax(dim=1) + 1) % 10
    result = PGD(relu_classifier, steps=60)(x, target)
    assert result.success.all()
    assert float(result.confidence.min()) > 0.9


@given(steps=st.integers(1, 30), step_size=st.floats(0.2 / 255, 8 / 255))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_best_is_never_worse_than_the_last(relu_classifier: Classifier, steps: int, step_size: float) -> None:
    target = _targets(relu_classifier)
    best, last = (PGD(relu_classifier, steps=steps, step_size=step_size, keep=keep)(X, target) for keep in KEEPS)
    assert bool((best.success >= last.success).all())
    same = best.success == last.success
    assert bool((best.confidence >= last.confidence - 1e-5)[same].all())


def test_the_best_can_be_better_than_the_last(relu_classifier: Classifier) -> None:
    """Steps as long as the ball is wide swing from corner to corner."""
    target = _targets(relu_classifier)
    best, last = (PGD(relu_classifier, steps=11, step_size=16 / 255, keep=keep)(X, target) for keep in KEEPS)
    assert bool((best.confidence > last.confidence + 0.01).any())


def test_more_steps_are_never_worse(relu_classifier: Classifier) -> None:
    target = _targets(relu_classifier)
    results = [PGD(relu_classifier, steps=n, step_size=4 / 255)(X, target) for n in (1, 2, 3, 5, 8, 13)]
    for fewer, more in itertools.pairwise(results):
        assert bool((more.success >= fewer.success).all())
        same = more.success == fewer.success
        assert bool((more.confidence >= fewer.confidence - 1e-5)[same].all())


def test_an_image_that_is_the_target_already_stays_a_success(relu_classifier: Classifier) -> None:
    predicted = relu_classifier(X).argmax(dim=1)
    result = PGD(relu_classifier, steps=5)(X, predicted)
    assert result.success.all()
    assert bool((result.confidence >= relu_classifier.probabilities(X).amax(dim=1) - 1e-5).all())


@pytest.mark.parametrize(("keep", "expected"), [("last", 7), ("best", 8)])
def test_passes_are_the_steps_and_one_look_at_the_last_iterate(
    relu_classifier: Classifier, keep: Keep, expected: int
) -> None:
    result = PGD(relu_classifier, steps=7, keep=keep)(X, _targets(relu_classifier))
    assert result.passes.tolist() == [expected] * len(X)
    assert result.steps == 7


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": "first"}, "keep 'first' is unknown; give 'best' or 'last'"),
        ({"eps": 8}, "eps 8 is not .* write 8/255"),
        ({"eps": 0}, r"eps 0 is not in \(0, 1\]"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"steps": 300.0}, "steps is 300.0; give a whole number"),
        ({"passes": 2.5}, "passes is 2.5; give a whole number"),
        ({"perturbation": L2}, r"perturbation L2 is a class; write L2\(\) for its default budget"),
        ({"step_size": -0.1}, "step_size -0.1 must be"),
    ],
)
def test_refusals(relu_classifier: Classifier, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        PGD(relu_classifier, **options)  # type: ignore[arg-type]
