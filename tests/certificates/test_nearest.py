"""The search for the nearest image that reaches a goal at a rate of one half, where the answer is known."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import special, stats

import underfire as uf
from support.smoothing import SIGMA, FixedMap, p_at, plane
from support.toys import images, relu_net
from underfire.attacks.goals import Goal
from underfire.attacks.transforms import AveragedDraws
from underfire.certificates.events import BenignImage, ImageGoals
from underfire.certificates.nearest import SearchEffort, nearest_image
from underfire.certificates.noise import HeldNoise, SeededNoise
from underfire.certificates.system import NoisySystem

EFFORT = SearchEffort(judged=64, scored=400)


def asked(p_wrong: float, goal: str) -> tuple[NoisySystem, ImageGoals]:
    classifier, x, y = plane(p_wrong)
    g = FixedMap(classifier)
    image = BenignImage("photo", x[0], y[0], None, g(x, y)[0], None)
    return NoisySystem(g, SIGMA), ImageGoals((Goal.parse(goal),), image, 0.5, 0.1)


class TestLinearToy:
    @pytest.mark.parametrize("p_wrong", [0.02, 0.1])
    @pytest.mark.parametrize("goal", ["other/free", "other/kept"])
    def test_it_comes_near_the_exact_distance(self, p_wrong: float, goal: str) -> None:
        exact = -SIGMA * float(special.ndtri(p_wrong))
        found = nearest_image(*asked(p_wrong, goal), EFFORT)
        assert found.distance == pytest.approx(exact, rel=0.2)
        x = asked(p_wrong, goal)[1].image.x
        assert found.distance == pytest.approx(float((found.image - x).square().sum().sqrt()))
        assert stats.binomtest(found.met, found.scored, p_at(p_wrong, found.distance)).pvalue > 1e-4
        assert 2 * found.met >= found.scored

    def test_no_image_inside_a_certificate_reaches_the_goal(self) -> None:
        system, goals = asked(0.1, "other/free")
        found = nearest_image(system, goals, EFFORT)
        x, y = goals.image.x[None], goals.image.label[None]
        certificate = uf.certify(system.interpreter, x, y, sigma=SIGMA, samples=400, goals=["other/free"])
        assert found.distance > float(certificate.label_radius)

    def test_where_noise_is_enough_the_distance_is_0(self) -> None:
        found = nearest_image(*asked(0.8, "other/free"), EFFORT)
        assert (found.distance, found.passes) == (0.0, 0)

    def test_noise_is_enough_only_where_fresh_draws_say_so(self) -> None:
        """Where the label is wrong on 40 % of the draws, many sets of 16 say that it is on half."""
        system, goals = asked(0.4, "other/free")
        images = [replace(goals.image, key=f"photo {k}") for k in range(8)]
        found = [nearest_image(system, replace(goals, image=image), replace(EFFORT, judged=16)) for image in images]
        assert all(2 * one.met >= one.scored and one.distance < SIGMA for one in found)

    def test_a_map_that_never_moves_is_not_moved(self) -> None:
        system, goals = asked(0.1, "kept/topk")
        found = nearest_image(system, goals, SearchEffort(rounds=2, judged=4, scored=4))
        assert found.distance == math.inf
        assert torch.equal(found.image, goals.image.x)

    def test_frozen_noise_is_one_draw_and_the_distance_to_its_border(self) -> None:
        system, goals = asked(0.1, "other/free")
        found = nearest_image(system, goals, EFFORT, held=True)
        noise = HeldNoise(SeededNoise(0, "photo", "held"))
        z = system.images(goals.image.x, noise, range(2))
        assert torch.equal(z[0], z[1])
        margin = system.classifier(z[:1])[0] @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
        assert (found.met, found.scored) == (1, 1)
        assert found.distance == pytest.approx(float(margin), rel=0.25)

    def test_it_begins_where_it_is_told(self) -> None:
        system, goals = asked(0.02, "other/free")
        near = nearest_image(system, goals, EFFORT)
        further = nearest_image(system, goals, EFFORT, begin=near.image)
        assert further.distance <= near.distance * 1.06


class TestNetwork:
    @pytest.mark.parametrize("goal", ["other/kept", "target/kept", "kept/topk"])
    def test_what_is_found_meets_the_goal_in_draws_of_its_own(self, goal: str) -> None:
        classifier = uf.Classifier(relu_net(), mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32)
        x = images(1, 32, seed=4)
        y = classifier.probabilities(x).argmax(dim=1)
        cam = uf.CAM(classifier)
        target = (y + 1) % 10
        image = BenignImage("photo", x[0], y[0], target[0], cam(x, y)[0], None)
        goals = ImageGoals((Goal.parse(goal),), image, 0.5, 0.1)
        effort = SearchEffort(rounds=5, steps=8, averaged=4, judged=8, scored=32)
        found = [nearest_image(NoisySystem(cam, 0.05), goals, effort) for _ in range(2)]
        assert found[0].distance == found[1].distance < math.inf
        there = uf.certify(
            cam, found[0].image[None], y, sigma=0.05, samples=100, goals=[goal], target=target,
            benign_map=image.benign_map[None], seed=9,
        )  # fmt: skip
        assert stats.binomtest(int(there.counts[goal]), 100, 0.5, alternative="less").pvalue > 1e-3


def test_the_mean_over_draws_is_one_direction_and_cut_values_have_none() -> None:
    seen = torch.tensor([[0.5, 0.0], [1.0, 0.25]]).expand(3, 1, 2, 2)
    batch = AveragedDraws(lambda _image, _step: seen)(torch.zeros(3, 1, 2, 2), torch.arange(3), 0)
    directions = torch.arange(12.0).reshape(3, 1, 2, 2)
    pulled = batch.pull_back(directions)
    assert torch.equal(pulled[0], pulled[2])
    assert pulled[0].tolist() == [[[4.0, 0.0], [0.0, 7.0]]]


def test_an_effort_of_nothing_is_refused() -> None:
    with pytest.raises(uf.InputError, match="rounds is 0"):
        SearchEffort(rounds=0)
