"""Attacks on the map alone, and attacks towards any other class."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from support.toys import images, relu_net, small_mask, untrained_rts
from underfire import ADV2, CAM, GRAD, IG, PGD, Classifier, GradCAM, InputError, Interpreter, MapAttack, Square
from underfire.attacks.goals import Goal
from underfire.attacks.map_attack import Moved
from underfire.metrics import iou_top

N = 3
KEYS = ("a", "b", "c")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return images(N, 32)


@pytest.fixture(scope="module")
def y(classifier: Classifier, x: Tensor) -> Tensor:
    return classifier(x).argmax(dim=1)


MAKES: list[Callable[[Classifier], Interpreter]] = [GRAD, IG, CAM, GradCAM, untrained_rts, small_mask]


@pytest.mark.parametrize("make", MAKES, ids=["grad", "ig", "cam", "gradcam", "rts", "mask"])
@pytest.mark.parametrize("goal", ["topk", "center", "l1"])
def test_the_label_stays_and_the_map_moves(
    make: Callable[[Classifier], Interpreter], goal: Moved, classifier: Classifier, x: Tensor, y: Tensor
) -> None:
    g = make(classifier)
    attack = MapAttack(g, goal=goal, passes=60 + 4 * g.passes_per_map)
    result = attack(x, y, keys=KEYS)
    assert str(result.goal) == f"kept/{goal}"
    assert torch.equal(result.prediction, y)
    assert bool(result.success.all())
    before = classifier.probabilities(x).gather(1, y[:, None])[:, 0]
    assert float((result.confidence - before).abs().max()) <= 0.1
    assert int(result.passes.max()) <= attack.most_passes() <= 60 + 4 * g.passes_per_map
    measure = attack.setting.map_goal
    benign = g(x, y, keys=KEYS)
    assert torch.equal(result.target_maps[g.name], benign)
    now, then = (measure.distance(maps, measure.aimed(benign)) for maps in (result.maps[g.name], benign))
    if g.name != "rts":  # untrained, it shows the same for anything
        assert bool((now < then - 0.005).all())


def test_the_top_fifth_of_cam_is_gone(classifier: Classifier, x: Tensor, y: Tensor) -> None:
    result = MapAttack(CAM(classifier), goal="topk", passes=100)(x, y)
    assert float(iou_top(result.maps["cam"], result.target_maps["cam"]).max()) <= 0.25
    assert bool(result.met(0.25).all())
    assert {row["goal"] for row in result.rows()} == {"kept/topk"}


def test_led_maps_come_near_the_given_ones(classifier: Classifier, x: Tensor, y: Tensor) -> None:
    cam = CAM(classifier)
    wanted = cam(x, y).flip(2)
    result = MapAttack(cam, goal="led", passes=100)(x, y, target_map=wanted)
    before = (cam(x, y) - wanted).abs().mean(dim=(1, 2))
    assert bool(((result.maps["cam"] - wanted).abs().mean(dim=(1, 2)) < before / 2).all())
    assert result.goal == Goal("kept", "led")


def test_several_maps_move_together_and_split_is_whole(classifier: Classifier, x: Tensor, y: Tensor) -> None:
    attack = MapAttack([CAM(classifier), IG(classifier, points=4, strata=2)], passes=40)
    whole = attack(x, y, keys=KEYS)
    parts = [attack(x[i : i + 1], y[i : i + 1], keys=KEYS[i : i + 1]).x_adv for i in range(N)]
    assert torch.equal(torch.cat(parts), whole.x_adv)


def test_a_label_that_is_not_the_prediction_is_no_success(classifier: Classifier, x: Tensor, y: Tensor) -> None:
    result = MapAttack(CAM(classifier), passes=5)(x, (y + 1) % 10)
    assert not bool(result.success.any())


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"goal": "gone"}, {}, "goal 'kept/gone' is unknown"),
        ({"tolerance": 0.0}, {}, "tolerance 0.0 is no change of a probability"),
        ({"goal": "led"}, {}, "give target_map"),
        ({"goal": "topk"}, {"target_map": torch.zeros(N, 4, 4)}, "leave target_map out"),
        ({}, {"label": torch.zeros(N, dtype=torch.int64)}, "leave out label="),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, object], arguments: dict[str, Tensor], message: str, classifier: Classifier, x: Tensor, y: Tensor
) -> None:
    with pytest.raises(InputError, match=message):
        MapAttack(CAM(classifier), passes=5, **options)(x, y, **arguments)  # type: ignore[arg-type]


class TestUntargeted:
    def test_pgd_leaves_the_label_for_the_nearest_class(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        result = PGD(classifier, passes=30)(x, None)
        assert bool((result.prediction != y).all())
        assert bool(result.success.all())
        assert torch.equal(result.target, result.prediction)
        shown = classifier.probabilities(result.x_adv).gather(1, result.target[:, None])[:, 0]
        torch.testing.assert_close(result.confidence, shown)
        assert str(result.goal) == "other/free"

    def test_adv2_keeps_the_map_of_the_label_that_it_leaves(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        cam = CAM(classifier)
        result = ADV2(cam, passes=100)(x, None, keys=KEYS)
        assert bool((result.target != y).all())
        assert bool(result.success.all())
        assert torch.equal(result.target_maps["cam"], cam(x, y))
        assert int(result.passes.max()) <= 100
        assert str(result.goal) == "other/kept"
        assert bool(result.met(0.3).all())

    def test_the_label_may_be_given(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        other = (y + 1) % 10
        result = ADV2(CAM(classifier), passes=20)(x, None, label=other)
        assert torch.equal(result.target, y)  # the nearest class that is not the label given is the prediction

    def test_a_search_without_gradients_wants_classes(self, classifier: Classifier, x: Tensor) -> None:
        with pytest.raises(InputError, match="target is None, and Square attacks towards target classes"):
            Square(classifier, queries=5)(x, None)
