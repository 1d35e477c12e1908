"""The loop attacks the transformed iterates, and returns the iterates themselves."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.nets import linear_classifier
from support.toys import images, relu_net
from underfire import ADV2, CAM, PGD, Classifier
from underfire.attacks.engine import descend
from underfire.attacks.transforms import TransformedBatch, identity
from underfire.interpreters import Task
from underfire.models.folded import prepared

TARGET = torch.tensor([3, 1, 4])


class _Mirrored:
    """Turns images upside down, and notes the steps; in ``mapless`` steps the prediction alone is attacked."""

    def __init__(self, mapless: frozenset[int] = frozenset()) -> None:
        self.mapless, self.steps, self.rows = mapless, list[int](), list[list[int]]()

    def __call__(self, images: Tensor, rows: Tensor, step: int) -> TransformedBatch:
        self.steps.append(step)
        self.rows.append(rows.tolist())
        return TransformedBatch(images.flip(2), lambda direction: direction.flip(2), maps=step not in self.mapless)


def test_the_identity_leaves_the_iterates_alone() -> None:
    x = images(2, 8)
    batch = identity(x, torch.arange(2), 0)
    assert batch.images is x
    assert batch.pull_back(x) is x
    assert batch.maps


def test_an_attack_through_a_mirror_is_the_mirrored_attack() -> None:
    classifier = linear_classifier()
    x = images(3, 16, dtype=torch.float64)
    attack = PGD(classifier, eps=0.02, steps=7)
    plain = descend(prepared(classifier), x.flip(2), TARGET, (), attack.setting)
    through = descend(prepared(classifier), x, TARGET, (), replace(attack.setting, transform=_Mirrored()))
    assert torch.equal(through.x_adv, plain.x_adv.flip(2))
    assert torch.equal(through.passes, plain.passes)


@pytest.fixture
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


def test_every_step_is_transformed_by_row(toy: Classifier) -> None:
    x, cam, transform = images(3, 32), CAM(toy), _Mirrored()
    attack = ADV2(cam, steps=10)
    setting = replace(attack.setting, transform=transform, keep="latest")
    descend(prepared(toy), x, TARGET, [cam.aim(Task(TARGET, cam(x, TARGET), ("a", "b", "c"), 0))], setting)
    assert transform.steps == list(range(11))
    assert transform.rows == [[0, 1, 2]] * 11


def test_a_step_on_the_prediction_alone_costs_no_map_and_makes_no_candidate(toy: Classifier) -> None:
    x, cam = images(3, 32), CAM(toy)
    attack = ADV2(cam, steps=10)
    warm = attack.setting.schedule.warm
    task = Task(TARGET, cam(x, TARGET), ("a", "b", "c"), 0)

    def passes(mapless: frozenset[int]) -> list[int]:
        setting = replace(attack.setting, transform=_Mirrored(mapless), keep="latest")
        outcome = descend(prepared(toy), x, TARGET, [cam.aim(task)], setting)
        moved = (outcome.x_adv != x).flatten(1).any(dim=1)
        assert moved.tolist() == [mapless != every] * 3  # nothing is kept of what was never a candidate
        return outcome.passes.tolist()

    every = frozenset(range(11))
    whole, without = passes(frozenset()), passes(frozenset({warm, warm + 3}))
    assert without == [paid - 2 * (cam.passes_per_step - 1) for paid in whole]
    assert passes(every) == [11] * 3
