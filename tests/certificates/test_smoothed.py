"""The system that is deployed: votes, abstention, and how often it shows what no draw should."""

from functools import partial

import pytest
import torch
from scipy import stats

import underfire as uf
from support.smoothing import SIGMA, CoupledMap, FixedMap, SwitchedMap, moved, p_at, plane, plane_weight
from support.toys import images, smooth_net
from support.traces import scramble, untouched
from underfire.certificates.noise import LEVELS, SeededNoise, SystemNoise, noisy, normal


class TestSmoothed:
    def test_the_majority_is_shown_with_a_map_of_one_of_its_draws(self) -> None:
        classifier, x, y = plane(0.1)
        g = SwitchedMap(classifier)
        found = uf.Smoothed(classifier, g, sigma=SIGMA, samples=31)(x)
        assert found.labels.tolist() == y.tolist()
        assert not found.abstained.any()
        maps = [g(x, y)[0], 1 - g(x, y)[0]]
        assert any(torch.equal(found.maps[0], m) for m in maps)  # and no mean of them

    def test_votes_are_binomial(self) -> None:
        classifier, x, _ = plane(0.3)
        votes = uf.Smoothed(classifier, FixedMap(classifier), sigma=SIGMA, samples=1000, seed=1)(x).votes
        assert stats.binomtest(int(votes), 1000, 0.7).pvalue > 1e-4

    def test_without_a_majority_it_abstains(self) -> None:
        classifier, x, _ = plane(0.5)
        many = x.repeat(40, 1, 1, 1)
        keys = [f"copy {i}" for i in range(40)]
        found = uf.Smoothed(classifier, FixedMap(classifier), sigma=SIGMA, samples=2, seed=0)(many, keys=keys)
        assert 5 < int(found.abstained.sum()) < 35  # with a chance of one half
        assert torch.equal(found.abstained, found.votes == 1)
        assert found.labels[found.abstained].unique().tolist() == [-1]
        assert (
            float(found.maps[found.abstained].max()) == 0 < float(found.maps[~found.abstained].amax(dim=(1, 2)).min())
        )

    def test_it_shows_a_bad_pair_no_more_often_than_certified(self) -> None:
        """At the point where the bound is tight, on 200 systems."""
        classifier, x, y = plane(0.1)
        g, radius, draws = SwitchedMap(classifier), 0.06, 5
        found = uf.certify(g, x, y, sigma=SIGMA, samples=400, radii=[radius], goals=["other/kept", "kept/topk"])
        there = moved(x, radius).repeat(200, 1, 1, 1)
        keys = [f"query {i}" for i in range(200)]
        shown = uf.Smoothed(classifier, g, sigma=SIGMA, samples=draws, seed=3)(there, keys=keys)
        kept = uf.metrics.iou(shown.maps, g(x, y).expand_as(shown.maps)) >= 0.5
        for goal, met in {
            "other/free": shown.labels == 0,
            "other/kept": (shown.labels == 0) & kept,
            "kept/topk": (shown.labels == 1) & ~kept,
        }.items():
            bound = float(found.system_rate(goal, draws)[0, 0])
            assert stats.binomtest(int(met.sum()), 200, bound, alternative="greater").pvalue > 1e-4

    def test_with_a_seed_split_is_whole_and_without_one_no_call_repeats(self) -> None:
        classifier = uf.Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16)
        g, x, keys = uf.GRAD(classifier), images(2, 16), ["a", "b"]
        seeded = uf.Smoothed(classifier, g, sigma=0.05, samples=5, seed=0)
        whole, again = seeded(x, keys=keys), seeded(x[1:], keys=keys[1:])
        assert torch.equal(whole.maps[1:], again.maps)
        assert torch.equal(whole.votes[1:], again.votes)
        fresh = uf.Smoothed(classifier, g, sigma=0.05, samples=5)
        assert not torch.equal(fresh(x).maps, fresh(x).maps)

    def test_it_leaves_no_trace(self) -> None:
        net = smooth_net()
        classifier = uf.Classifier(net, mean=0.5, std=0.25, input_size=16)
        smoothed, x = uf.Smoothed(classifier, uf.GRAD(classifier), sigma=0.05, samples=3), images(1, 16)
        scramble(net)
        with untouched(net):
            smoothed(x)

    def test_what_does_not_fit_is_refused(self) -> None:
        classifier, x, _ = plane(0.1)
        other, _, _ = plane(0.2)
        with pytest.raises(uf.InputError, match="another classifier"):
            uf.Smoothed(other, FixedMap(classifier))
        with pytest.raises(uf.InputError, match="samples"):
            uf.Smoothed(classifier, FixedMap(classifier), samples=0)
        with pytest.raises(uf.InputError, match="images"):
            uf.Smoothed(classifier, FixedMap(classifier))(x[:, :, :2])
        with pytest.raises(uf.InputError, match="depend on each other"):
            uf.Smoothed(classifier, CoupledMap(classifier))(x)


class TestAsClassifier:
    def test_draws_are_those_of_the_system(self) -> None:
        """Wrong as often as they should be at x; under an attack on the expectation more often, but within bounds."""
        classifier, x, y = plane(0.1)
        drawing = uf.Smoothed(classifier, FixedMap(classifier), sigma=SIGMA).as_classifier()
        assert drawing.is_random
        scores = uf.score_draws(drawing, x, 1 - y, draws=300)
        assert stats.binomtest(scores.rates[0].k, 300, 0.1).pvalue > 1e-4
        attack = partial(uf.PGD, perturbation=uf.L2(0.06), steps=4)
        found = uf.attack_draws(attack, drawing, x, 1 - y, draws=300, averaged=4)
        rate = found.scores.rates[0]
        assert stats.binomtest(rate.k, 300, 0.2, alternative="greater").pvalue < 0.01
        assert stats.binomtest(rate.k, 300, p_at(0.1, 0.06), alternative="greater").pvalue > 1e-4

    def test_gradients_pass_the_noise(self) -> None:
        classifier, x, _ = plane(0.1)
        drawing = uf.Smoothed(classifier, FixedMap(classifier), sigma=SIGMA).as_classifier()
        leaf = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(drawing(leaf)[0, 1], leaf)
        assert torch.allclose(gradient[0], plane_weight() / 2)

    def test_an_audit_can_have_it_held(self) -> None:
        classifier = uf.Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16, class_names=list("abcdefghij"))
        system = uf.Smoothed(classifier, uf.GRAD(classifier), sigma=0.05)
        held = uf.fixed_draws(system.as_classifier(), draws=4)
        x = images(2, 16)
        assert torch.equal(held(x), held(x))
        assert held.class_names == classifier.class_names
        assert uf.GRAD(held)(x, held(x).argmax(dim=1)).shape == (2, 4, 4)


class TestNoise:
    @pytest.mark.parametrize("source", [SeededNoise(0, "a"), SystemNoise()])
    def test_it_is_normal(self, source: SeededNoise | SystemNoise) -> None:
        values = torch.cat([normal(source, draw, torch.Size((3, 51, 51))).flatten() for draw in range(3)])
        assert stats.kstest(values.numpy(), "norm").pvalue > 1e-4
        assert stats.kstest((values.square() - 0).numpy(), "chi2", args=(1,)).pvalue > 1e-4
        halves = torch.stack(values[: len(values) // 2 * 2].split(len(values) // 2))
        assert abs(float(torch.corrcoef(halves)[0, 1])) < 0.05  # lengths and angles are shared by pairs

    def test_it_belongs_to_seed_owner_purpose_and_draw(self) -> None:
        shape = torch.Size((8,))
        first = normal(SeededNoise(0, "a"), 0, shape)
        assert torch.equal(first, normal(SeededNoise(0, "a"), 0, shape))
        others = [
            normal(SeededNoise(1, "a"), 0, shape),
            normal(SeededNoise(0, "b"), 0, shape),
            normal(SeededNoise(0, "a", "other"), 0, shape),
            normal(SeededNoise(0, "a"), 1, shape),
            normal(SystemNoise(), 0, shape),
            normal(SystemNoise(), 0, shape),
        ]
        everything = torch.stack([first, *others])
        assert len(everything.unique(dim=0)) == len(everything)

    def test_noisy_values_are_on_the_grid_and_near_the_sum(self) -> None:
        x = images(1, 16)[0]
        z = noisy(x, 0.25, SeededNoise(0, "a"), 0)
        assert z.dtype == torch.float32
        assert torch.equal(z * LEVELS, (z * LEVELS).round())
        exact = x.double() + 0.25 * normal(SeededNoise(0, "a"), 0, x.shape)
        assert float((z - exact).abs().max()) <= 0.5 / LEVELS + 1e-9
