"""MASK: its map shows what the class hangs on, belongs to the image, and ADV² moves it."""

from dataclasses import replace

import pytest
import torch

from support.nets import detail_classifier, waves
from support.toys import SMALL_FIT, images, small_mask
from support.traces import scramble, untouched
from underfire import ADV2, CAM, MASK, PGD, Classifier, InputError, MaskFit
from underfire.attacks.budget import descent_of, first_steps
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.maps import distance

FIT = MaskFit(cell=4, mask_kernel=5, mask_sigma=1.0, jitter=1, sparsity=3e-3)


class TestPlantedDetail:
    """A classifier that reads nothing but the detail of known cells: deleting these is the smallest deletion."""

    @pytest.fixture(params=[(2, 4), (5, 1)], ids=["above", "below"])
    def where(self, request: pytest.FixtureRequest) -> torch.Tensor:
        top, left = request.param
        where = torch.zeros(8, 8)
        where[top : top + 2, left : left + 2] = 1
        return where

    def test_it_is_deleted_and_nothing_else(self, where: torch.Tensor) -> None:
        classifier = detail_classifier(where, scale=600, bias=6)
        x, ones = waves(4, amplitude=0.3, period=6), torch.ones(4, dtype=torch.int64)
        assert float(classifier.probabilities(x)[:, 1].min()) > 0.999
        maps = MASK(classifier, fit=FIT)(x, ones)
        assert float((maps * where).sum(dim=(1, 2)).min()) > 0.8 * 4
        assert float((maps * (1 - where)).sum(dim=(1, 2)).max()) < 0.15 * 60
        assert bool((maps.flatten(1).argmax(dim=1)[:, None] == where.flatten().nonzero()[:, 0]).any(dim=1).all())

    def test_the_objective_falls_and_settles(self, where: torch.Tensor) -> None:
        classifier = detail_classifier(where, scale=600, bias=6)
        x, ones = waves(4, amplitude=0.3, period=6), torch.ones(4, dtype=torch.int64)
        fitted = MASK(classifier, fit=FIT).fitted(x, ones)
        assert fitted.objective.shape == (4, FIT.steps)
        assert bool((fitted.objective[:, -1] < 0.3 * fitted.objective[:, 0]).all())
        assert fitted.settled.tolist() == [True] * 4
        assert torch.equal(1 - fitted.masks, MASK(classifier, fit=FIT)(x, ones))
        shorter = MASK(classifier, fit=replace(FIT, steps=15)).fitted(x, ones)
        assert shorter.settled.tolist() == [False] * 4

    def test_a_class_that_is_not_there_needs_no_deletion(self, where: torch.Tensor) -> None:
        classifier = detail_classifier(where, scale=600, bias=6)
        x, zeros = waves(2, amplitude=0.3, period=6), torch.zeros(2, dtype=torch.int64)
        assert float(MASK(classifier, fit=FIT)(x, zeros).mean()) < 0.05


class TestSeeds:
    def test_jitter_belongs_to_key_and_seed(self, relu_classifier: Classifier) -> None:
        x, y = images(1, 32).repeat(3, 1, 1, 1), torch.tensor([3, 3, 3])
        maps = small_mask(relu_classifier)(x, y, keys=["a", "b", "a"])
        assert torch.equal(maps[0], maps[2])
        assert not torch.equal(maps[0], maps[1])
        other = MASK(relu_classifier, fit=SMALL_FIT, seed=1)(x[:1], y[:1], keys=["a"])
        assert not torch.equal(other[0], maps[0])

    def test_an_objective_sees_the_jitter_of_its_interpreter(self, smooth_classifier: Classifier) -> None:
        x, y, keys = images(2, 16), torch.tensor([1, 2]), ("a", "b")
        g = MASK(smooth_classifier, fit=SMALL_FIT, seed=5)
        objective = g.objective(MapTarget(y, torch.zeros(2, 8, 8), keys, seed=9))
        with smooth_classifier.frozen():
            *_, last = (objective(ForwardPass(smooth_classifier, x)) for _ in range(SMALL_FIT.steps + 1))
        torch.testing.assert_close(last.distance, g(x, y, keys=keys).mean(dim=(1, 2)))

    def test_without_keys_an_image_is_its_own(self, relu_classifier: Classifier) -> None:
        x, y = images(3, 32), torch.tensor([1, 2, 3])
        g = small_mask(relu_classifier)
        assert torch.equal(g(x.flip(0), y.flip(0)), g(x, y).flip(0))

    @pytest.mark.parametrize("threads", [1, 2])
    def test_float32_maps_are_the_same_bits_split_or_whole(self, relu_classifier: Classifier, threads: int) -> None:
        g, x, y, before = small_mask(relu_classifier), images(5, 32), torch.arange(5), torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            whole = g(x, y)
            for rows in (slice(0, 1), slice(1, 3), slice(2, 5)):
                assert torch.equal(g(x[rows], y[rows]), whole[rows])
        finally:
            torch.set_num_threads(before)


def test_its_cost_is_that_of_the_fit(relu_classifier: Classifier) -> None:
    calls: list[int] = []
    relu_classifier.module.register_forward_hook(lambda *_: calls.append(1))
    for steps in (2, 5):
        calls.clear()
        g = MASK(relu_classifier, fit=replace(SMALL_FIT, steps=steps))
        g(images(2, 32), torch.tensor([1, 2]))
        assert len(calls) == g.passes_per_map == steps
    assert MASK(relu_classifier).passes_per_map == MaskFit().steps == MASK.passes_per_map


def test_fitted_refuses_what_the_call_refuses(relu_classifier: Classifier) -> None:
    g, x = small_mask(relu_classifier), images(2, 32)
    with pytest.raises(InputError, match="class 10 does not exist"):
        g.fitted(x, torch.tensor([0, 10]))
    with pytest.raises(InputError, match="outside"):
        g.fitted(x * 255, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="1 keys were given for 2 images"):
        g.fitted(x, torch.tensor([0, 1]), keys=("a",))


def test_fitting_and_attacking_leave_no_trace(relu_classifier: Classifier) -> None:
    scramble(relu_classifier.module)
    g, x, y = small_mask(relu_classifier), images(2, 32), torch.tensor([3, 4])
    with untouched(relu_classifier.module):
        g.fitted(x, y)
        ADV2(g, steps=6)(x, y)


class TestAttack:
    def test_adv2_finds_the_planted_map_and_pgd_does_not(self) -> None:
        """The class is detail anywhere: the attacker may add it where the target map wants it, and nowhere else."""
        classifier = detail_classifier(torch.ones(8, 8), scale=3e4, bias=5)
        x, ones = waves(3, amplitude=0.01, period=5), torch.ones(3, dtype=torch.int64)
        assert float(classifier.probabilities(x)[:, 1].max()) < 0.1
        target = torch.zeros(3, 8, 8)
        for image, (top, left) in zip(target, [(1, 1), (4, 4), (2, 3)], strict=True):
            image[top : top + 3, left : left + 3] = 1
        g = MASK(classifier, fit=replace(FIT, steps=100, sparsity=5e-3))
        result = ADV2(g, passes=600)(x, ones, target_map=target)
        blind = PGD(classifier, steps=100)(x, ones)
        assert result.success.all()
        assert blind.success.all()
        assert float(result.confidence.min()) >= 0.9
        near, far = distance(g(result.x_adv, ones), target), distance(g(blind.x_adv, ones), target)
        assert float(near.max()) < 0.25
        assert bool((near < 0.5 * far).all())

    def test_a_batch_is_its_images(self, relu_classifier: Classifier) -> None:
        x, keys = images(4, 32), list("abcd")
        target = (relu_classifier(x).argmax(dim=1) + 3) % 10
        attack = ADV2(small_mask(relu_classifier), steps=16, seed=3)
        whole = attack(x, target, keys=keys)
        parts = [attack(x[i], target[i], keys=[keys[j] for j in i]) for i in ([0], [1, 2, 3])]
        assert torch.equal(whole.x_adv, torch.cat([part.x_adv for part in parts]))
        assert torch.equal(whole.passes, torch.cat([part.passes for part in parts]))

    def test_no_image_is_no_result(self, relu_classifier: Classifier) -> None:
        result = ADV2(small_mask(relu_classifier), steps=2)(images(0, 32), torch.zeros(0, dtype=torch.int64))
        assert result.x_adv.shape == (0, 3, 32, 32)
        assert len(result.maps["mask"]) == 0

    def test_it_is_attacked_beside_another(self, relu_classifier: Classifier) -> None:
        x, target = images(2, 32), torch.tensor([3, 4])
        g = [small_mask(relu_classifier), CAM(relu_classifier)]
        attack = ADV2(g, steps=80)
        result = attack(x, target)
        assert set(result.maps) == {"mask", "cam"}
        fits = len(attack.setting.finals) * (SMALL_FIT.steps + 1)  # and a map of CAM with each
        assert len(attack.setting.finals) > 1
        assert result.passes.tolist() == [descent_of(attack.setting.schedule.steps, g, warm=first_steps) + fits] * 2
