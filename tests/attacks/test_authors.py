"""The authors' schedules: their numbers, their losses and directions, and that they work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from support.nets import board, cells, spread, stripes_classifier
from support.toys import images, relu_net, small_mask, smooth_net, untrained_rts
from support.traces import untouched
from underfire import CAM, GRAD, IG, AuthorsADV2, Classifier, GradCAM, InputError, Interpreter
from underfire.attacks.authors import PUBLISHED, objective_of
from underfire.attacks.budget import descent_of
from underfire.attacks.control import Weighted
from underfire.attacks.keepers import BEST, LAST
from underfire.attacks.labels import Confidence
from underfire.attacks.rules import Sign
from underfire.attacks.smoothed import smoothed_clip
from underfire.interpreters import ALL, ForwardPass, MapGradient, MapTarget
from underfire.interpreters.clipping import double_backward
from underfire.interpreters.maps import min_max, pooled

SCHEDULED = [g for g in ALL if g.name in PUBLISHED]
every = pytest.mark.parametrize("make", SCHEDULED, ids=lambda g: g.name)


@pytest.fixture
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


def _weights(attack: AuthorsADV2) -> tuple[float, ...]:
    mix = attack.setting.mix
    assert isinstance(mix, Weighted)
    return mix.weights


class TestSchedule:
    @pytest.mark.parametrize("make", [CAM, GradCAM], ids=lambda g: g.name)
    def test_of_activations(self, toy: Classifier, make: type[Interpreter]) -> None:
        attack = AuthorsADV2(make(toy))
        setting, weights = attack.setting, _weights(attack)
        assert (setting.schedule.warm, len(weights), setting.schedule.steps) == (400, 1200, 1600)
        assert weights == pytest.approx([5 + 5 * step / 1199 for step in range(1200)])
        assert (weights[0], weights[-1]) == (5, 10)
        assert (setting.keep, setting.every) == (LAST, 1)

    @pytest.mark.parametrize("make", [GRAD, IG], ids=lambda g: g.name)
    def test_of_gradients(self, toy: Classifier, make: type[Interpreter]) -> None:
        attack = AuthorsADV2(make(toy))
        setting = attack.setting
        assert (setting.schedule.warm, setting.schedule.steps) == (300, 1004)
        assert _weights(attack) == (0.001,) * 301 + (0.004,) * 201 + (0.01,) * 101 + (0.05,) * 101
        assert (setting.keep, setting.every, setting.label) == (BEST, 10, Confidence(keep=0.8))

    @every
    def test_whole_grey_levels_by_sign(self, toy: Classifier, make: type[Interpreter]) -> None:
        setting = AuthorsADV2(make(toy)).setting
        assert {setting.schedule.size(step) for step in range(setting.schedule.steps)} == {1 / 255}
        assert setting.rule == Sign()
        assert setting.perturbation.eps == 8 / 255

    @every
    @pytest.mark.parametrize("passes", [60, 77, 1000])
    def test_a_budget_of_passes_is_a_number_of_steps(
        self, toy: Classifier, make: type[Interpreter], passes: int
    ) -> None:
        g = make(toy)
        attack = AuthorsADV2(g, passes=passes)
        steps = attack.setting.schedule.steps
        cost, more = (
            descent_of(n, (g,), warm=lambda n: AuthorsADV2(g, steps=n).setting.schedule.warm)
            for n in (steps, steps + 1)
        )
        assert cost <= passes < more
        assert attack.setting == AuthorsADV2(g, steps=steps).setting

    @every
    def test_a_budget_of_passes_is_spent_and_kept(self, toy: Classifier, make: type[Interpreter]) -> None:
        x, target = images(2, 32), torch.tensor([3, 4])
        g = make(toy)
        attack = AuthorsADV2(g, passes=61)
        spent = attack(x, target, target_map=torch.rand(2, *g.grid)).passes
        unlooked = int(attack.setting.keep == LAST)  # the last iterate is kept without a look
        assert 61 - unlooked - g.passes_per_step < int(spent.min()) <= int(spent.max()) <= 61 - unlooked

    @every
    @pytest.mark.parametrize("steps", [1, 2, 17, 251, 1003, 4000])
    def test_fewer_steps_shrink_every_part(self, toy: Classifier, make: type[Interpreter], steps: int) -> None:
        whole, part = AuthorsADV2(make(toy)), AuthorsADV2(make(toy), steps=steps)
        scale = steps / whole.setting.schedule.steps
        assert part.setting.schedule.steps == steps
        assert part.setting.schedule.warm == pytest.approx(whole.setting.schedule.warm * scale, abs=0.5)
        weights = _weights(part)
        assert part.setting.schedule.warm + len(weights) == steps
        assert list(weights) == sorted(weights)
        assert part.setting.every == max(1, round(whole.setting.every * scale))
        if make in (GRAD, IG):
            for weight, count in ((0.001, 301), (0.004, 201), (0.01, 101), (0.05, 101)):
                assert weights.count(weight) == pytest.approx(count * scale, abs=1)
        elif len(weights) > 1:
            assert (weights[0], weights[-1]) == (5, 10)

    def test_the_mix_adds_what_it_is_given(self) -> None:
        mixer = Weighted(warm=3, weights=(0.5, 2.0)).begin(torch.zeros(2, 3, 4, 4))
        prediction, pull = torch.full((2, 3, 4, 4), 1e-3), torch.full((2, 3, 4, 4), 7.0)
        distances = [torch.tensor([0.3, 0.1])]
        for needs_confidence in (torch.tensor([True, False]), torch.tensor([False, False])):
            assert torch.equal(mixer(prediction, [pull], distances, needs_confidence, 3), prediction + 0.5 * pull)
            assert torch.equal(
                mixer(prediction, [pull, pull], distances * 2, needs_confidence, 4), prediction + 2.0 * (2 * pull)
            )


def _pull(g: Interpreter, x: Tensor, y: Tensor, target: Tensor) -> tuple[ForwardPass, MapGradient]:
    with g.classifier.frozen():
        objective = objective_of(g, MapTarget(y, target, tuple("abcdefgh"[: len(x)]), seed=0))
        view = ForwardPass(g.classifier, x, taps=objective.taps)
        return view, objective(view)


class TestObjectives:
    @pytest.fixture
    def batch(self) -> tuple[Tensor, Tensor]:
        return images(3, 32, dtype=torch.float64), torch.tensor([1, 4, 7])

    @pytest.fixture
    def toy64(self) -> Classifier:
        return Classifier(relu_net().double(), mean=0.5, std=0.25, input_size=32)

    @pytest.mark.parametrize("make", [CAM, GradCAM], ids=lambda g: g.name)
    def test_activations_mean_squared_error(
        self, toy64: Classifier, make: type[Interpreter], batch: tuple[Tensor, Tensor]
    ) -> None:
        g, (x, y) = make(toy64), batch
        own = g(x, y)
        target = own.roll(1, dims=0)
        view, pull = _pull(g, x, y, target)
        torch.testing.assert_close(pull.loss, (own - target).square().mean(dim=(1, 2)))
        torch.testing.assert_close(pull.distance, (own - target).abs().mean(dim=(1, 2)))
        assert pull.passes == 0
        assert pull.at is not None
        with toy64.frozen():
            direction = view.carried(pull.at, pull.direction)
        _agrees(lambda z: (g(z, y) - target).square().mean(dim=(1, 2)), x, direction)

    def test_grad_sum_of_squared_errors_on_the_smoothed_network(
        self, toy64: Classifier, batch: tuple[Tensor, Tensor]
    ) -> None:
        g, (x, y) = GRAD(toy64), batch
        own = g(x, y)
        target = own.roll(1, dims=0)
        view, pull = _pull(g, x, y, target)
        torch.testing.assert_close(pull.distance, (own - target).abs().mean(dim=(1, 2)))  # of the network as it is
        with toy64.frozen():
            smoothed, _ = double_backward(lambda z: _nll(toy64, z, y), x, smoothed_clip)
        assert not torch.allclose(smoothed, view.nll_gradient(y))
        loss = (min_max(pooled(smoothed)) - target).square().sum(dim=(1, 2))
        torch.testing.assert_close(pull.loss, loss)
        assert pull.passes == 1

    @pytest.mark.parametrize("make", [GRAD, IG], ids=lambda g: g.name)
    def test_without_kinks_the_direction_is_exact(self, make: type[Interpreter]) -> None:
        classifier = Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16)
        g = make(classifier)
        x, y = images(3, 16, dtype=torch.float64), torch.tensor([1, 4, 7])
        target = g(x, y).roll(1, dims=0)
        _, pull = _pull(g, x, y, target)
        _agrees(lambda z: _pull(g, z, y, target)[1].loss, x, pull.direction)

    def test_ig_takes_as_many_passes_as_ours(self, toy: Classifier) -> None:
        ig = IG(toy, strata=4)
        x, y = images(2, 32), torch.tensor([1, 2])
        objective = objective_of(ig, MapTarget(y, ig(x, y), ("a", "b"), seed=0))
        with toy.frozen():
            passes = [objective(ForwardPass(toy, x)).passes for _ in range(3)]
        assert passes == [8, 2, 2]


def _nll(classifier: Classifier, z: Tensor, y: Tensor) -> Tensor:
    return -classifier.scores(z).log_softmax(dim=1).gather(1, y[:, None]).squeeze(1)


def _agrees(loss: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> None:
    """``direction`` is the gradient of ``loss`` by central differences."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        d = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        step = 1e-6
        wanted = (loss(x + step * d) - loss(x - step * d)) / (2 * step)
        torch.testing.assert_close((direction * d).sum(dim=(1, 2, 3)), wanted, rtol=2e-3, atol=1e-6)


class TestAttack:
    @every
    def test_it_reaches_the_target_and_brings_the_map_nearer_than_the_prediction_alone(
        self, toy: Classifier, make: type[Interpreter]
    ) -> None:
        x = images(6, 32)
        benign = toy(x).argmax(dim=1)
        target = (benign + 1) % 10
        g = make(toy)
        result = AuthorsADV2(g, steps=100)(x, target)
        assert result.attack == "adv2-authors"
        assert result.success.all()
        assert float(result.confidence.min()) > 0.8
        assert float((result.x_adv - x).abs().max()) <= 8 / 255 + 1e-6
        assert torch.equal(result.maps[make.name], g(result.x_adv, target))
        assert torch.equal(result.target_maps[make.name], g(x, benign))
        if make not in (GRAD, CAM):
            return
        blind = AuthorsADV2(g, steps=100)
        mix = blind.setting.mix
        assert isinstance(mix, Weighted)
        object.__setattr__(mix, "weights", (0.0,) * len(mix.weights))
        alone = blind(x, target)
        distances = [float((r.maps[make.name] - r.target_maps[make.name]).abs().mean()) for r in (result, alone)]
        assert distances[0] < 0.9 * distances[1]

    def test_it_finds_the_planted_map_to_within_a_step(self) -> None:
        """Steps never shrink: each changes a cell by 1/255 of the 0.03 that are the map's whole range."""
        classifier = stripes_classifier()
        x, cam, ones = cells(2), CAM(classifier), torch.ones(2, dtype=torch.int64)
        maps = cam(x, 0 * ones)
        planted = x + 0.03 * spread(maps)[:, None] * board(32)
        assert float((cam(planted, ones) - maps).abs().max()) < 1e-3
        result = AuthorsADV2(cam, eps=0.03, steps=200)(x, ones)
        assert result.success.all()
        assert float((result.maps["cam"] - maps).abs().mean()) < 1 / 255 / 0.03

    @every
    @pytest.mark.parametrize("steps", [1, 12])
    def test_a_batch_is_its_images(self, toy: Classifier, make: type[Interpreter], steps: int) -> None:
        x, keys = images(5, 32), list("abcde")
        target = (toy(x).argmax(dim=1) + 3) % 10
        attack = AuthorsADV2(make(toy), steps=steps, seed=3)
        whole = attack(x, target, keys=keys)
        parts = [attack(x[i], target[i], keys=[keys[j] for j in i]) for i in ([0], [1, 2, 3], [4])]
        assert torch.equal(whole.x_adv, torch.cat([part.x_adv for part in parts]))
        assert torch.equal(whole.passes, torch.cat([part.passes for part in parts]))
        assert whole.steps == steps

    @every
    def test_no_trace(self, make: type[Interpreter]) -> None:
        net = relu_net()
        g = make(Classifier(net, input_size=32))
        with untouched(net):
            AuthorsADV2(g, steps=6)(images(2, 32), torch.tensor([1, 2]))

    @pytest.mark.parametrize(("make", "joint"), [(CAM, 1), (GradCAM, 1), (GRAD, 2), (IG, 3)])
    def test_passes_of_a_joint_step(self, toy: Classifier, make: type[Interpreter], joint: int) -> None:
        x, target = images(2, 32), torch.tensor([3, 4])
        passes, warm = [], []
        for steps in (20, 40):
            attack = AuthorsADV2(make(toy), steps=steps)
            passes.append(int(attack(x, target, target_map=torch.rand(2, *attack.interpreters[0].grid)).passes[0]))
            warm.append(attack.setting.schedule.warm)
        more = warm[1] - warm[0]
        assert passes[1] - passes[0] == more + joint * (20 - more)

    def test_only_ig_draws(self, toy: Classifier) -> None:
        x, target = images(2, 32), torch.tensor([3, 4])
        for make in SCHEDULED:
            one, two = (AuthorsADV2(make(toy), steps=12, seed=seed)(x, target).x_adv for seed in (0, 1))
            assert torch.equal(one, two) == (make is not IG)


@every
def test_an_interpreter_derived_from_theirs_has_its_schedule(toy: Classifier, make: type[Interpreter]) -> None:
    derived = type("Derived", (make,), {"name": "derived"})
    own, theirs = AuthorsADV2(derived(toy), steps=12), AuthorsADV2(make(toy), steps=12)
    assert own.setting == theirs.setting
    assert "derived" in own(images(2, 32), torch.tensor([3, 4])).maps


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"steps": 0}, "steps is 0"),
            ({"steps": -3}, "steps is -3"),
            ({"passes": 1}, "passes is 1; one step of an attack on"),
            ({"steps": 3, "passes": 9}, "steps 3 and passes 9 are both given"),
            ({"eps": 8}, "eps 8 is not .* write 8/255"),
        ],
    )
    def test_numbers(self, toy: Classifier, options: dict[str, Any], sentence: str) -> None:
        for make in SCHEDULED:
            with pytest.raises(InputError, match=sentence):
                AuthorsADV2(make(toy), **options)

    @pytest.mark.parametrize(
        ("give", "sentence"),
        [
            (lambda c: [CAM(c)], "AuthorsADV2 attacks one interpreter, and a list was given; give it alone"),
            (lambda c: c, "AuthorsADV2 attacks interpreters, and 'classifier' is a classifier"),
            (lambda _: CAM, "AuthorsADV2 attacks interpreters, and CAM is a class"),
        ],
    )
    def test_what_is_no_interpreter(self, toy: Classifier, give: Callable[[Classifier], Any], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            AuthorsADV2(give(toy))

    @pytest.mark.parametrize(("make", "name"), [(small_mask, "mask"), (untrained_rts, "rts")], ids=["mask", "rts"])
    def test_ours_without_a_schedule(
        self, toy: Classifier, make: Callable[[Classifier], Interpreter], name: str
    ) -> None:
        with pytest.raises(InputError) as refusal:
            AuthorsADV2(make(toy))
        only = "only for cam, gradcam, grad, ig."
        assert str(refusal.value) == f"no schedule of the authors is implemented for '{name}', {only}"

    def test_an_interpreter_they_have_no_schedule_for(self, toy: Classifier) -> None:
        class Other(Interpreter):
            name = "other"

            def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
                raise NotImplementedError

            def objective(self, task: MapTarget) -> Any:
                raise NotImplementedError

        with pytest.raises(
            InputError, match="no schedule of the authors is implemented for 'other', only for cam, gradcam, grad, ig"
        ):
            AuthorsADV2(Other(toy))
