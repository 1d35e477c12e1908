"""Stand-ins that remember: the same maps to the bit, each computed once."""

import pytest
import torch
from torch import Tensor

from support.toys import images, relu_net
from underfire import CAM, GRAD, Classifier, EnsembleDetector, InputError, SmoothGrad
from underfire.defenses.ensemble_signals import EnsembleSignals, on_grid
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.remembered import remembered
from underfire.interpreters import MapTarget


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
    grad, x, y = _Counting(classifier), images(3, 32), torch.tensor([0, 1, 2])
    maps = grad(x, y)
    grad.computed = 0
    with remembered([grad]) as (stand,):
        assert torch.equal(stand(x, y), maps)
        assert torch.equal(stand(x.flip(0), y.flip(0)), maps.flip(0))
        assert grad.computed == 3
        stand(x[:1], y[1:2])  # another class
        stand(x[:1], y[:1], keys=["other"])
        assert grad.computed == 5
        assert torch.equal(stand(torch.cat([x[:1] / 2, x]), torch.tensor([0, 0, 1, 2]))[1:], maps)
        assert grad.computed == 6
    stand(x, y)
    assert grad.computed == 9  # nothing is kept beyond the block


def test_what_is_remembered_cannot_be_spoilt(classifier: Classifier) -> None:
    x, y = images(1, 32), torch.tensor([2])
    with remembered([CAM(classifier)]) as (stand,):
        before = stand(x, y).clone()
        stand(x, y).zero_()
        assert torch.equal(stand(x, y), before)


def test_signals_on_stand_ins_are_the_same_to_the_bit(classifier: Classifier) -> None:
    originals = [CAM(classifier), GRAD(classifier), SmoothGrad(classifier, samples=2)]
    x, keys = images(3, 32), ["a", "b", "c"]
    plain = EnsembleSignals(originals)
    with remembered(originals) as stands:
        again = EnsembleSignals(stands)
        assert again.names == plain.names
        assert again.passes_per_image == plain.passes_per_image
        assert torch.equal(again.measure(x, keys), plain.measure(x, keys))
        assert torch.equal(again.measure(x, keys), plain.measure(x, keys))


def test_the_mean_map_is_the_mean_on_the_common_grid(classifier: Classifier) -> None:
    parts = [CAM(classifier), GRAD(classifier)]
    mean, x, y = MeanMap(parts), images(2, 32), torch.tensor([1, 5])
    expected = (on_grid(parts[0](x, y)) + on_grid(parts[1](x, y))) / 2
    torch.testing.assert_close(mean(x, y).double(), expected, rtol=0, atol=1e-7)
    assert mean.grid == (28, 28)
    assert mean.passes_per_map == sum(g.passes_per_map for g in parts)
    detector = EnsembleDetector(mean, fpr=0.3).fit(images(20, 32))
    assert detector.predict(x).shape == (2,)


def test_a_mean_of_nothing_and_an_attack_on_it_are_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="no interpreter was given"):
        MeanMap([])
    with pytest.raises(InputError, match="share"):
        MeanMap([CAM(classifier), CAM(classifier)])
    x, y = images(1, 32), torch.tensor([1])
    mean = MeanMap([CAM(classifier)])
    with pytest.raises(InputError, match="no target of an attack"):
        mean.objective(MapTarget(y, mean(x, y), ("a",), 0))
