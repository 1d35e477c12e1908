"""The published attacks on maps whose label stays: their numbers, their losses and directions, and that they work."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from support.toys import images, relu_net, small_mask, smooth_net
from support.traces import untouched
from underfire import CAM, GRAD, IG, Classifier, GradCAM, InputError, Interpreter, PublishedMapAttack, metrics
from underfire.attacks.goals import Goal
from underfire.attacks.keepers import BEST, LATEST
from underfire.attacks.published import BETAS, OUTPUT_WEIGHT, TRAVEL, MapAlone, OutputKept, squared_shape
from underfire.attacks.rules import Adam, Sign
from underfire.attacks.smoothed import Softplus, smoothed_objective
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.map_goals import CENTER, NEAR, TOPK, MapGoal

MAKES = [GRAD, IG, CAM, GradCAM]
every = pytest.mark.parametrize("make", MAKES, ids=lambda g: g.name)
KEYS = ("a", "b", "c")


@pytest.fixture(scope="module")
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


class TestSchedule:
    @every
    @pytest.mark.parametrize("goal", ["topk", "center"])
    def test_half_grey_levels_by_sign(self, toy: Classifier, make: type[Interpreter], goal: Any) -> None:
        for steps in (None, 40):
            setting = PublishedMapAttack(make(toy), goal=goal, steps=steps).setting
            assert setting.schedule.steps == (steps or 300)
            assert {setting.schedule.size(k) for k in range(40)} == {0.5 / 255}
            assert setting.rule == Sign()
            assert setting.keep == (LATEST if make is IG else BEST)

    @pytest.mark.parametrize(("steps", "size"), [(None, 0.001 * 0.225), (150, 0.01 * 0.225)])
    def test_a_pixel_can_go_as_far_in_fewer_steps_to_a_given_map(
        self, toy: Classifier, steps: int | None, size: float
    ) -> None:
        setting = PublishedMapAttack(GRAD(toy), goal="led", steps=steps).setting
        assert setting.schedule.steps == (steps or 1500)
        assert setting.schedule.size(0) == setting.schedule.size(100) == pytest.approx(size)
        assert setting.schedule.size(0) * setting.schedule.steps == pytest.approx(TRAVEL)
        assert setting.rule == Adam(mean=0.9, spread=0.999, longest=math.inf)

    def test_adam_is_that_of_torch(self) -> None:
        draw = torch.Generator().manual_seed(0)
        theta = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
        by_torch = torch.optim.Adam([theta], lr=0.001, eps=0.0)
        stepper, ours = Adam(mean=0.9, spread=0.999, longest=math.inf).begin(theta.detach()), theta.detach().clone()
        for _ in range(6):
            theta.grad = torch.randn(theta.shape, generator=draw, dtype=theta.dtype)
            by_torch.step()
            ours -= 0.001 * stepper(theta.grad)
        torch.testing.assert_close(ours, theta.detach())

    @every
    @pytest.mark.parametrize("goal", ["topk", "led"])
    def test_a_budget_of_passes_is_spent_and_kept(self, toy: Classifier, make: type[Interpreter], goal: Any) -> None:
        x = images(2, 32)
        g = make(toy)
        given = torch.rand(2, *g.grid, generator=torch.Generator().manual_seed(0)) if goal == "led" else None
        attack = PublishedMapAttack(g, goal=goal, passes=61)
        spent = attack(x, toy(x).argmax(dim=1), target_map=given).passes
        assert 61 - g.passes_per_step < int(spent.min()) <= int(spent.max()) <= 61
        assert attack.most_passes() == int(spent.max())


class TestSoftplus:
    @pytest.mark.parametrize("beta", [1.0, 30.0])
    def test_values(self, beta: float) -> None:
        z = torch.linspace(-3, 9, 101, dtype=torch.float64)
        wanted = torch.log1p(torch.exp(beta * z)) / beta
        torch.testing.assert_close(Softplus(beta)(z, 0.0, math.inf), wanted, rtol=1e-6, atol=1e-8)
        six = Softplus(beta)(z, 0.0, 6.0)
        torch.testing.assert_close(six, wanted - torch.log1p(torch.exp(beta * (z - 6))) / beta, rtol=1e-6, atol=1e-8)
        assert float((six - z.clamp(0, 6)).abs().max()) <= math.log(2) / beta + 1e-9
        below = Softplus(beta)(z, -math.inf, 6.0)
        torch.testing.assert_close(below, z - torch.log1p(torch.exp(beta * (z - 6))) / beta, rtol=1e-6, atol=1e-8)

    def test_it_has_second_derivatives(self) -> None:
        z = torch.tensor([-0.2, 0.05, 0.9, 1.03], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda t: Softplus(4.0)(t, 0.0, 1.0), z)


class TestObjectives:
    @pytest.mark.parametrize("goal", [TOPK, CENTER, NEAR], ids=lambda goal: goal.name)
    @pytest.mark.parametrize("make", [GRAD, IG], ids=lambda g: g.name)
    def test_without_kinks_the_direction_is_exact(self, make: type[Interpreter], goal: MapGoal) -> None:
        g = make(Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16))
        x, y = images(3, 16, dtype=torch.float64), torch.tensor([1, 4, 7])
        aimed = goal.aimed(g(x, y).roll(1, dims=0))

        def answer(z: Tensor) -> tuple[Tensor, Tensor]:
            with g.classifier.frozen():
                objective = smoothed_objective(g, MapTarget(y, aimed, KEYS, 0, goal), Softplus(30.0), squared_shape)
                found = objective(ForwardPass(g.classifier, z))
            return found.loss, found.direction

        _agrees(lambda z: answer(z)[0], x, answer(x)[1])

    def test_of_a_network_with_softplus_in_the_place_of_relu(self) -> None:
        net, beta = _Kinked(), 7.0
        g = GRAD(Classifier(net, input_size=8, mean=0.0, std=1.0))
        x, y = images(2, 8, dtype=torch.float64), torch.tensor([0, 2])
        aimed = g(x, y).roll(1, dims=0)
        with g.classifier.frozen():
            objective = smoothed_objective(g, MapTarget(y, aimed, KEYS[:2], 0), Softplus(beta), squared_shape)
            found = objective(ForwardPass(g.classifier, x))
        leaf = x.clone().requires_grad_(True)
        logits = net.second(F.softplus(net.first(leaf), beta=beta).mean(dim=(2, 3)))
        (slope,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), leaf, create_graph=True)
        loss = squared_shape(F.avg_pool2d(slope.abs().amax(dim=1, keepdim=True), 4)[:, 0], aimed)
        torch.testing.assert_close(found.loss, loss.detach())
        torch.testing.assert_close(found.direction, torch.autograd.grad(loss.sum(), leaf)[0])
        torch.testing.assert_close(found.distance, metrics.l1(g(x, y), aimed).to(x))  # of the network as it is

    @pytest.mark.parametrize("make", [GRAD, CAM, GradCAM], ids=lambda g: g.name)
    def test_the_output_is_held(self, make: type[Interpreter]) -> None:
        classifier = Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16)
        g = make(classifier)
        x, y = images(3, 16, dtype=torch.float64), torch.tensor([1, 4, 7])
        there = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        target, softplus = MapTarget(y, g(x, y).roll(1, dims=0), KEYS, 0), Softplus(10.0)

        def answer(z: Tensor) -> tuple[Tensor, Tensor]:
            with classifier.frozen():
                objective = OutputKept(smoothed_objective(g, target, softplus, squared_shape), softplus, 1.0)
                objective(ForwardPass(classifier, x, taps=objective.taps))
                view = ForwardPass(classifier, z, taps=objective.taps)
                found = objective(view)
                carried = found.direction if found.at is None else view.carried(found.at, found.direction)
            return found.loss, carried

        with classifier.frozen():
            alone = smoothed_objective(g, target, softplus, squared_shape)
            map_loss = alone(ForwardPass(classifier, there, taps=alone.taps)).loss
        moved = (classifier.probabilities(there) - classifier.probabilities(x)).square().sum(dim=1)
        loss, direction = answer(there)
        torch.testing.assert_close(loss - map_loss, OUTPUT_WEIGHT * moved)
        _agrees(lambda z: answer(z)[0], there, direction)

    def test_the_kinks_get_sharper_and_images_leave(self, toy: Classifier) -> None:
        g, x, y = CAM(toy), images(3, 32), torch.tensor([1, 4, 7])
        softplus, steps = Softplus(BETAS[0]), 8
        objective = OutputKept(
            smoothed_objective(g, MapTarget(y, g(x, y).flip(2), KEYS, 0), softplus, squared_shape),
            softplus,
            (BETAS[1] / BETAS[0]) ** (1 / steps),
        )
        seen = []
        with toy.frozen():
            for _ in range(steps):
                seen.append(softplus.beta)
                objective(ForwardPass(toy, x, taps=objective.taps))
            there = (x + 0.05).clamp(max=1)
            whole = objective(ForwardPass(toy, there, taps=objective.taps)).loss
            objective.select(torch.tensor([2, 0]))
            part = objective(ForwardPass(toy, there[[2, 0]], taps=objective.taps)).loss
        assert seen == pytest.approx([10 * 10 ** (k / 8) for k in range(8)])
        torch.testing.assert_close(part, whole[[2, 0]])

    def test_the_loss_is_zero_for_the_same_shape_alone(self) -> None:
        maps = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
        assert float(squared_shape(5 * maps - 3, maps / 2)) == pytest.approx(0, abs=1e-12)
        assert float(squared_shape(torch.tensor([[[0.0, 0.0], [4.0, 0.0]]]), maps)) == pytest.approx((1 + 4 + 1) / 4)
        assert float(squared_shape(torch.ones(1, 2, 2), maps)) == pytest.approx((1 + 4 + 1) / 4)

    def test_a_step_is_on_the_map_alone(self) -> None:
        mixer = MapAlone().begin(torch.zeros(2, 3, 4, 4))
        prediction, pull = torch.full((2, 3, 4, 4), 9.0), torch.full((2, 3, 4, 4), 7.0)
        assert torch.equal(mixer(prediction, [pull], [torch.zeros(2)], torch.tensor([True, False]), 3), pull)


class _Kinked(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Linear(6, 4)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, generator=draw)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(F.relu(self.first(x)).mean(dim=(2, 3)))
        return logits


def _agrees(loss: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> None:
    """``direction`` is the gradient of ``loss`` by central differences."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        d = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        step = 1e-6
        wanted = (loss(x + step * d) - loss(x - step * d)) / (2 * step)
        torch.testing.assert_close((direction * d).sum(dim=(1, 2, 3)), wanted, rtol=2e-3, atol=1e-6)


class TestAttack:
    @every
    @pytest.mark.parametrize("goal", ["topk", "center", "led"])
    def test_the_label_and_the_budget_are_kept_and_the_map_moves(
        self, toy: Classifier, make: type[Interpreter], goal: Any
    ) -> None:
        # A random network with softplus is another one; an estimate through it says little.
        classifier = Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16) if make is IG else toy
        x, g = images(3, classifier.input_size[0]), make(classifier)
        y = classifier(x).argmax(dim=1)
        benign = g(x, y, keys=KEYS)
        reference = benign.roll(1, 0) if goal == "led" else benign
        attack = PublishedMapAttack(g, goal=goal, eps=6 / 255, passes=60)
        result = attack(x, y, target_map=reference if goal == "led" else None, keys=KEYS)
        assert (result.attack, result.goal) == ("map-published", Goal("kept", goal))
        assert torch.equal(result.prediction, y)
        assert bool(result.success.all())
        assert float((result.x_adv - x).abs().max()) <= 6 / 255 + 1e-6
        assert torch.equal(result.maps[g.name], g(result.x_adv, y, keys=KEYS))
        measure = attack.setting.map_goal
        now, then = (measure.distance(maps, measure.aimed(reference)) for maps in (result.maps[g.name], benign))
        assert float(now.mean()) < float(then.mean()) - 0.01
        assert make is IG or bool((now <= then).all())

    @pytest.mark.parametrize("goal", ["topk", "center", "led"])
    def test_where_every_move_costs_the_label_the_image_stays(self, goal: Any) -> None:
        """The label leads by less than any step takes away, and CAM shows what takes it away."""
        classifier = Classifier(_Edge(), input_size=8, mean=0.0, std=1.0)
        x = torch.full((2, 3, 8, 8), 0.5)
        x[:, :, :4] += 0.1
        y = torch.zeros(2, dtype=torch.int64)
        assert torch.equal(classifier(x).argmax(dim=1), y)
        g = CAM(classifier)
        given = 1 - g(x, y) if goal == "led" else None
        result = PublishedMapAttack(g, goal=goal, steps=6)(x, y, target_map=given)
        assert torch.equal(result.prediction, y)

    @every
    @pytest.mark.parametrize("goal", ["topk", "led"])
    def test_a_batch_is_its_images(self, toy: Classifier, make: type[Interpreter], goal: Any) -> None:
        x, g = images(3, 32), make(toy)
        y = toy(x).argmax(dim=1)
        given = g(x, y).flip(2) if goal == "led" else None
        attack = PublishedMapAttack(g, goal=goal, steps=6, seed=3)
        whole = attack(x, y, target_map=given, keys=KEYS)
        parts = [
            attack(x[i], y[i], target_map=None if given is None else given[i], keys=[KEYS[j] for j in i])
            for i in ([0], [1, 2])
        ]
        assert torch.equal(whole.x_adv, torch.cat([part.x_adv for part in parts]))

    @every
    def test_no_trace(self, make: type[Interpreter]) -> None:
        net = relu_net()
        g = make(Classifier(net, input_size=32))
        x = images(2, 32)
        y = g.classifier(x).argmax(dim=1)
        with untouched(net):
            PublishedMapAttack(g, steps=3)(x, y)
            PublishedMapAttack(g, goal="led", steps=3)(x, y, target_map=g(x, y).flip(2))


class _Edge(torch.nn.Module):
    """The label is kept on one side of a mean that every pixel moves."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(3, 2, 1, bias=False)
        self.head = torch.nn.Linear(2, 2)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1]])[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[50.0, 0], [0, 25]]))
            self.head.bias.copy_(torch.tensor([1e-4, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        return logits


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"goal": "l1"}, "goal 'l1' has no published schedule; give topk, center or led"),
            ({"steps": 0}, "steps is 0"),
            ({"passes": 1}, "passes is 1; one step of an attack on"),
            ({"eps": 8}, "write 8/255"),
        ],
    )
    def test_numbers(self, toy: Classifier, options: dict[str, Any], sentence: str) -> None:
        for make in MAKES:
            for goal in ("topk", "led"):
                with pytest.raises(InputError, match=sentence):
                    PublishedMapAttack(make(toy), **({"goal": goal} | options))

    @pytest.mark.parametrize(
        ("give", "sentence"),
        [
            (lambda c: [CAM(c)], "PublishedMapAttack attacks one interpreter, and a list was given; give it alone"),
            (lambda c: c, "PublishedMapAttack attacks interpreters, and 'classifier' is a classifier"),
            (small_mask, "no published schedule fits 'mask', only cam, gradcam, grad, ig"),
        ],
    )
    def test_interpreters(self, toy: Classifier, give: Callable[[Classifier], Any], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            PublishedMapAttack(give(toy))

    def test_a_label_is_needed_and_a_map_only_to_be_led_to(self, toy: Classifier) -> None:
        x, y, g = images(2, 32), torch.tensor([1, 2]), CAM(toy)
        with pytest.raises(InputError, match="PublishedMapAttack keeps the labels of the images, and they are None"):
            PublishedMapAttack(g, steps=2)(x, None)
        with pytest.raises(InputError, match="give target_map"):
            PublishedMapAttack(g, goal="led", steps=2)(x, y)
