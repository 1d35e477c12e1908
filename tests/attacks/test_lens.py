"""What the loop does with a lens: it follows what is shown, and hands over the iterate itself."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.nets import linear_classifier
from support.toys import images, relu_net
from underfire import ADV2, CAM, PGD, Classifier
from underfire.attacks.engine import descend
from underfire.attacks.keepers import LATEST
from underfire.attacks.lens import Glimpse, bare
from underfire.interpreters import MapTarget
from underfire.models.folded import prepared

TARGET = torch.tensor([3, 1, 4])


class _Mirrored:
    """Shows images upside down, and counts the looks; of ``blind`` steps the prediction alone."""

    def __init__(self, blind: frozenset[int] = frozenset()) -> None:
        self.blind, self.steps, self.rows = blind, list[int](), list[list[int]]()

    def __call__(self, images: Tensor, rows: Tensor, step: int) -> Glimpse:
        self.steps.append(step)
        self.rows.append(rows.tolist())
        return Glimpse(images.flip(2), lambda direction: direction.flip(2), maps=step not in self.blind)


def test_bare_shows_the_iterates_themselves() -> None:
    x = images(2, 8)
    glimpse = bare(x, torch.arange(2), 0)
    assert glimpse.images is x
    assert glimpse.back(x) is x
    assert glimpse.maps


def test_an_attack_through_a_mirror_is_the_mirrored_attack() -> None:
    classifier = linear_classifier()
    x = images(3, 16, dtype=torch.float64)
    attack = PGD(classifier, eps=0.02, steps=7)
    plain = descend(prepared(classifier), x.flip(2), TARGET, (), attack.setting)
    through = descend(prepared(classifier), x, TARGET, (), replace(attack.setting, lens=_Mirrored()))
    assert torch.equal(through.x_adv, plain.x_adv.flip(2))
    assert torch.equal(through.passes, plain.passes)


@pytest.fixture
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


def test_every_look_is_through_the_lens_by_row(toy: Classifier) -> None:
    x, cam, lens = images(3, 32), CAM(toy), _Mirrored()
    attack = ADV2(cam, steps=10)
    setting = replace(attack.setting, lens=lens, keep=LATEST)
    descend(prepared(toy), x, TARGET, [cam.objective(MapTarget(TARGET, cam(x, TARGET), ("a", "b", "c"), 0))], setting)
    assert lens.steps == list(range(11))
    assert lens.rows == [[0, 1, 2]] * 11


def test_a_look_at_the_prediction_alone_costs_no_map_and_makes_no_candidate(toy: Classifier) -> None:
    x, cam = images(3, 32), CAM(toy)
    attack = ADV2(cam, steps=10)
    warm = attack.setting.schedule.warm
    task = MapTarget(TARGET, cam(x, TARGET), ("a", "b", "c"), 0)

    def passes(blind: frozenset[int]) -> list[int]:
        setting = replace(attack.setting, lens=_Mirrored(blind), keep=LATEST)
        outcome = descend(prepared(toy), x, TARGET, [cam.objective(task)], setting)
        moved = (outcome.x_adv != x).flatten(1).any(dim=1)
        assert moved.tolist() == [blind != every] * 3  # nothing is kept of what was never a candidate
        return outcome.passes.tolist()

    every = frozenset(range(11))
    whole, without = passes(frozenset()), passes(frozenset({warm, warm + 3}))
    assert without == [paid - 2 * (cam.passes_per_step - 1) for paid in whole]
    assert passes(every) == [11] * 3
