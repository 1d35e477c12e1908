"""Whether maps depend on the model: planted liars are marked, honest interpreters are not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support.toy_photos import toy_classifier
from support.toys import every, images, smooth_net
from underfire import CAM, Classifier, Interpreter
from underfire.diagnostics.map_checks import (
    PHOTOS,
    PROBE,
    UNCHANGED,
    FloorVerdict,
    MapCheck,
    check_maps,
    further_passes,
)
from underfire.errors import NonFiniteError
from underfire.interpreters import MapObjective, MapTarget
from underfire.models.randomised import randomised


class Planted(Interpreter):
    """Maps that are made without a look at the model."""

    grid = (8, 8)

    def objective(self, target: MapTarget) -> MapObjective:
        raise NotImplementedError


class Constant(Planted):
    name = "constant"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return x.new_full((len(x), *self.grid), 0.5)


class Edges(Planted):
    """The size of the image's gradient, as an edge detector has it."""

    name = "edges"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        grey = x.mean(dim=1)
        down, across = grey[:, 1:, :-1] - grey[:, :-1, :-1], grey[:, :-1, 1:] - grey[:, :-1, :-1]
        edges = (down.square() + across.square()).sqrt()[:, None]
        maps = nn.functional.adaptive_avg_pool2d(edges, self.grid)[:, 0]
        return maps / maps.amax(dim=(1, 2), keepdim=True)


class Corner(nn.Module):
    """Sees how striped the upper left block of 8 × 8 pixels is, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[4.0, 4.0, 4.0], [-4.0, -4.0, -4.0]]))
            self.head.bias.copy_(torch.tensor([-4.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        block = x[:, :, :8, :8]
        logits: Tensor = self.head((block[..., ::2] - block[..., 1::2]).mean(dim=(2, 3)))
        return logits


class Pointer(Planted):
    """Says where `Corner` looks, or with ``wrong`` everything but that; the reverse where the weights are others."""

    name = "pointer"

    def __init__(self, classifier: Classifier, *, wrong: bool = False) -> None:
        super().__init__(classifier)
        self.wrong = wrong
        self._fingerprint = classifier.fingerprint()

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = x.new_zeros(len(x), *self.grid)
        maps[:, :4, :4] = 1
        return maps if self.wrong == (self.classifier.fingerprint() != self._fingerprint) else 1 - maps


def checked(make: Callable[[Classifier], Interpreter], classifier: Classifier, photos: Tensor) -> MapCheck:
    labels = classifier.probabilities(photos).argmax(dim=1)
    (check,) = check_maps(classifier, [make(classifier)], photos, labels, keys=[str(i) for i in range(len(photos))])
    return check


def striped_corners(n: int) -> Tensor:
    """Dark pictures with stripes in a corner, which a blur takes away."""
    pictures = 0.2 * images(n, 16, seed=5)
    pictures[:, :, :8, :8:2] += 0.75
    return pictures


def test_a_constant_map_is_marked() -> None:
    check = checked(Constant, toy_classifier(), images(6, 32, seed=1))
    assert check.advantage == (0.0,) * 6  # exactly what a random map is worth
    assert check.floor.constant.k == 6
    assert check.floor.verdict is FloorVerdict.CONSTANT


def test_a_map_of_the_image_alone_is_marked() -> None:
    check = checked(Edges, toy_classifier(), images(6, 32, seed=1))
    assert check.similarity == pytest.approx((1.0,) * 6)
    assert check.floor.verdict is FloorVerdict.UNCHANGED


def test_a_map_of_what_the_model_sees_meets_the_floor_and_its_contrary_does_not() -> None:
    classifier, photos = Classifier(Corner(), input_size=16), striped_corners(6)
    honest = checked(Pointer, classifier, photos)
    assert min(honest.advantage) > 0.1
    assert honest.similarity == pytest.approx((-1.0,) * 6)
    assert honest.floor.verdict is FloorVerdict.MET
    contrary = checked(lambda c: Pointer(c, wrong=True), classifier, photos)
    assert max(contrary.advantage) < -0.1
    assert contrary.floor.verdict is FloorVerdict.WORSE


def test_a_model_that_a_blur_does_not_touch_decides_nothing() -> None:
    check = checked(Pointer, Classifier(Corner(), input_size=16), 0.2 * images(6, 16, seed=5))
    assert check.floor.verdict is FloorVerdict.UNDECIDED


@every
def test_every_interpreter_sees_the_weights(make: Callable[[Classifier], Interpreter]) -> None:
    """Those that the package has look through the module itself, so that others' weights are seen at once."""
    classifier = Classifier(smooth_net(), input_size=16)
    before = classifier.fingerprint()
    floor = checked(make, classifier, images(3, 16, seed=2)).floor
    assert floor.similarity.value is not None
    assert floor.similarity.value < UNCHANGED
    assert classifier.fingerprint() == before


def test_weights_come_back_to_the_bit_whatever_happens() -> None:
    classifier = toy_classifier()
    before = classifier.fingerprint()
    x = images(2, 32)
    logits = classifier(x)
    with randomised(classifier) as anything:
        assert anything
        assert classifier.fingerprint() != before
        assert not torch.allclose(classifier(x), logits, atol=0.1)
    with pytest.raises(KeyboardInterrupt), randomised(classifier):
        raise KeyboardInterrupt
    assert classifier.fingerprint() == before
    assert torch.equal(classifier(x), logits)


def test_random_weights_keep_the_size_of_theirs_and_repeat() -> None:
    classifier = toy_classifier()
    weight = classifier.module.get_parameter("features.3.weight")
    mean, spread = float(weight.detach().mean()), float(weight.detach().std())
    drawn = []
    for _ in range(2):
        with randomised(classifier, seed=3):
            drawn.append(weight.detach().clone())
    assert torch.equal(*drawn)
    assert float(drawn[0].std()) == pytest.approx(spread, rel=0.1)
    assert float(drawn[0].mean()) == pytest.approx(mean, abs=0.1 * spread)


class Weightless(nn.Module):
    """A model without a parameter."""

    def forward(self, x: Tensor) -> Tensor:
        return 9 * x.mean(dim=(2, 3))


def test_a_model_without_weights_has_no_similarity() -> None:
    check = checked(Edges, Classifier(Weightless(), input_size=16), images(4, 16))
    assert check.similarity == ()
    assert check.floor.similarity.value is None
    assert check.floor.verdict is not FloorVerdict.UNCHANGED


class Overflowing(CAM):
    """No finite map under other weights."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self._fingerprint = classifier.fingerprint()

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        maps = super().compute(x, y, keys)
        return maps if self.classifier.fingerprint() == self._fingerprint else maps * torch.nan


def test_a_map_that_overflows_under_random_weights_is_left_out() -> None:
    check = checked(Overflowing, toy_classifier(), images(3, 32))
    assert check.similarity == ()
    assert len(check.advantage) == 3


def test_a_benign_map_that_is_no_number_is_named() -> None:
    class Nowhere(Constant):
        def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
            return super().compute(x, y, keys) * torch.nan

    with pytest.raises(NonFiniteError):
        checked(Nowhere, toy_classifier(), images(2, 32))


def test_no_photo_gives_no_check() -> None:
    classifier = toy_classifier()
    assert check_maps(classifier, [CAM(classifier)], images(0, 32), torch.zeros(0).long(), keys=[]) == ()


def test_what_is_said_of_the_cost_is_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = toy_classifier()
    cam, edges = CAM(classifier), Edges(classifier)
    seen = 0
    scores = Classifier.scores

    def counting(self: Classifier, x: Tensor) -> Tensor:
        nonlocal seen
        seen += len(x)
        return scores(self, x)

    monkeypatch.setattr(Classifier, "scores", counting)
    x, y = images(3, 32), torch.zeros(3).long()
    check_maps(classifier, [cam, edges], x, y, keys=["a", "b", "c"])
    # Both have one grid; Edges says that its map takes a pass, and takes none.
    assert seen == further_passes([cam, edges], 3) - 3 * 2 == 3 * (2 * PROBE.levels * 3 + 2)
    assert PHOTOS == 8


@pytest.mark.parametrize(
    ("constant", "advantage", "similarity"),
    [
        ((), (), ()),
        ((False,), (0.1, 0.2), ()),
        ((False, False), (0.1, 0.2), (0.1,)),
        ((False,), (2.1,), ()),
        ((False,), (float("nan"),), ()),
        ((False,), (0.1,), (-1.1,)),
    ],
)
def test_what_contradicts_itself_is_refused(
    constant: tuple[bool, ...], advantage: tuple[float, ...], similarity: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="'cam'"):
        MapCheck("cam", constant, advantage, similarity)
