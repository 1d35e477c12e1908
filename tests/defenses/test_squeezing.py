"""Squeezers in closed form, and that the detector is the published one: the largest distance against a threshold."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from support.nets import linear_classifier, poison, poisoned
from support.toys import images, relu_net
from support.traces import scramble, untouched
from underfire import Classifier, InputError, NonFiniteError
from underfire.defenses.squeezing import (
    XU,
    BitDepth,
    FeatureSqueezing,
    Median,
    NonLocalMeans,
    Squeezer,
    SqueezingSignals,
)

every_squeezer = pytest.mark.parametrize(
    "squeezer", [*XU, Median(3), BitDepth(1), NonLocalMeans(3, 1, 10)], ids=lambda s: s.name
)


@every_squeezer
def test_a_squeezed_image_is_one_alike_in_any_batch(squeezer: Squeezer) -> None:
    x = images(3, 16)
    whole = squeezer(x)
    assert whole.shape == x.shape
    assert -1e-6 <= float(whole.min()) <= float(whole.max()) <= 1 + 1e-6
    assert torch.equal(whole, torch.cat([squeezer(x[i : i + 1]) for i in range(3)]))
    assert float((whole - x).abs().max()) > 1e-4
    constant = torch.full((1, 3, 16, 16), 1 / 255, dtype=torch.float64)
    wanted = 0.0 if isinstance(squeezer, BitDepth) else 1 / 255
    assert float((squeezer(constant) - wanted).abs().max()) < 1e-12


def test_names_are_those_of_the_source() -> None:
    assert [squeezer.name for squeezer in XU] == ["bits-5", "median-2", "nlm-11-3-4"]


def test_levels_of_a_bit_depth() -> None:
    ramp = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert BitDepth(5)(ramp).unique().tolist() == pytest.approx([k / 31 for k in range(32)])
    assert float((BitDepth(5)(ramp) - ramp).abs().max()) <= 0.5 / 31 + 1e-12
    eight = torch.arange(256) / 255
    assert torch.equal(BitDepth(8)(eight), eight)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_median_is_scipys(size: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = images(1, 16, dtype=torch.float64)
    wanted = torch.stack([torch.from_numpy(ndimage.median_filter(c.numpy(), size=size, mode="nearest")) for c in x[0]])
    assert torch.equal(Median(size)(x)[0], wanted)


def test_the_median_is_pillows_where_pillow_has_one() -> None:
    levels = (images(1, 16)[0] * 255).round().to(torch.uint8)
    filtered = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy()).filter(ImageFilter.MedianFilter(3))
    wanted = torch.tensor(list(filtered.tobytes()), dtype=torch.uint8).reshape(16, 16, 3).permute(2, 0, 1)
    found = (Median(3)(levels[None] / 255)[0] * 255).round().to(torch.uint8)
    assert torch.equal(found[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1])


def test_non_local_means_of_one_outlier_in_closed_form() -> None:
    x = torch.full((1, 3, 32, 32), 0.4, dtype=torch.float64)
    height, h = 0.02, 4 / 255
    x[:, :, 16, 16] += height
    found = NonLocalMeans()(x)
    # Of 121 pixels one is itself, 8 have the outlier elsewhere in their patch, and 112 have it nowhere.
    near, far = (math.exp(-times * height**2 / 9 / h**2) for times in (2, 1))
    wanted = 0.4 + height / (1 + 8 * near + 112 * far)
    assert float(found[0, 0, 16, 16]) == pytest.approx(wanted, abs=1e-12)
    assert wanted < 0.4 + height / 50
    # A pixel beside it: itself and 7 more have it in another cell of their patch, it has it in the middle of its own.
    beside = 0.4 + height * near / (1 + 8 * near + 112 * far)
    assert float(found[0, 0, 16, 17]) == pytest.approx(beside, abs=1e-12)
    assert float((found[0, 0, :9] - 0.4).abs().max()) < 1e-12


def test_non_local_means_know_no_direction() -> None:
    x = images(1, 16, dtype=torch.float64)
    denoise = NonLocalMeans(5, 3, 20)
    for axis in (1, 2, 3):
        assert torch.allclose(denoise(x.flip(axis)), denoise(x).flip(axis), atol=1e-12, rtol=0)
    assert torch.allclose(denoise(x.transpose(2, 3)), denoise(x).transpose(2, 3), atol=1e-12, rtol=0)


def test_non_local_means_by_the_definition() -> None:
    x = images(1, 10, dtype=torch.float64)
    reach, edge, h = 2, 1, 20 / 255
    wide = torch.nn.functional.pad(x, (reach + edge,) * 4, mode="reflect")[0]

    def patch(i: int, j: int) -> Tensor:
        return wide[:, i + reach : i + reach + 3, j + reach : j + reach + 3]

    total, weights = torch.zeros(3, dtype=torch.float64), 0.0
    for i in range(4 - reach, 4 + reach + 1):
        for j in range(7 - reach, 7 + reach + 1):
            weight = math.exp(-float((patch(i, j) - patch(4, 7)).square().mean()) / h**2)
            total, weights = total + weight * patch(i, j)[:, 1, 1], weights + weight
    assert torch.allclose(NonLocalMeans(5, 3, 20)(x)[0, :, 4, 7], total / weights, atol=1e-12, rtol=0)


def test_signals_are_distances_of_probabilities() -> None:
    classifier, x = linear_classifier(), images(2, 16, dtype=torch.float64)
    signals = SqueezingSignals(classifier)
    found = signals.measure(x)
    assert signals.names == ("bits-5 distance", "median-2 distance", "nlm-11-3-4 distance")
    assert signals.passes_per_image == 4
    assert signals.maps(x) == {}
    p, q = classifier.probabilities(x), classifier.probabilities(BitDepth(5)(x))
    assert torch.allclose(found[:, 0], (p - q).abs().sum(dim=1), atol=1e-12)
    assert signals.measure(x[:0]).shape == (0, 3)


def test_nothing_depends_on_the_batch_and_nothing_is_left_on_the_model() -> None:
    module = relu_net()
    scramble(module)
    signals, x = SqueezingSignals(Classifier(module, mean=0.5, std=0.25, input_size=32)), images(5, 32)
    with untouched(module):
        whole = signals.measure(x)
    assert torch.equal(whole, torch.cat([signals.measure(x[i : i + 1]) for i in range(5)]))


def test_the_largest_distance_decides(tmp_path: Path) -> None:
    classifier = linear_classifier()
    detector = FeatureSqueezing(classifier, squeezers=(BitDepth(3), Median(2)), fpr=0.1, seed=3)
    clean = images(60, 16, dtype=torch.float64)
    detector.fit(clean)
    distances = detector.signals.measure(clean).amax(dim=1)
    assert torch.equal(detector.score_samples(clean), -0.5 * distances.square())
    threshold = math.sqrt(-2 * detector.threshold_)
    # The threshold is the 3rd largest of the 30 calibration photos, ⌊0.1 · 31⌋ = 3.
    assert detector.n_calibration_ == 30
    assert 2 <= int((distances > threshold).sum()) <= 20
    assert float((distances - threshold).abs().min()) < 1e-12
    assert torch.equal(detector.predict(clean) == -1, distances > threshold)
    still = torch.full((1, 3, 16, 16), 3 / 7, dtype=torch.float64)  # which no squeezer changes
    assert float(detector.score_samples(still)) == pytest.approx(0, abs=1e-20)
    (told,) = detector.explain(clean[:1])
    assert [reason.contribution for reason in told.reasons] == pytest.approx([float(distances[0]) ** 2, 0])
    detector.save(tmp_path / "d.safetensors")
    again = FeatureSqueezing.load(tmp_path / "d.safetensors", classifier)
    assert again.signals.squeezers == (BitDepth(3), Median(2))
    assert torch.equal(again.decision_function(clean), detector.decision_function(clean))


class _Nothing:
    name = "nothing"

    def __call__(self, x: Tensor) -> Tensor:
        return x


def test_a_squeezer_of_ones_own_is_restored_not_loaded(tmp_path: Path) -> None:
    classifier, clean = linear_classifier(), images(12, 16, dtype=torch.float64)
    detector = FeatureSqueezing(classifier, squeezers=(_Nothing(), BitDepth(2)), fpr=0.3).fit(clean)
    detector.save(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="'_Nothing' is no squeezer of this package"):
        FeatureSqueezing.load(tmp_path / "d.safetensors", classifier)
    again = FeatureSqueezing(classifier, squeezers=(_Nothing(), BitDepth(2)), fpr=0.3)
    assert torch.equal(again.restore(tmp_path / "d.safetensors").predict(clean), detector.predict(clean))


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match="bits is 9"):
        BitDepth(9)
    with pytest.raises(InputError, match="size is 1"):
        Median(1)
    with pytest.raises(InputError, match="search is 10"):
        NonLocalMeans(search=10)
    with pytest.raises(InputError, match="strength 0 is not above 0"):
        NonLocalMeans(strength=0)
    with pytest.raises(InputError, match="images of 6×6 pixels are too small"):
        NonLocalMeans()(torch.zeros(1, 3, 6, 6))
    with pytest.raises(InputError, match="at least one, each once"):
        SqueezingSignals(linear_classifier(), ())
    with pytest.raises(InputError, match="at least one, each once"):
        SqueezingSignals(linear_classifier(), (Median(2), Median(2)))
    with pytest.raises(NonFiniteError, match="the classifier's output of image 1"):
        SqueezingSignals(poisoned(relu_net(), size=32)).measure(poison(images(2, 32), 1))
