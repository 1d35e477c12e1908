"""The objective at a map of MASK: its own fit, replayed; its two looks; what it does when the end is reached."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.nets import detail_classifier, waves
from support.toys import SMALL_FIT, images
from underfire import Classifier, MaskFit
from underfire.interpreters import ForwardPass, MapGradient, MapTarget
from underfire.interpreters.maps import distance
from underfire.interpreters.masks.fit import fit_masks
from underfire.interpreters.masks.objective import MaskObjective

KEYS = ("a", "b", "c")
Y = torch.tensor([1, 4, 7])


@pytest.fixture
def x() -> Tensor:
    return images(3, 16, dtype=torch.float64)


@pytest.fixture
def target() -> Tensor:
    return torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def objective_at(target: Tensor, fit: MaskFit = SMALL_FIT, *, replay: int, y: Tensor = Y) -> MaskObjective:
    side = 2 * target.shape[1] if len(y) == 3 else 32
    return MaskObjective(fit, (side, side), MapTarget(y, target, KEYS[: len(y)], seed=11), seed=3, replay=replay)


def looks(classifier: Classifier, objective: MaskObjective, x: Tensor, count: int) -> list[MapGradient]:
    with classifier.frozen():
        return [objective(ForwardPass(classifier, x)) for _ in range(count)]


def fresh_gap(classifier: Classifier, fit: MaskFit, x: Tensor, target: Tensor) -> Tensor:
    with classifier.frozen():
        return distance(1 - fit_masks(classifier, fit, x, Y, KEYS, 3).masks, target)


def test_its_fit_is_that_of_the_evaluation(smooth_classifier64: Classifier, x: Tensor, target: Tensor) -> None:
    """At images that stand still: the largest distance there is, then that of a fit under the evaluation's jitter."""
    fit = replace(SMALL_FIT, steps=6)
    pulls = looks(smooth_classifier64, objective_at(target, fit, replay=6), x, 7)
    for pull in pulls[:6]:
        assert torch.equal(pull.distance, torch.ones_like(pull.distance))
    torch.testing.assert_close(pulls[6].distance, fresh_gap(smooth_classifier64, fit, x, target))
    assert len({float(pull.loss[0]) for pull in pulls[:6]}) == 6


def test_it_starts_again_and_keeps_the_gap_of_the_fit_that_ended(
    smooth_classifier64: Classifier, x: Tensor, target: Tensor
) -> None:
    fit, moved = replace(SMALL_FIT, steps=6), 0.1 + 0.8 * x.flip(3)
    objective = objective_at(target, fit, replay=6)
    first = looks(smooth_classifier64, objective, x, 6)
    second = looks(smooth_classifier64, objective, moved, 6)
    (third,) = looks(smooth_classifier64, objective, moved, 1)
    assert all(bool((pull.loss > 0).all()) for pull in (*first, *second))  # nothing rests
    for pull in second:
        torch.testing.assert_close(pull.distance, fresh_gap(smooth_classifier64, fit, x, target))
    torch.testing.assert_close(third.distance, fresh_gap(smooth_classifier64, fit, moved, target))
    (beginning,) = looks(smooth_classifier64, objective_at(target, fit, replay=6), moved, 1)
    torch.testing.assert_close(third.loss, beginning.loss)
    torch.testing.assert_close(third.direction, beginning.direction)


def test_a_replay_is_no_longer_than_the_fit(smooth_classifier64: Classifier, x: Tensor, target: Tensor) -> None:
    longest, too_long = (
        looks(smooth_classifier64, objective_at(target, replay=replay), x, 9) for replay in (SMALL_FIT.steps, 1000)
    )
    for one, other in zip(longest, too_long, strict=True):
        assert torch.equal(one.distance, other.distance)
        assert torch.equal(one.direction, other.direction)


@pytest.mark.parametrize("looked", [1, 3, 4, 5])
def test_select_takes_the_gap_and_the_fit_along(
    smooth_classifier64: Classifier, x: Tensor, target: Tensor, looked: int
) -> None:
    """Before, at and after the end of the first replay."""
    whole, part = objective_at(target, replay=4), objective_at(target, replay=4)
    looks(smooth_classifier64, whole, x, looked)
    looks(smooth_classifier64, part, x, looked)
    places = torch.tensor([2, 0])
    part.select(places)
    pairs = zip(looks(smooth_classifier64, whole, x, 6), looks(smooth_classifier64, part, x[places], 6), strict=True)
    for all_three, two in pairs:
        torch.testing.assert_close(two.distance, all_three.distance[places])
        torch.testing.assert_close(two.loss, all_three.loss[places])
        torch.testing.assert_close(two.direction, all_three.direction[places])


def test_a_look_is_two_passes(relu_classifier: Classifier) -> None:
    calls: list[int] = []
    relu_classifier.module.register_forward_hook(lambda *_: calls.append(1))
    objective = MaskObjective(SMALL_FIT, (32, 32), MapTarget(Y, torch.rand(3, 16, 16), KEYS, seed=0), seed=0)
    with relu_classifier.frozen():
        view = ForwardPass(relu_classifier, images(3, 32))
        for _ in range(6):
            calls.clear()
            assert objective(view).passes == len(calls) == 2


def test_it_rests_where_the_target_mask_deletes_the_class_and_the_fit_does_not() -> None:
    """Detail in one corner is the class: a target map over it wants no more, one beside it does."""
    where = torch.zeros(8, 8)
    where[:2, :2] = 1
    classifier = detail_classifier(where, scale=1050, bias=3.3)
    classifier.module.double()  # p of the class is so near 1 that float32 loses its gradient
    over, beside = torch.zeros(2, 8, 8, dtype=torch.float64)
    over[:4, :4], beside[4:, 4:] = 1, 1
    fit = MaskFit(steps=20, cell=4, mask_kernel=5, mask_sigma=1.0, jitter=1)
    objective = objective_at(torch.stack([over, beside]), fit, replay=20, y=torch.ones(2, dtype=torch.int64))
    (pull,) = looks(classifier, objective, waves(2, amplitude=0.3, period=6).double(), 1)
    assert pull.loss[0] == 0
    assert float(pull.direction[0].abs().max()) == 0
    assert pull.loss[1] > 1
    assert float(pull.direction[1].abs().mean()) == pytest.approx(1, rel=1e-4)  # of unit size
    assert float(pull.direction[1, :, :16, :16].abs().sum()) == pytest.approx(float(pull.direction[1].abs().sum()))


def test_it_raises_the_class_under_the_mask_of_a_fit_that_deletes_too_well() -> None:
    """The target mask takes the class away, but so does half of the detail, with which the fit begins."""
    where = torch.zeros(8, 8)
    where[:2, :2] = 1
    classifier = detail_classifier(where, scale=600, bias=4)
    over = torch.zeros(1, 8, 8)
    over[0, :4, :4] = 1
    fit = MaskFit(steps=20, cell=4, mask_kernel=5, mask_sigma=1.0, jitter=1)
    x = waves(1, amplitude=0.3, period=6)
    (before,) = looks(classifier, objective_at(over, fit, replay=20, y=torch.ones(1, dtype=torch.int64)), x, 1)
    moved = x - 1e-3 * before.direction
    (after,) = looks(classifier, objective_at(over, fit, replay=20, y=torch.ones(1, dtype=torch.int64)), moved, 1)
    assert float(before.direction.abs().mean()) == pytest.approx(1, rel=1e-4)
    assert float(after.loss) < float(before.loss)
