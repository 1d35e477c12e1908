"""StAdv, and attacks in other balls, on classifiers for which success is planted."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from support.nets import cells, pixel_weights, stripes_classifier
from support.toys import images, relu_net
from underfire import ADV2, CAM, L2, PGD, Classifier, Flow, InputError, Linf, StAdv
from underfire.attacks.perturbations.flow import roughness


class _Planted(nn.Module):
    """Class 1 wins by 5 nats on ``goal``, loses by 5 on ``origin``, and follows a straight line between."""

    def __init__(self, origin: Tensor, goal: Tensor) -> None:
        super().__init__()
        way = goal - origin
        self.weight = nn.Parameter(10 * way / way.square().sum())
        self.middle = nn.Parameter((origin + goal) / 2)

    def forward(self, x: Tensor) -> Tensor:
        logit = ((x - self.middle) * self.weight).sum(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def _shifted(x: Tensor, right: float, down: float) -> Tensor:
    theta = torch.tensor([right, down], dtype=x.dtype)[:, None, None].expand(1, 2, *x.shape[2:])
    return Flow(9).image(x, theta)


@pytest.mark.parametrize(("right", "down"), [(0.9, 0.0), (-0.5, 0.7), (0.0, -0.9)])
def test_a_planted_shift_is_found(right: float, down: float) -> None:
    x = images(1, 16)
    classifier = Classifier(_Planted(x, _shifted(x, right, down)), input_size=16)
    result = StAdv(classifier, eps=1.0, steps=60)(x, torch.tensor([1]))
    assert result.success.tolist() == [True]
    assert float(result.confidence) > 0.99
    assert float(result.used) <= 1.0 + 1e-6


def test_one_beyond_the_budget_is_not() -> None:
    """With a fifteenth of the way to go no pixel gets far enough."""
    x = images(1, 16)
    classifier = Classifier(_Planted(x, _shifted(x, 0.9, 0.0)), input_size=16)
    result = StAdv(classifier, eps=0.06, steps=60)(x, torch.tensor([1]))
    assert result.success.tolist() == [False]


def test_a_higher_price_makes_a_smoother_field() -> None:
    classifier, x = Classifier(relu_net(), input_size=32), images(2, 32)
    target = (classifier(x).argmax(dim=1) + 1) % 10
    rough = [_field_roughness(classifier, x, target, tau) for tau in (0.0, 1.0)]
    assert (rough[1] < 0.5 * rough[0]).all()


def _field_roughness(classifier: Classifier, x: Tensor, target: Tensor, tau: float) -> Tensor:
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched(Flow):
        def size(self, x: Tensor, theta: Tensor) -> Tensor:
            seen.append(theta)
            return super().size(x, theta)

    PGD(classifier, perturbation=Watched(1.0, tau), steps=30, keep="last")(x, target)
    return roughness(seen[-1])


def test_a_planted_map_is_found_in_l2() -> None:
    """Any map is a CAM within 0.03 in L∞, so within 0.03·√3072 < 1.7 in L2."""
    classifier, x = stripes_classifier(), cells(2)
    cam, target = CAM(classifier), torch.ones(2, dtype=torch.int64)
    aim = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1))
    aim[:, 0, 0], aim[:, 7, 7] = 0.0, 1.0
    result = ADV2(cam, perturbation=L2(1.7), steps=300)(x, target, target_map=aim)
    assert result.success.all()
    assert float(result.confidence.min()) > 0.9
    assert float((result.maps["cam"] - aim).abs().mean()) < 0.02


def test_the_shortest_way_is_found_in_l2() -> None:
    """The nearest image of class 1 lies along the gradient; a radius a little above its distance is enough."""
    weight = pixel_weights(2)
    x = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight[0])

        def forward(self, x: Tensor) -> Tensor:
            distance = ((x - 0.5) * self.weight).sum(dim=(1, 2, 3)) - 0.5 * self.weight.norm()
            return torch.stack([-distance / 2, distance / 2], dim=1)

    classifier = Classifier(Line(), input_size=16)
    reached = [
        bool(PGD(classifier, perturbation=L2(eps), steps=40)(x, torch.tensor([1])).success) for eps in (0.49, 0.51)
    ]
    assert reached == [False, True]


@dataclass(frozen=True)
class _Loose(Linf):
    """An L∞ ball that lets everything out."""

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        return theta.clamp(0, 1)


@dataclass(frozen=True)
class _Lying(_Loose):
    """It says that nothing was used."""

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        return torch.zeros(len(x))


@dataclass(frozen=True)
class _Glaring(Flow):
    """Its images are brighter than white."""

    def image(self, x: Tensor, theta: Tensor) -> Tensor:
        return super().image(x, theta) + 0.5


@pytest.mark.parametrize(
    "model", [_Loose(1 / 255), _Lying(1 / 255), _Glaring(100.0)], ids=["loose", "lying", "glaring"]
)
def test_a_model_that_breaks_its_budget_is_our_mistake(model: Linf | Flow) -> None:
    classifier = Classifier(relu_net(), input_size=32)
    with pytest.raises(RuntimeError, match=f"the perturbation '{model.name}' broke its budget: image 0 "):
        PGD(classifier, perturbation=model, steps=12)(images(2, 32), torch.tensor([1, 2]))


class TestRefusals:
    def test_a_map_without_an_interpreter(self) -> None:
        classifier = Classifier(relu_net(), input_size=32)
        with pytest.raises(InputError, match="made from a classifier and attacks no map"):
            StAdv(classifier)(images(1, 32), torch.tensor([1]), target_map=torch.zeros(1, 8, 8))
        with pytest.raises(InputError, match="made from a classifier and attacks no map"):
            StAdv(classifier)(images(1, 32), torch.tensor([1]), label=torch.tensor([1]))

    def test_no_interpreter(self) -> None:
        with pytest.raises(InputError, match="none was given"):
            StAdv([])

    @pytest.mark.parametrize(("argument", "value"), [("eps", 0.0), ("tau", -1.0), ("steps", 0), ("step_size", 0.0)])
    def test_numbers_out_of_range(self, argument: str, value: float) -> None:
        with pytest.raises(InputError, match=f"{argument} {value:g}|{argument} is {value:g}"):
            StAdv(Classifier(relu_net(), input_size=32), **{argument: value})  # type: ignore[arg-type]
