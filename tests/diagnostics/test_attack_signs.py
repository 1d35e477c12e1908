"""Each indicator fires where it was planted, and at the edge of its threshold, and none on a sound attack."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.nets import cells, stripes_classifier
from support.toys import images, quantised_net
from underfire.attacks import ADV2, PGD
from underfire.attacks.result import AttackResult
from underfire.attacks.trace import Course, Trace
from underfire.diagnostics.attack_signs import (
    FALL,
    GAIN,
    NEAR,
    REACHED,
    SETTLED,
    STUCK,
    ImageCourse,
    ImageTrace,
    Indicator,
    Weight,
    image_traces,
    indicators,
)
from underfire.interpreters import CAM
from underfire.models.classifier import Classifier

SURE = ImageCourse(9.0, 0.05, 0.04)
"""Of a label that was reached early."""
SOUND = ImageTrace(stuck=0.0, prediction=SURE, maps=ImageCourse(0.2, 0.06, 0.05))
FAILED = ImageTrace(stuck=0.0, prediction=ImageCourse(10.0, 5.0, 4.5), maps=None)


def just_above(value: float) -> float:
    return math.nextafter(value, math.inf)


def just_below(value: float) -> float:
    return math.nextafter(value, -math.inf)


def maps(first: float, half: float, kept: float) -> ImageTrace:
    return replace(SOUND, maps=ImageCourse(first, half, kept))


def label(first: float, half: float, kept: float) -> ImageTrace:
    return replace(FAILED, prediction=ImageCourse(first, half, kept))


@pytest.mark.parametrize(
    ("trace", "success", "shown"),
    [
        pytest.param(SOUND, True, [], id="sound"),
        pytest.param(FAILED, False, [], id="failed but tried"),
        pytest.param(replace(SOUND, stuck=STUCK), True, [Indicator.ZERO_GRADIENTS], id="stuck"),
        pytest.param(replace(SOUND, stuck=just_below(STUCK)), True, [], id="hardly stuck"),
        pytest.param(label(10, 9.5, 10 * (1 - FALL)), False, [], id="fell enough"),
        pytest.param(label(10, 9.5, just_above(10 * (1 - FALL))), False, [Indicator.LOSS_NOT_FALLING], id="stays"),
        pytest.param(label(10, 9.5, 9.4), True, [], id="a loss that is high and enough"),
        pytest.param(maps(0.2, 0.19, 0.2 * (1 - FALL)), True, [], id="map moved just enough"),
        pytest.param(maps(0.2, 0.19, just_above(0.2 * (1 - FALL))), True, [Indicator.MAPS_NOT_MOVING], id="map stays"),
        pytest.param(maps(NEAR, NEAR, NEAR), True, [], id="the map was there from the beginning"),
        pytest.param(
            maps(just_above(NEAR), just_above(NEAR), just_above(NEAR)), True, [Indicator.MAPS_NOT_MOVING], id="not near"
        ),
        pytest.param(maps(0.2, 0.04, 0.04 * (1 - GAIN)), True, [Indicator.STILL_IMPROVING], id="still improving"),
        pytest.param(maps(0.2, 0.04, just_above(0.04 * (1 - GAIN))), True, [], id="hardly improving"),
        pytest.param(maps(0.2, 0.04, NEAR), True, [], id="improved until nothing was left"),
        pytest.param(maps(0.2, 0.04, just_above(NEAR)), True, [Indicator.STILL_IMPROVING], id="something was left"),
        pytest.param(maps(0.2, 0.05, 0.05 * (1 - SETTLED)), True, [], id="not quite settled"),
        pytest.param(maps(0.2, 0.05, just_above(0.05 * (1 - SETTLED))), True, [Indicator.SETTLED], id="settled"),
        pytest.param(label(10, 5, 5 * (1 - GAIN)), False, [Indicator.STILL_IMPROVING], id="label still coming"),
        pytest.param(label(10, 5, 5), False, [Indicator.SETTLED], id="label not coming"),
        pytest.param(label(10, 5, 1), True, [], id="PGD that succeeded has nothing left to gain"),
    ],
)
def test_each_threshold_at_its_edge(trace: ImageTrace, success: bool, shown: list[Indicator]) -> None:
    assert list(indicators(trace, success=success)) == shown


def test_gaps_are_compared_only_where_the_label_was_reached_in_time() -> None:
    late = replace(SOUND, prediction=ImageCourse(9.0, just_above(REACHED), 0.04), maps=ImageCourse(0.2, 0.03, 0.05))
    assert indicators(late, success=True) == (Indicator.STILL_IMPROVING,)
    in_time = replace(late, prediction=ImageCourse(9.0, REACHED, 0.04))
    assert indicators(in_time, success=True) == (Indicator.SETTLED,)
    never = replace(late, prediction=ImageCourse(9.0, 6.0, 5.5))
    assert indicators(never, success=False) == ()


def test_what_is_not_known_says_nothing() -> None:
    unknown = ImageCourse(None, None, None)
    assert indicators(ImageTrace(0.0, unknown, unknown), success=False) == ()
    assert indicators(replace(SOUND, maps=unknown), success=True) == ()
    assert indicators(maps(0.2, 0.1, 0.1), success=True) == (Indicator.SETTLED,)
    assert indicators(replace(SOUND, maps=ImageCourse(0.2, None, 0.1)), success=True) == ()


def test_every_indicator_is_said_in_words() -> None:
    for indicator in Indicator:
        reading = indicator.reading
        assert reading.seen[0].islower()
        assert not reading.seen.endswith(".")
        assert reading.means.endswith(".")
        assert bool(reading.advice) == (reading.weight is not Weight.NOTE)


def test_a_trace_is_taken_apart_image_by_image() -> None:
    nothing = torch.tensor([math.inf, 0.5])
    trace = Trace(
        torch.tensor([0.0, 0.25]),
        Course(torch.tensor([4.0, 5.0]), nothing, torch.tensor([1.0, 0.5])),
        Course(torch.tensor([math.nan, 0.5]), nothing, torch.tensor([0.25, 0.125])),
    )
    first, second = image_traces(trace)
    assert first == ImageTrace(0.0, ImageCourse(4.0, None, 1.0), ImageCourse(None, None, 0.25))
    assert second == ImageTrace(0.25, ImageCourse(5.0, 0.5, 0.5), ImageCourse(0.5, 0.5, 0.125))
    assert image_traces(replace(trace, maps=None))[1] == replace(second, maps=None)


def shown_by(result: AttackResult) -> list[tuple[Indicator, ...]]:
    pairs = zip(image_traces(result.trace), result.success.tolist(), strict=True)
    return [indicators(trace, success=success) for trace, success in pairs]


def aimed(classifier: Classifier, n: int = 3) -> tuple[Tensor, Tensor]:
    x = images(n, 32)
    return x, classifier(x).argsort(dim=1)[:, 3]


def test_planted_zero_gradients_are_found() -> None:
    classifier = Classifier(quantised_net(), mean=0.5, std=0.25, input_size=32)
    x, target = aimed(classifier)
    result = PGD(classifier, steps=10)(x, target)
    assert result.trace.stuck.tolist() == [1, 1, 1]
    assert shown_by(result) == [(Indicator.ZERO_GRADIENTS, Indicator.LOSS_NOT_FALLING)] * 3


def test_planted_steps_that_lead_nowhere_are_found(relu_classifier: Classifier) -> None:
    x, target = aimed(relu_classifier)
    assert shown_by(PGD(relu_classifier, steps=10, step_size=1e-5)(x, target)) == [(Indicator.LOSS_NOT_FALLING,)] * 3


def test_a_planted_budget_that_is_too_short_is_found(relu_classifier: Classifier) -> None:
    x, target = aimed(relu_classifier)
    short = ADV2(CAM(relu_classifier), eps=32 / 255, steps=12)(x, target)
    assert any(Indicator.STILL_IMPROVING in shown for shown in shown_by(short))


def test_a_sound_attack_shows_nothing() -> None:
    classifier, x = stripes_classifier(), cells(4)
    target = torch.ones(4, dtype=torch.int64)
    for attack in (PGD(classifier, eps=0.03, steps=40), ADV2(CAM(classifier), eps=0.03, steps=300)):
        result = attack(x, target)
        assert bool(result.success.all())
        assert shown_by(result) == [()] * 4
