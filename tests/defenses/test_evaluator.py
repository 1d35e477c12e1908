"""A cached evaluator gives the same logits and maps to the bit, each computed once; and so does the mean map."""

import pytest
import torch
from torch import Tensor

from support.nets import poison, poisoned
from support.toys import images, relu_net
from underfire import CAM, GRAD, Classifier, EnsembleDetector, InputError, NonFiniteError, SmoothGrad
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.evaluator import CachedEvaluator
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.statistics import on_grid

KEYS = ("a", "b", "c")


class _Counting(GRAD):
    """GRAD that counts the maps it computes."""

    computed = 0

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        self.computed += len(x)
        return super().compute(x, y, keys)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


def test_a_map_is_computed_once_for_an_image_a_class_and_a_key(classifier: Classifier) -> None:
    grad, x, y, cached = _Counting(classifier), images(3, 32), torch.tensor([0, 1, 2]), CachedEvaluator()
    maps = grad(x, y, keys=KEYS)
    grad.computed = 0
    assert torch.equal(cached.maps(grad, x, y, KEYS), maps)
    assert torch.equal(cached.maps(grad, x.flip(0), y.flip(0), KEYS[::-1]), maps.flip(0))
    assert grad.computed == 3
    cached.maps(grad, x[:1], y[1:2], KEYS[:1])  # another class
    cached.maps(grad, x[:1], y[:1], ["other"])
    assert grad.computed == 5
    again = cached.maps(grad, torch.cat([x[:1] / 2, x]), torch.tensor([0, 0, 1, 2]), ("a", *KEYS))
    assert torch.equal(again[1:], maps)
    assert grad.computed == 6
    cached.maps(_Counting(classifier), x, y, KEYS)  # another interpreter of the name
    assert grad.computed == 6


def test_what_is_cached_cannot_be_spoilt(classifier: Classifier) -> None:
    x, y, cam, cached = images(1, 32), torch.tensor([2]), CAM(classifier), CachedEvaluator()
    before = cached.maps(cam, x, y, ["a"]).clone()
    cached.maps(cam, x, y, ["a"]).zero_()
    assert torch.equal(cached.maps(cam, x, y, ["a"]), before)
    logits = cached.logits(classifier, x).clone()
    cached.logits(classifier, x).zero_()
    assert torch.equal(cached.logits(classifier, x), logits)


def test_the_image_is_named_though_others_are_cached() -> None:
    classifier, x, cached = poisoned(relu_net(), size=32), poison(images(4, 32), 3), CachedEvaluator()
    cached.logits(classifier, x[:2])
    with pytest.raises(NonFiniteError) as caught:
        cached.logits(classifier, x)
    assert caught.value.index == 3


def test_cached_signals_are_the_same_to_the_bit(classifier: Classifier) -> None:
    interpreters = [CAM(classifier), GRAD(classifier), SmoothGrad(classifier, samples=2)]
    x = images(3, 32)
    for watched in (interpreters, MeanMap(interpreters[:2])):
        plain, cached = EnsembleSignals(watched), EnsembleSignals(watched, evaluator=CachedEvaluator())
        expected = plain.measure(x, KEYS)
        assert torch.equal(cached.measure(x, KEYS), expected)
        assert torch.equal(cached.measure(x, KEYS), expected)


def test_the_mean_map_is_the_mean_on_the_common_grid(classifier: Classifier) -> None:
    parts = [CAM(classifier), GRAD(classifier)]
    mean, x = MeanMap(parts), images(2, 32)
    classes = classifier(x).argmax(dim=1)
    expected = (on_grid(parts[0](x, classes)) + on_grid(parts[1](x, classes))) / 2
    signals = EnsembleSignals(mean)
    torch.testing.assert_close(signals.maps(x)["mean-map"].double(), expected, rtol=0, atol=1e-7)
    assert signals.interpreters == tuple(parts)
    assert mean.grid == (28, 28)
    assert mean.passes_per_map == sum(g.passes_per_map for g in parts)
    detector = EnsembleDetector(mean, fpr=0.3).fit(images(20, 32))
    assert detector.predict(x).shape == (2,)


def test_a_mean_of_nothing_is_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="no interpreter was given"):
        MeanMap([])
    with pytest.raises(InputError, match="share"):
        MeanMap([CAM(classifier), CAM(classifier)])
