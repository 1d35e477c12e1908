"""The smallest change that reaches a goal: closed forms, whole grey levels, and what counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.toys import faint_smoothgrad, images, relu_net, small_mask, small_rise, untrained_rts
from underfire import CAM, GRAD, IG, Classifier, GradCAM, InputError, Interpreter, MinimumNorm
from underfire.attacks.perturbations.norms import NORMS, NormName
from underfire.testing.common import no_trace

KEYS = ("a", "b", "c")


class _Linear(nn.Module):
    """Logits that are linear in the pixels, each with a weight of its own: (K, C, H, W)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def _opposed(seed: int) -> tuple[Classifier, Tensor, Tensor]:
    """A classifier, images, and the gradient of its margin: with two classes of opposite weights the map of GRAD is
    the same everywhere and for both."""
    draw = torch.Generator().manual_seed(seed)
    weight = 0.3 * torch.randn(3, 8, 8, generator=draw)
    classifier = Classifier(_Linear(torch.stack([weight, -weight])), input_size=8, name="linear")
    return classifier, torch.randint(60, 196, (6, 3, 8, 8), generator=draw) / 255, 2 * weight.double()


class TestClosedForms:
    """Where the map surely stays, the label alone decides: its margin over the dual norm of the gradient."""

    def _margins(self, classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = classifier(x).detach().double()
        return logits.argmax(dim=1), (logits[:, 0] - logits[:, 1]).abs()

    def test_whole_grey_levels_of_a_gradient_map(self) -> None:
        classifier, x, slope = _opposed(0)
        label, margin = self._margins(classifier, x)
        result = MinimumNorm(GRAD(classifier), passes=200)(x, 1 - label)
        assert result.found.all()
        assert torch.equal((result.eps * 255).round(), (margin / slope.abs().sum() * 255).ceil())
        assert torch.equal(result.eps, (result.eps * 255).round() / 255)

    def test_length_of_a_gradient_map(self) -> None:
        classifier, x, slope = _opposed(0)
        label, margin = self._margins(classifier, x)
        result = MinimumNorm(GRAD(classifier), norm="l2", passes=200)(x, 1 - label)
        least = margin / slope.norm()  # of images between grey levels
        assert result.found.all()
        assert bool((result.eps >= least).all())
        assert bool((result.eps <= 1.1 * least).all())

    @pytest.mark.parametrize("second", [121, 125, 131])
    def test_whole_grey_levels_of_an_activation_map(self, second: int) -> None:
        """The label takes two colours, of which the map sees none as long as they change alike everywhere."""
        net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        with torch.no_grad():
            net[0].weight.copy_(torch.eye(3)[:, :, None, None])  # type: ignore[operator]
            net[3].weight.copy_(torch.tensor([[1.0, -4.0, 4.0], [1.0, 4.0, -4.0]]))  # type: ignore[operator]
            net[3].bias.zero_()  # type: ignore[operator]
        x = torch.randint(60, 196, (2, 3, 8, 8), generator=torch.Generator().manual_seed(1)) / 255
        x[:, 1], x[:, 2] = second / 255, 134 / 255
        classifier = Classifier(net, input_size=8, name="colours")
        result = MinimumNorm(CAM(classifier), passes=150)(x, torch.ones(2).long(), label=torch.zeros(2).long())
        levels = (134 - second) // 2 + 1  # more than half of the difference
        assert (result.eps * 255).tolist() == pytest.approx([levels, levels])

    def test_what_is_met_already_costs_nothing(self) -> None:
        classifier, x, _ = _opposed(2)
        label = classifier(x).argmax(dim=1)
        result = MinimumNorm(GRAD(classifier), passes=40)(x, label)
        assert result.eps.tolist() == [0.0] * len(x)
        assert torch.equal(result.x_adv, x)
        assert int(result.passes.max()) <= 6

    def test_a_limit_below_the_smallest_finds_nothing(self) -> None:
        classifier, x, slope = _opposed(0)
        label, margin = self._margins(classifier, x)
        levels = (margin / slope.abs().sum() * 255).ceil()
        limit = float(levels.max() - 1) / 255
        result = MinimumNorm(GRAD(classifier), passes=60, eps=limit)(x, 1 - label)
        assert torch.equal(result.found, levels < levels.max())
        assert torch.equal(result.eps.isinf(), ~result.found)
        assert float(result.used.max()) <= limit


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return (images(3, 32) * 255).round() / 255


@pytest.fixture(scope="module")
def target(classifier: Classifier, x: Tensor) -> Tensor:
    return classifier(x).topk(2, dim=1).indices[:, 1]


MAKES: dict[str, Callable[[Classifier], Interpreter]] = {
    "grad": GRAD,
    "ig": IG,
    "cam": CAM,
    "gradcam": GradCAM,
    "smoothgrad": faint_smoothgrad,
    "rise": small_rise,
    "rts": untrained_rts,
    "mask": small_mask,
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", MAKES)
def test_what_is_found_meets_the_goal_on_the_saved_image(
    name: str, norm: NormName, classifier: Classifier, x: Tensor, target: Tensor
) -> None:
    g = MAKES[name](classifier)
    attack = MinimumNorm(g, norm=norm, passes=50 + 3 * (1 + g.passes_per_map))
    with no_trace(classifier, "the attack"):
        result = attack(x, target, keys=KEYS)
    saved = (result.x_adv * 255).round()
    assert float((result.x_adv - saved / 255).abs().max()) < 1e-6
    assert torch.equal(result.found, result.met(0.5))
    assert int(result.passes.max()) <= attack.most_passes()
    change = (saved - (x * 255).round()).double()
    sizes = change.abs().amax(dim=(1, 2, 3)) if norm == "linf" else change.flatten(1).norm(dim=1)
    torch.testing.assert_close(result.used * 255, sizes)
    assert torch.equal(result.eps.isfinite(), result.found)
    if name in ("cam", "gradcam"):
        assert result.found.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_several_maps_at_once_and_split_is_whole(
    norm: NormName, classifier: Classifier, x: Tensor, target: Tensor
) -> None:
    attack = MinimumNorm([CAM(classifier), IG(classifier, points=4, strata=2)], norm=norm, passes=60)
    whole = attack(x, target, keys=KEYS)
    parts = [attack(x[i : i + 1], target[i : i + 1], keys=KEYS[i : i + 1]) for i in range(3)]
    assert torch.equal(torch.cat([part.x_adv for part in parts]), whole.x_adv)
    assert [int(part.passes) for part in parts] == whole.passes.tolist()
    assert set(whole.maps) == {"cam", "ig"}


@pytest.mark.parametrize("make", [CAM, IG, small_mask])
def test_more_passes_never_give_a_larger_change(
    make: Callable[[Classifier], Interpreter], classifier: Classifier, x: Tensor, target: Tensor
) -> None:
    g = make(classifier)
    found = [MinimumNorm(g, norm="l2", passes=passes)(x, target, keys=KEYS).eps for passes in (50, 70, 100)]
    assert bool((found[1] <= found[0]).all())
    assert bool((found[2] <= found[1]).all())


def test_any_other_class(classifier: Classifier, x: Tensor) -> None:
    label = classifier(x).argmax(dim=1)
    attack = MinimumNorm(CAM(classifier), passes=60)
    result = attack(x, None)
    assert str(result.goal) == "other/kept"
    assert result.found.all()
    assert bool((result.prediction != label).all())
    assert int(result.passes.max()) <= 60
    assert torch.equal(result.target_maps["cam"], CAM(classifier)(x, label))


@pytest.mark.parametrize(("goal", "tau"), [("kept/topk", 0.5), ("kept/l1", 0.5), ("kept/center", 0.05)])
def test_the_smallest_change_that_moves_a_map(goal: str, tau: float, classifier: Classifier, x: Tensor) -> None:
    label = classifier(x).argmax(dim=1)
    result = MinimumNorm(GRAD(classifier), goal=goal, shift=tau, passes=90)(x, label)
    assert str(result.goal) == goal
    assert result.found.all()
    assert torch.equal(result.prediction, label)
    assert result.met(tau).all()


def test_the_smallest_change_that_leads_a_map(classifier: Classifier, x: Tensor) -> None:
    cam, label = CAM(classifier), classifier(x).argmax(dim=1)
    wanted = cam(x, label).flip(2)
    result = MinimumNorm(cam, goal="kept/led", iou=0.3, passes=90)(x, label, target_map=wanted)
    assert torch.equal(result.found, result.met(0.3))
    assert torch.equal(result.target_maps["cam"], wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm 'l1' is unknown"),
        ({"goal": "other/kept"}, "target=None"),
        ({"goal": "target/topk"}, "'target/topk' changes the label and moves the map"),
        ({"goal": "kept/kept"}, "asks for nothing"),
        ({"iou": 0.0}, "iou 0.0 is out of range"),
        ({"eps": 0.001}, "eps 0.001 is below one grey level"),
        ({"eps": 2.0}, "eps 2 is not in"),
        ({"passes": 0}, "passes is 0"),
        ({"passes": 3.5}, "passes is 3.5"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str, classifier: Classifier) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        MinimumNorm(CAM(classifier), **options)


def test_what_cannot_be_attacked(classifier: Classifier, x: Tensor, target: Tensor) -> None:
    cam = CAM(classifier)
    with pytest.raises(InputError, match="image 0 has values between grey levels"):
        MinimumNorm(cam)(x * 0.999, target)
    with pytest.raises(InputError, match="only led maps have a target"):
        MinimumNorm(cam)(x, target, target_map=cam(x, target))
    with pytest.raises(InputError, match="keeps the classes given as target"):
        MinimumNorm(cam, goal="kept/topk")(x, None)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("levels", [0.4, 2.0, 30.0])
def test_a_saved_image_keeps_to_its_own_radius_and_uses_it(name: NormName, levels: float) -> None:
    norm = NORMS[name]
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (4, 3, 16, 16), generator=draw) / 255
    wide = norm.largest(x) / 255 if name == "l2" else 1 / 255
    radius = wide * torch.tensor([1.0, 0.5, 2.0, 1.5], dtype=torch.float64) * levels
    radius = (radius * 255).ceil() / 255 if name == "linf" else radius
    theta = norm.project(x, x + torch.randn(x.shape, generator=draw), radius)
    saved = norm.saved(x, theta, radius)
    sizes = norm.size(x, saved)
    assert float((saved * 255 - (saved * 255).round()).abs().max()) < 1e-4
    assert bool((sizes <= radius * (1 + 1e-9)).all())
    assert bool((sizes >= 0.97 * radius).all())
    alone = torch.cat([norm.saved(x[i : i + 1], theta[i : i + 1], radius[i : i + 1]) for i in range(4)])
    assert torch.equal(alone, saved)
    assert torch.equal(norm.saved(x, x, radius), (x * 255).round() / 255)
