"""Sensitivity by random points, as Captum and Quantus publish it, beside what an attack finds in the same ball."""

import json
from collections.abc import Callable
from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor
from torch.nn import functional as F

from oracles import quantus_sensitivity
from support.nets import channels_classifier, poison, poisoned
from support.toys import images, relu_net, small_mask, untrained_rts
from underfire import (
    CAM,
    GRAD,
    IG,
    Classifier,
    GradCAM,
    InputError,
    Interpreter,
    NonFiniteError,
    Sensitivity,
    sensitivity,
)
from underfire.attacks.nested import MARGIN
from underfire.interpreters.base import ForwardPass, MapGradient, MapTarget

N = 3
KEYS, RADIUS = quantus_sensitivity.KEYS, quantus_sensitivity.RADIUS


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return images(N, 32)


@pytest.fixture(scope="module")
def y(classifier: Classifier, x: Tensor) -> Tensor:
    return classifier(x).argmax(dim=1)


class Planted(Interpreter):
    """A map that is ``scale`` times the mean brightness of each 4×4 cell, plus ``level``: linear in the image."""

    def __init__(self, classifier: Classifier, *, scale: float = 1.0, level: float = 0.0) -> None:
        super().__init__(classifier)
        self.name, self.grid = "planted", (8, 8)
        self.scale, self.level = scale, level

    def shown(self, x: Tensor) -> Tensor:
        return self.scale * F.avg_pool2d(x.mean(dim=1), 4) + self.level

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return self.shown(x).detach()

    def objective(self, target: MapTarget) -> Any:
        return _Brightness(self, target)


class _Brightness:
    taps = ()
    needs_backward = True

    def __init__(self, interpreter: Planted, target: MapTarget) -> None:
        self.interpreter, self.target = interpreter, target

    def __call__(self, view: ForwardPass) -> MapGradient:
        with torch.enable_grad():
            losses = (self.interpreter.shown(view.x) - self.target.maps).abs().mean(dim=(1, 2))
        return MapGradient(losses.detach(), losses.detach(), view.gradient(losses), 1)

    def select(self, places: Tensor) -> None:
        self.target = self.target.select(places)


class TestAsPublished:
    """The sampled figures, given the same points, are those of the packages that publish them."""

    @pytest.mark.parametrize("make", [GRAD, CAM])
    def test_captum(
        self, make: Callable[[Classifier], Interpreter], classifier: Classifier, x: Tensor, y: Tensor
    ) -> None:
        g = make(classifier)
        points = quantus_sensitivity.points_of(x, 10).transpose(0, 1).flatten(0, 1)  # the samples of an image together
        keys = [key for key in KEYS for _ in range(10)]

        def explain(inputs: Any, target: Tensor) -> Any:
            """Of a tuple of inputs a tuple of maps, as Captum's attributions do it."""
            if isinstance(inputs, tuple):
                return (g(inputs[0], target, keys=KEYS),)
            return g(inputs, target, keys=keys)

        theirs = sensitivity_max(explain, x, perturb_func=lambda _: points, n_perturb_samples=10, target=y)
        ours = sensitivity(g, x, y, passes=20, keys=KEYS)
        torch.testing.assert_close(ours.sampled.float(), theirs, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("name", ["MaxSensitivity", "LocalLipschitzEstimate"])
    def test_quantus(self, name: str) -> None:
        g, x, y = quantus_sensitivity.subject()
        found = sensitivity(g, x, y, samples=quantus_sensitivity.SAMPLES, passes=2, keys=KEYS)
        lipschitz = found.sampled_lipschitz * quantus_sensitivity.CELL
        theirs = json.loads(quantus_sensitivity.FIGURES.read_text(encoding="utf-8"))[name]
        ours = {"MaxSensitivity": found.sampled, "LocalLipschitzEstimate": lipschitz}[name]
        assert ours.tolist() == pytest.approx(theirs, rel=1e-4)

    def test_the_largest_of_all_points(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        cam = CAM(classifier)
        points = quantus_sensitivity.points_of(x)
        moved = torch.stack([(cam(p, y) - cam(x, y)).flatten(1).norm(dim=1) for p in points])
        found = sensitivity(cam, x, y, samples=len(points), passes=2, keys=KEYS)
        torch.testing.assert_close((found.sampled * found.map_norm).float(), moved.amax(dim=0), rtol=1e-4, atol=1e-7)
        kept = torch.stack([cam.classifier(p).argmax(dim=1) == y for p in points]).double().mean(dim=0)
        assert torch.equal(found.sampled_kept, kept)


class TestClosedForm:
    def test_a_linear_map_moves_by_the_radius_in_every_cell(self, classifier: Classifier) -> None:
        x = 0.1 + 0.3 * images(N, 32)
        y = classifier(x).argmax(dim=1)
        g = Planted(classifier)
        found = sensitivity(g, x, y, radius=0.001, passes=60, keys=KEYS)
        assert bool(found.label_kept.all())
        largest = 0.001 * 8 / g(x, y).double().flatten(1).norm(dim=1)
        near = MARGIN / 0.001  # of the radius: an iterate that is further by less takes no other's place
        torch.testing.assert_close(found.attacked, largest, rtol=near, atol=0)
        steepest = torch.full_like(largest, (64 / 3072) ** 0.5)
        torch.testing.assert_close(found.attacked_lipschitz, steepest, rtol=near, atol=0)
        # The mean of 48 uniform numbers in each cell: the factor is about √(3·48) = 12, less what a maximum brings.
        assert bool(((found.factor > 9) & (found.factor < 12.5)).all())

    def test_cam_moves_towards_the_best_corner_of_the_ball_and_not_beyond(self) -> None:
        """Where no two cells are nearer than the ball is wide the quotient is largest at a corner; all are tried."""
        weight = torch.tensor([[1.0, 0.5], [-0.2, 0.1]])
        g = CAM(channels_classifier(weight, size=3))
        x = torch.empty(1, 2, 3, 3)
        x[0, 0] = torch.tensor([[0.2, 0.9, 0.3], [0.55, 0.45, 0.7], [0.35, 0.8, 0.6]])
        x[0, 1] = 0.5
        y = g.classifier(x).argmax(dim=1)
        benign = g(x, y)
        corners = torch.tensor(list(product((-1.0, 1.0), repeat=9))).reshape(-1, 1, 3, 3)
        corners = RADIUS * corners * weight[y].sign()[:, :, None, None]
        maps = g(x + corners, y.expand(len(corners)))
        largest = ((maps - benign).flatten(1).norm(dim=1) / benign.norm()).max()
        found = sensitivity(g, x, y, passes=100)
        assert float(found.attacked) <= float(largest) * (1 + 1e-4)
        assert float(found.attacked) > 0.6 * float(largest)
        assert float(found.factor) > 1


def small_ig(classifier: Classifier) -> IG:
    """IG of few points."""
    return IG(classifier, points=4, strata=2)


MAKES: list[Callable[[Classifier], Interpreter]] = [GRAD, small_ig, CAM, GradCAM, untrained_rts, small_mask]


@pytest.mark.parametrize("make", MAKES, ids=["grad", "ig", "cam", "gradcam", "rts", "mask"])
def test_an_attack_finds_more_than_ten_points_and_keeps_the_label(
    make: Callable[[Classifier], Interpreter], classifier: Classifier, x: Tensor, y: Tensor
) -> None:
    g = make(classifier)
    found = sensitivity(g, x, y, passes=60 + 4 * g.passes_per_map, keys=KEYS)
    assert torch.equal(classifier(found.x_adv).argmax(dim=1)[found.label_kept], y[found.label_kept])
    assert bool(found.label_kept.all())
    assert float((found.x_adv - x).abs().max()) <= RADIUS + 1e-6
    assert bool((found.attacked >= found.sampled).all())
    assert bool(torch.isfinite(found.attacked).all())
    if g.name != "rts":  # untrained, it shows the same for anything
        assert bool((found.factor > 1).all())
        there = (g(found.x_adv, y, keys=KEYS) - g(x, y, keys=KEYS)).flatten(1).double().norm(dim=1)
        torch.testing.assert_close(there / found.map_norm, found.attacked)


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_a_constant_map_has_no_sensitivity(level: float, classifier: Classifier, x: Tensor, y: Tensor) -> None:
    found = sensitivity(Planted(classifier, scale=0.0, level=level), x, y, passes=4, keys=KEYS)
    for figure in (found.sampled, found.attacked, found.sampled_lipschitz, found.attacked_lipschitz):
        assert torch.equal(figure, torch.zeros(N, dtype=torch.float64))
    assert torch.equal(found.factor, torch.ones(N, dtype=torch.float64))
    assert bool((found.map_norm == (1.0 if level == 0 else found.map_norm[0])).all())


def test_a_label_that_is_not_the_prediction_cannot_be_kept(classifier: Classifier, x: Tensor, y: Tensor) -> None:
    found = sensitivity(CAM(classifier), x, (y + 1) % 10, passes=6, keys=KEYS)
    assert not bool(found.label_kept.any())
    assert torch.equal(found.attacked, found.sampled)
    assert torch.equal(found.sampled_kept, torch.zeros(N, dtype=torch.float64))


class TestDraws:
    def test_split_is_whole(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        g = small_ig(classifier)
        whole = sensitivity(g, x, y, samples=3, passes=40, keys=KEYS)
        parts = [
            sensitivity(g, x[i : i + 1], y[i : i + 1], samples=3, passes=40, keys=KEYS[i : i + 1]) for i in range(N)
        ]
        for name in (field.name for field in fields(Sensitivity)):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name

    def test_a_seed_draws_other_points_and_more_points_include_fewer(
        self, classifier: Classifier, x: Tensor, y: Tensor
    ) -> None:
        cam = CAM(classifier)
        few, again, more, other = (
            sensitivity(cam, x, y, samples=n, passes=2, seed=seed, keys=KEYS).sampled
            for n, seed in ((5, 0), (5, 0), (10, 0), (5, 1))
        )
        assert torch.equal(few, again)
        assert bool((more >= few).all())
        assert not torch.equal(few, other)

    def test_points_stay_in_the_range_of_images(self, classifier: Classifier) -> None:
        x = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
        found = sensitivity(CAM(classifier), x, classifier(x).argmax(dim=1), passes=4, radius=1.0)
        assert bool(((found.x_adv >= 0) & (found.x_adv <= 1)).all())

    def test_no_image_is_no_figure(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        assert sensitivity(CAM(classifier), x[:0], y[:0], passes=4).factor.shape == (0,)


def test_a_map_that_is_no_number_stops_with_its_place() -> None:
    broken = poisoned(relu_net(), size=32)
    x = poison(images(N, 32), 1)
    with pytest.raises(NonFiniteError) as caught:
        sensitivity(GRAD(broken), x, torch.zeros(N, dtype=torch.int64), passes=4)
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "radius 0.0 is no distance"),
        ({"radius": 1.5}, "radius 1.5 is no distance"),
        ({"radius": float("nan")}, "radius nan is no distance"),
        ({"samples": 0}, "samples is 0; give at least 1"),
        ({"samples": 2.5}, "samples is 2.5; give a whole number"),
        ({"passes": 0}, "passes is 0"),
        ({"keys": ("a",)}, "1 keys were given for 3 images"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], message: str, classifier: Classifier, x: Tensor, y: Tensor
) -> None:
    with pytest.raises(InputError, match=message):
        sensitivity(CAM(classifier), x, y, **options)
