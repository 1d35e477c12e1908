"""uf.certify on a linear toy whose probabilities are known, and its contract."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

import underfire as uf
from support.smoothing import SIGMA, CoupledMap, FixedMap, SwitchedMap, moved, p_at, plane
from support.toys import MAKERS, images, relu_net, smooth_net
from support.traces import scramble, untouched
from underfire.certificates.certificate import Certificate
from underfire.certificates.certification import certify_together
from underfire.certificates.noise import SeededNoise
from underfire.certificates.system import NoisySystem, shown_together
from underfire.interpreters.base import Interpreter, MapObjective, MapTarget

RADII = (0.0, 0.02, 0.05, 0.1)


def _certified(g: Interpreter, x: Tensor, y: Tensor, **options: object) -> Certificate:
    return uf.certify(g, x, y, **{"sigma": SIGMA, "samples": 400, "radii": RADII, **options})  # type: ignore[arg-type]


def _repeated(x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor, list[str]]:
    return x.repeat(n, 1, 1, 1), y.repeat(n), [f"copy {i}" for i in range(n)]


class TestLinearToy:
    def test_rates_and_radii_are_the_formula_of_the_counts(self) -> None:
        classifier, x, y = plane(0.1)
        found = _certified(FixedMap(classifier), x, y, goals=["other/free"], alpha=0.01)
        k = int(found.counts["other/free"])
        assert stats.binomtest(k, 400, 0.1).pvalue > 1e-4
        limit = stats.beta.isf(0.01, k + 1, 400 - k)
        for place, radius in enumerate(RADII):
            u = special.ndtr(special.ndtri(limit) + radius / SIGMA)
            assert float(found.rate["other/free"][0, place]) == pytest.approx(u, rel=1e-9)
        assert float(found.label_radius) == pytest.approx(-SIGMA * special.ndtri(limit), rel=1e-9)

    def test_the_bound_is_tight(self) -> None:
        """At x − R·w/‖w‖ the label is wrong with exactly the chance that the bound has for the true one at x."""
        classifier, x, y = plane(0.1)
        for radius in (0.02, 0.06):
            there = _certified(FixedMap(classifier), moved(x, radius), y, samples=2000, goals=["other/free"], seed=5)
            exact = p_at(0.1, radius)
            assert stats.binomtest(int(there.counts["other/free"]), 2000, exact).pvalue > 1e-4
            assert exact == pytest.approx(special.ndtr(special.ndtri(0.1) + radius / SIGMA))

    def test_a_map_that_noise_never_changes_buys_nothing(self) -> None:
        classifier, x, y = plane(0.2)
        found = _certified(FixedMap(classifier), x, y, goals=["other/kept", "kept/topk"])
        assert torch.equal(found.counts["other/kept"], found.counts["other/free"])
        assert torch.equal(found.rate["other/kept"], found.rate["other/free"])
        assert int(found.counts["kept/topk"]) == 0

    def test_a_map_of_its_own_chance_counts_beside_the_label(self) -> None:
        classifier, x, y = plane(0.3)
        goals = ["other/kept", "kept/topk", "kept/center", "kept/l1"]
        found = _certified(SwitchedMap(classifier), x, y, samples=1000, goals=goals)
        expected = {"other/free": 0.3, "other/kept": 0.15, "kept/topk": 0.35, "kept/l1": 0.35, "kept/center": 0.35}
        for goal, p in expected.items():
            assert stats.binomtest(int(found.counts[goal]), 1000, p).pvalue > 1e-4
        assert torch.equal(found.counts["kept/l1"], found.counts["kept/topk"])

    def test_led_maps_and_target_classes(self) -> None:
        classifier, x, y = plane(0.3)
        g = SwitchedMap(classifier)
        benign = g(x, y)
        goals = ["target/free", "target/kept", "target/led", "kept/led", "other/led"]
        found = _certified(g, x, y, goals=goals, target=1 - y, target_map=1 - benign)
        counts = {goal: int(k) for goal, k in found.counts.items()}
        assert counts["target/free"] == counts["other/free"]  # of two classes
        assert counts["target/led"] + counts["target/kept"] == counts["target/free"]
        assert counts["other/led"] == counts["target/led"]
        assert stats.binomtest(counts["kept/led"], 400, 0.35).pvalue > 1e-4

    def test_coverage(self) -> None:
        """At α = 0.05 the limit lies below the true chance in no more than a share α of 1,000 certificates."""
        p, n, alpha = 0.26, 10, 0.05
        classifier, x, y = plane(p)
        many, labels, keys = _repeated(x, y, 1000)
        found = _certified(
            FixedMap(classifier), many, labels, samples=n, alpha=alpha, goals=["other/free"], keys=keys, batch_size=n
        )
        missed = int((found.limits["other/free"] < p).sum())
        assert stats.binomtest(missed, 1000, alpha, alternative="greater").pvalue > 1e-4
        assert stats.binomtest(missed, 1000, (1 - p) ** n).pvalue > 1e-4  # it lies below where the count is 0
        naive = int((found.counts["other/free"] / n < p).sum())  # a liar, who certifies what he saw
        assert stats.binomtest(naive, 1000, alpha, alternative="greater").pvalue < 1e-12

    def test_coverage_is_shared_by_the_goals(self) -> None:
        classifier, x, y = plane(0.3)
        one = _certified(FixedMap(classifier), x, y, goals=["other/free"], alpha=0.01)
        three = _certified(FixedMap(classifier), x, y, goals=["other/kept", "kept/topk"], alpha=0.03)
        assert torch.equal(one.limits["other/free"], three.limits["other/free"])

    def test_abstention_and_censoring(self) -> None:
        names = ["rare", "ordinary", "hopeless"]
        found = []
        for name, p in zip(names, (1e-6, 0.1, 0.6), strict=True):
            classifier, x, y = plane(p)
            found.append(_certified(FixedMap(classifier), x, y, keys=[name]))
        assert [bool(c.abstained) for c in found] == [False, False, True]
        assert [bool(c.censored) for c in found] == [True, False, True]
        rare, ordinary, hopeless = found
        assert float(rare.label_radius) == rare.cap() > float(ordinary.label_radius) > float(hopeless.label_radius) == 0
        alpha = rare.alpha / len(rare.goals)
        assert rare.cap() == pytest.approx(SIGMA * abs(special.ndtri(-math.expm1(math.log(alpha) / 400))))
        assert [row["censored"] for row in ordinary.rows()] == [False] * len(ordinary.goals)

    def test_radii_for_rates_and_queries(self) -> None:
        classifier, x, y = plane(0.001)
        found = _certified(FixedMap(classifier), x, y)
        limit = float(found.limits["other/kept"])
        for queries in (1, 10, 100):
            u = 1 - 2 ** (-1 / queries)
            expected = max(0.0, SIGMA * (special.ndtri(u) - special.ndtri(limit)))
            assert float(found.radius("other/kept", queries=queries)) == pytest.approx(expected, abs=1e-12)
        assert float(found.radius("other/kept", rate=0.9)) > float(found.radius("other/kept"))
        with pytest.raises(uf.InputError, match="target/kept"):
            found.radius("target/kept")

    def test_a_system_that_votes_is_wrong_more_seldom_than_a_draw_far_inside(self) -> None:
        classifier, x, y = plane(0.05)
        found = _certified(FixedMap(classifier), x, y)
        assert float(found.system_rate("other/kept", 101)[0, 0]) < 1e-6 < float(found.rate["other/kept"][0, 0])
        single = found.system_rate("other/kept", 1)
        assert torch.allclose(single, found.rate["other/kept"])
        kept = found.system_rate("kept/topk", 101)
        assert bool((kept <= (2 * found.rate["kept/topk"]).clamp(max=1) + 1e-12).all())


class TestDraws:
    def test_split_is_whole(self) -> None:
        classifier = uf.Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)
        x, names = images(3, 32), ["a", "b", "c"]
        y = classifier.probabilities(x).argmax(dim=1)
        g = uf.CAM(classifier)
        whole = uf.certify(g, x, y, sigma=0.05, samples=40, keys=names)
        assert 0 < int(whole.counts["other/free"].sum()) < 120
        for i in range(3):
            one = slice(i, i + 1)
            alone = uf.certify(g, x[one], y[one], sigma=0.05, samples=40, keys=names[one], batch_size=1 + 6 * i)
            assert all(torch.equal(alone.counts[goal], k[one]) for goal, k in whole.counts.items())
        other = uf.certify(g, x, y, sigma=0.05, samples=40, keys=["d", "e", "f"])
        assert any(not torch.equal(other.counts[goal], k) for goal, k in whole.counts.items())

    def test_draws_change_with_the_version_alone(self) -> None:
        classifier, x, y = plane(0.3)
        found = _certified(SwitchedMap(classifier), x, y, keys=["a"])
        assert (Certificate.version, [int(k) for k in found.counts.values()]) == (1, [108, 55, 142, 142])

    def test_no_image_gives_no_figure(self) -> None:
        classifier, x, y = plane(0.1)
        found = _certified(FixedMap(classifier), x[:0], y[:0])
        assert found.rate["other/kept"].shape == (0, len(RADII))
        assert found.label_radius.shape == (0,)
        assert found.rows() == []

    @pytest.mark.parametrize("make", [uf.CAM, uf.GRAD, uf.IG, MAKERS[uf.RISE], MAKERS[uf.SmoothGrad]])
    def test_it_leaves_no_trace(self, make: Callable[[uf.Classifier], Interpreter]) -> None:
        net = smooth_net().double()
        classifier = uf.Classifier(net, mean=0.5, std=0.25, input_size=16)
        g, x = make(classifier), images(1, 16, dtype=torch.float64)
        scramble(net)
        with untouched(net):
            found = uf.certify(g, x, torch.zeros(1, dtype=torch.int64), sigma=0.2, samples=6)
        again = uf.certify(g, x, torch.zeros(1, dtype=torch.int64), sigma=0.2, samples=6)
        assert all(torch.equal(k, again.counts[goal]) for goal, k in found.counts.items())

    def test_draws_of_the_benign_map_do_not_count(self) -> None:
        classifier, x, y = plane(0.3)
        g = SwitchedMap(classifier)
        plain = _certified(g, x, y, goals=["other/kept"])
        split = _certified(g, x, y, goals=["other/kept"], benign_map=3)
        assert torch.equal(plain.counts["other/free"], split.counts["other/free"])
        given = _certified(g, x, y, goals=["other/kept"], benign_map=1 - g(x, y))
        assert int(given.counts["other/kept"]) + int(plain.counts["other/kept"]) == int(plain.counts["other/free"])

    def test_captums_too(self) -> None:
        attr = pytest.importorskip("captum.attr")
        from underfire.interpreters.captum import Captum

        classifier = uf.Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16)
        x = images(1, 16)
        y = classifier.probabilities(x).argmax(dim=1)
        found = uf.certify(Captum(classifier, attr.Saliency), x, y, sigma=0.1, samples=20)
        assert found.interpreter == "captum-saliency"
        assert int(found.counts["kept/topk"]) > 0

    def test_a_denoiser_belongs_to_the_system(self) -> None:
        classifier, x, y = plane(0.3)
        found = _certified(FixedMap(classifier), x, y, denoise=lambda z: 0.5 + (z - 0.5) / 4)
        assert (
            stats.binomtest(int(found.counts["other/free"]), 400, float(special.ndtr(4 * special.ndtri(0.3)))).pvalue
            > 1e-4
        )
        in_place = _certified(FixedMap(classifier), x, y, denoise=lambda z: z.sub_(0.5).div_(4).add_(0.5))
        assert torch.equal(in_place.counts["other/free"], found.counts["other/free"])


def _passes(make: Callable[[uf.Classifier], Interpreter], **options: object) -> tuple[int, int]:
    """How many images went forward and how many back in a certificate of one."""
    net = relu_net()
    forward, backward = [0], [0]

    def seen(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        forward[0] += len(out)
        if out.requires_grad:
            out.register_hook(lambda g: backward.__setitem__(0, backward[0] + len(g)))

    g = make(uf.Classifier(net, mean=0.5, std=0.25, input_size=32))
    net.features.register_forward_hook(seen)
    _certified(g, images(1, 32), torch.zeros(1, dtype=torch.int64), sigma=0.2, batch_size=8, **options)
    return forward[0], backward[0]


class TestCost:
    @pytest.mark.parametrize(("make", "back"), [(uf.CAM, 0), (uf.GRAD, 1), (uf.GradCAM, 1)])
    def test_draws_cost_little_more_than_their_passes(
        self, make: Callable[[uf.Classifier], Interpreter], back: int
    ) -> None:
        n = 200
        forward, backward = _passes(make, samples=n)
        assert n <= forward <= 1.1 * n
        assert back * n <= backward <= 1.1 * n * back

    def test_a_certificate_of_the_label_alone_takes_no_maps(self) -> None:
        forward, backward = _passes(uf.GRAD, samples=200, goals=["other/free"])
        assert forward <= 206  # two draws, and each again alone, which is filled to two
        assert backward == 0

    def test_the_label_has_the_same_counts_with_maps_and_without(self) -> None:
        classifier, x, y = plane(0.2)
        g = FixedMap(classifier)
        several = [g, SwitchedMap(classifier)]
        wanted = _certified(g, x, y).counts["other/free"]
        assert torch.equal(_certified(g, x, y, goals=["other/free"]).counts["other/free"], wanted)
        for found in certify_together(several, x, y, sigma=SIGMA, samples=400, radii=RADII, goals=["other/free"]):
            assert torch.equal(found.counts["other/free"], wanted)


class _ScaledTogether(FixedMap):
    name = "scaled"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return x[:, 0] / x[:, 0].max()


class _NoNumber(FixedMap):
    name = "nan"

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return super().compute(x, y, keys) * torch.where(x[:, :1, 0, :1] > 0.9, math.nan, 1.0)


class _Own(Interpreter):
    """A user's, which asks the classifier as a user would."""

    name = "own"
    grid = (4, 4)

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        shown = self.classifier.probabilities(x).gather(1, y[:, None])
        return (x.mean(dim=1) * shown[:, :, None]).clamp(0, 1)

    def objective(self, target: MapTarget) -> MapObjective:
        raise NotImplementedError


class TestRefusals:
    def test_an_interpreter_of_ones_own_is_taken(self) -> None:
        classifier, x, y = plane(0.2)
        assert int(_certified(_Own(classifier), x, y, sigma=0.6).counts["other/free"]) > 0

    def test_coupled_draws(self) -> None:
        classifier, x, y = plane(0.2)
        with pytest.raises(uf.InputError, match="depend on each other"):
            _certified(CoupledMap(classifier), x, y)
        with pytest.raises(uf.InputError, match="depend on each other"):
            _certified(FixedMap(classifier), x, y, denoise=lambda z: z - z.mean(dim=0, keepdim=True) + 0.5)

    def test_maps_scaled_by_the_largest_value_of_a_batch(self) -> None:
        """Which leaves as it is the draw that has it."""
        classifier, x, y = plane(0.2)
        for seed in range(6):
            with pytest.raises(uf.InputError, match="depend on each other"):
                _certified(_ScaledTogether(classifier), x, y, seed=seed, samples=2)

    def test_what_is_no_number_names_the_image(self) -> None:
        classifier, x, y = plane(0.2)
        several, labels, keys = _repeated(x, y, 3)
        several[2, 0, 0, 0] = 0.98
        with pytest.raises(uf.NonFiniteError) as raised:
            _certified(_NoNumber(classifier), several, labels, keys=keys, benign_map=torch.zeros(3, 4, 4).double())
        assert raised.value.index == 2
        with pytest.raises(uf.NonFiniteError):
            _certified(_NoNumber(classifier), several[2:], y, benign_map=torch.zeros(1, 4, 4).double())

    def test_labels_that_do_not_exclude_each_other(self) -> None:
        net = smooth_net()
        classifier = uf.Classifier(net, input_size=16, outputs="sigmoid")
        with pytest.raises(uf.InputError, match="exclude"):
            uf.certify(uf.CAM(classifier), images(1, 16), torch.zeros(1, dtype=torch.int64))

    def test_a_classifier_that_draws(self) -> None:
        class Noisy(nn.Module):
            def forward(self, z: Tensor) -> Tensor:
                return z.mean(dim=(2, 3)) + torch.randn(len(z), 3)

        classifier = uf.Classifier(Noisy(), input_size=16)
        with pytest.raises(uf.InputError, match="draws random"):
            uf.certify(uf.GRAD(classifier), images(1, 16), torch.zeros(1, dtype=torch.int64))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"sigma": 0.0},
            {"sigma": math.nan},
            {"samples": 0},
            {"alpha": 0.0},
            {"radii": ()},
            {"radii": (-0.1,)},
            {"goals": ["kept/free"]},
            {"goals": ["target/kept"]},
            {"goals": ["kept/led"]},
            {"target": torch.tensor([1])},
            {"iou": 0.0},
            {"shift": 2.0},
            {"benign_map": 0},
            {"benign_map": torch.zeros(1, 3, 3)},
            {"batch_size": 0},
            {"keys": ["a", "b"]},
            {"denoise": lambda z: z[:1]},
        ],
    )
    def test_arguments_that_do_not_fit(self, wrong: dict[str, object]) -> None:
        classifier, x, y = plane(0.2)
        with pytest.raises(uf.InputError):
            _certified(FixedMap(classifier), x, y, **wrong)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"sigma": "0.1"}, "sigma is '0.1'; give a number"),
            ({"sigma": None}, "sigma is None"),
            ({"samples": 10.0}, "samples is 10.0; give a whole number"),
            ({"samples": "10"}, "samples is '10'"),
            ({"alpha": "0.1"}, "alpha is '0.1'; give a number"),
            ({"radii": 0.1}, "radii are 0.1; give L2 distances"),
            ({"radii": "12"}, "radii are '12'"),
            ({"radii": [None]}, r"radii are \[None\]"),
            ({"radii": (r for r in (0.1,))}, "radii are <generator"),
            ({"goals": "other/kept"}, "goals are 'other/kept'; give a list"),
            ({"goals": [5]}, r"goals are \[5\]"),
            ({"goals": 5}, "goals are 5"),
            ({"iou": "0.5"}, "iou is '0.5'; give a number"),
            ({"shift": [0.1]}, r"shift is \[0.1\]"),
            ({"batch_size": "8"}, "batch_size is '8'; give a whole number"),
            ({"denoise": "median"}, "denoise is 'median'; give a function"),
        ],
    )
    def test_arguments_of_the_wrong_kind_are_named(self, wrong: dict[str, object], said: str) -> None:
        classifier, x, y = plane(0.2)
        with pytest.raises(uf.InputError, match=said):
            _certified(FixedMap(classifier), x, y, **wrong)

    def test_what_a_certificate_is_asked_has_to_be_numbers(self) -> None:
        classifier, x, y = plane(0.2)
        found = _certified(FixedMap(classifier), x, y, samples=4)
        with pytest.raises(uf.InputError, match="rate is 'half'; give a number"):
            found.radius("other/free", rate="half")  # type: ignore[arg-type]
        with pytest.raises(uf.InputError, match=r"queries is 1\.5; give a whole number"):
            found.radius("other/free", queries=1.5)  # type: ignore[arg-type]
        with pytest.raises(uf.InputError, match="draws is '9'; give a whole number"):
            found.system_rate("other/free", draws="9")  # type: ignore[arg-type]

    def test_a_classifier_is_no_interpreter(self) -> None:
        classifier, x, y = plane(0.2)
        with pytest.raises(uf.InputError, match="interpreter"):
            uf.certify(classifier, x, y)  # type: ignore[arg-type]


class TestTogether:
    @pytest.mark.parametrize("make", [relu_net, smooth_net])
    def test_several_interpreters_have_the_counts_that_each_has_alone(self, make: Callable[[], nn.Module]) -> None:
        x = images(2, 32, seed=4)
        classifier = uf.Classifier(make(), mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32)
        y = classifier.probabilities(x).argmax(dim=1)
        parts = [uf.CAM(classifier), uf.GradCAM(classifier), uf.GRAD(classifier), uf.InputXGradient(classifier)]
        options = {"sigma": 0.3, "samples": 40, "target": (y + 1) % 10}
        together = certify_together(parts, x, y, batch_size=7, **options)  # type: ignore[arg-type]
        for g, found in zip(parts, together, strict=True):
            alone = uf.certify(g, x, y, **options)  # type: ignore[arg-type]
            assert found.interpreter == g.name
            assert {goal: counts.tolist() for goal, counts in found.counts.items()} == {
                goal: counts.tolist() for goal, counts in alone.counts.items()
            }
            assert sum(int(counts.sum()) for counts in found.counts.values())

    def test_one_forward_pass_serves_all_that_read_it(self) -> None:
        classifier = uf.Classifier(relu_net(), mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32)
        parts = [uf.CAM(classifier), uf.GradCAM(classifier), uf.GRAD(classifier)]
        seen = []
        classifier.module.register_forward_hook(lambda _module, inputs, _: seen.append(len(inputs[0])))
        systems = [NoisySystem(g, 0.1, batch_size=4) for g in parts]
        with classifier.frozen():
            seen.clear()
            for _ in shown_together(systems, images(1, 32, seed=4)[0], SeededNoise(0, "key"), range(8)):
                pass
        assert seen == [4, 4]
