"""Grad-CAM's kin against pytorch-grad-cam's figures and against their definitions on tokens."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles.grad_cam import FIGURES, GRID, MEAN, NAMES, SIZE, STD, network, pictures, raw_maps
from support.layouts import LAYOUTS, seeded
from support.toys import images, relu_net
from underfire import (
    ADV2,
    CAM,
    PGD,
    Classifier,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    InputError,
    Interpreter,
    LayerCAM,
    load_classifier,
)
from underfire.interpreters import ForwardPass
from underfire.interpreters.activations import GradientWeighted
from underfire.interpreters.maps import distance, min_max
from underfire.models.features import find_features
from underfire.testing import smooth_classifier

FIGURED = {name: torch.tensor(values) for name, values in json.loads(FIGURES.read_text(encoding="utf-8")).items()}
FAMILY = {cls.__name__: cls for cls in (GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM)}
Y = torch.tensor([0, 3, 4])

family = pytest.mark.parametrize("make", FAMILY.values(), ids=lambda g: g.name)


def _figured(name: str) -> Tensor:
    return FIGURED[name].double().reshape(4, GRID, GRID)


@pytest.fixture(scope="module")
def subject() -> Classifier:
    return Classifier(network(), mean=MEAN, std=STD, input_size=SIZE)


class TestAsPytorchGradCam:
    @pytest.mark.parametrize("relu", [False, True])
    @family
    def test_maps_are_its_maps(self, make: type[GradCAM], relu: bool, subject: Classifier) -> None:
        x, y = pictures()
        raw = _figured(make.__name__)
        wanted = min_max(raw.relu() if relu else raw)
        torch.testing.assert_close(make(subject, relu=relu)(x, y), wanted, rtol=1e-6, atol=1e-6)

    def test_the_first_component_is_its_own_up_to_its_sign(self, subject: Classifier) -> None:
        x, y = pictures()
        for found, raw in zip(EigenCAM(subject)(x, y), _figured("EigenCAM"), strict=True):
            wanted = [min_max(sign * raw[None])[0] for sign in (1, -1)]
            assert min(float((found - one).abs().max()) for one in wanted) < 1e-6

    @pytest.mark.parametrize("name", NAMES)
    def test_the_figures_are_those_of_the_package(self, name: str) -> None:
        pytest.importorskip("pytorch_grad_cam")
        torch.testing.assert_close(raw_maps(name), _figured(name), rtol=1e-6, atol=1e-6)


BY_HAND: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hirescam": lambda a, g: (g * a).sum(dim=0),
    "layercam": lambda a, g: (g.clamp_min(0) * a).sum(dim=0),
    "gradcamplusplus": lambda a, g: torch.einsum(
        "k,khw->hw",
        (g.clamp_min(0) * g**2 / (2 * g**2 + a.sum(dim=(1, 2), keepdim=True) * g**3 + 1e-6)).sum(dim=(1, 2)),
        a,
    ),
}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((make, "two prefix tokens") for make in (GradCAMPlusPlus, LayerCAM)),
        *((make, "channels last") for make in (GradCAMPlusPlus, HiResCAM, LayerCAM)),
        *((make, "the mean beside a token") for make in (GradCAMPlusPlus, HiResCAM, LayerCAM)),
    ],
)
def test_the_definition_in_any_layout(make: type[GradCAM], name: str) -> None:
    net_of, layer, cells, side = LAYOUTS[name]
    net, x = seeded(net_of).double(), images(3, 32, dtype=torch.float64)
    grid = (32 // side, 32 // side)
    raw = []
    for image, c in zip(x, Y, strict=True):
        seen: list[Tensor] = []
        handle = net.get_submodule(layer).register_forward_hook(lambda *call, seen=seen: seen.append(call[2]))
        logits = net(image[None])
        handle.remove()
        (slope,) = torch.autograd.grad(logits[0, int(c)], seen[-1])
        raw.append(BY_HAND[make.name](cells(grid)(seen[-1].detach())[0], cells(grid)(slope)[0]))
    torch.testing.assert_close(make(Classifier(net, input_size=32))(x, Y), min_max(torch.stack(raw)))


class TestEigenCAM:
    def test_no_class_changes_it(self) -> None:
        g, x = EigenCAM(Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)), images(2, 32)
        assert torch.equal(g(x, torch.tensor([0, 1])), g(x, torch.tensor([7, 2])))

    def test_it_is_high_where_the_activation_is_large(self) -> None:
        """One bright corner in each of two photos that are otherwise even, however it is signed."""
        conv = nn.Conv2d(3, 4, 1, bias=False)
        net = nn.Sequential(conv, _Mean())
        with torch.no_grad():
            for sign in (1, -1):
                conv.weight.copy_(sign * torch.arange(1.0, 13).reshape(4, 3, 1, 1))
                x = torch.full((2, 3, 8, 8), 0.2)
                x[0, :, :4, :4], x[1, :, 4:, 4:] = 0.9, 0.9
                maps = EigenCAM(Classifier(net, input_size=8))(x, torch.tensor([0, 0]))
                torch.testing.assert_close(maps, ((x[:, 0] - 0.2) / 0.7), rtol=0, atol=1e-5)

    def test_cells_that_are_all_alike_have_a_flat_map(self) -> None:
        g = EigenCAM(Classifier(relu_net(), input_size=32))
        assert not g(torch.full((1, 3, 32, 32), 0.5), torch.tensor([0])).isnan().any()


class _Mean(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return F.pad(z.mean(dim=(2, 3)), (0, 1))


@pytest.mark.parametrize("make", [*FAMILY.values(), EigenCAM], ids=lambda g: g.name)
def test_an_attack_brings_the_map_nearer_than_pgd_does(make: Callable[[Classifier], Interpreter]) -> None:
    classifier = Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)
    g, x = make(classifier), images(8, 32)
    label = classifier(x).argmax(dim=1)
    target = (label + 1) % 10
    benign = g(x, label)
    joint, plain = (attack(x, target) for attack in (ADV2(g, steps=120), PGD(classifier, steps=120)))
    assert bool(joint.success.all())
    near, far = (distance(g(result.x_adv, target), benign).mean() for result in (joint, plain))
    assert float(near) < 0.5 * float(far)


def test_hirescam_is_cam_where_the_head_reads_a_mean() -> None:
    classifier, x = Classifier(relu_net().double(), input_size=32), images(3, 32, dtype=torch.float64)
    assert find_features(classifier).head is not None
    torch.testing.assert_close(HiResCAM(classifier)(x, Y), CAM(classifier)(x, Y))


class TestHiResCAMOfSumsThatCancel:
    """Behind a norm the scale of a cell is lost, and with it what a cell times its gradient adds up to."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("name", sorted(LAYOUTS))
    def test_it_is_refused_where_the_head_reads_tokens_through_a_block(self, name: str, dtype: torch.dtype) -> None:
        classifier = Classifier(seeded(LAYOUTS[name][0]).to(dtype), input_size=32, name=name)
        through_a_block = "class token" in name or "prefix" in name
        assert (HiResCAM.available(classifier) is not None) == through_a_block
        if through_a_block:
            with pytest.raises(InputError, match=f"'{name}' gradient times activation adds up to 0 .*; use gradcam"):
                HiResCAM(classifier)

    def test_behind_the_norm_it_has_a_map(self) -> None:
        classifier = Classifier(seeded(LAYOUTS["a class token"][0]), input_size=32)
        g, x = HiResCAM(classifier, layer="blocks.2.norm1"), images(3, 32)
        with classifier.frozen():
            view = ForwardPass(classifier, x, taps=(g.features,))
            chosen = view.logits.gather(1, Y[:, None]).squeeze(1)
            slope = view.activation_gradient(g.features, chosen, attackable=False)
        terms = slope * view.activation(g.features).detach()
        assert float(terms.sum(dim=1).abs().amax()) > 0.05 * float(terms.abs().sum(dim=1).amax())
        torch.testing.assert_close(g(x, Y), min_max(terms.sum(dim=1)))

    def test_logits_that_no_cell_moves_are_no_reason(self) -> None:
        assert HiResCAM.available(smooth_classifier(flat=True)) is None

    @pytest.mark.real
    def test_the_vision_transformer_of_the_package_is_refused_and_the_built_in_model_is_not(self) -> None:
        assert HiResCAM.available(load_classifier("pages-vit")) is not None
        assert HiResCAM.available(load_classifier("efficientnet-lite0")) is None


@pytest.mark.parametrize("layer", [None, "features.1"])
@pytest.mark.parametrize("kind", [GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM])
def test_a_map_by_itself_is_that_of_a_pass_that_others_read(kind: type[GradientWeighted], layer: str | None) -> None:
    """Which keeps its graph from the pixels on; what is behind the layer may work in place."""
    net = relu_net().eval()
    net.features[2] = nn.ReLU(inplace=True)
    classifier = Classifier(net, mean=0.5, std=0.25, input_size=32)
    g, x, y = kind(classifier, layer=layer), images(3, 32), torch.tensor([0, 3, 7])
    reading = g.reading()
    with classifier.frozen():
        shared = reading.maps(ForwardPass(classifier, x, taps=reading.taps), y)
    assert torch.equal(g(x, y), shared)
    assert float(shared.std()) > 0
