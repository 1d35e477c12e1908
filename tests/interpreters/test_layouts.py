"""Grad-CAM and CAM in each layout against maps by hand; what only looks like a picture is none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support.layouts import (
    CLASSES,
    LAYOUTS,
    WIDTH,
    ChannelsFirst,
    ChannelsLast,
    TokenNet,
    gradcam_by_hand,
    seeded,
    tokens_as,
)
from support.planted import planted_classifier
from support.toys import images
from support.traces import untouched
from underfire import ADV2, CAM, Classifier, GradCAM, InputError
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.maps import distance, min_max
from underfire.models.features import find_features

SIZES = [(32, 32), (32, 64), (56, 40)]
Y = torch.tensor([0, 3, 4])


def _pictures(size: tuple[int, int]) -> Tensor:
    return images(3, max(size))[:, :, : size[0], : size[1]]


class TestMaps:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_gradcam_is_that_by_hand(self, name: str, size: tuple[int, int]) -> None:
        make, layer, cells, side = LAYOUTS[name]
        net, grid = seeded(make), (size[0] // side, size[1] // side)
        classifier, x = Classifier(net, input_size=size), _pictures(size)
        g = GradCAM(classifier)
        assert (g.features.module, g.grid) == (layer, grid)
        torch.testing.assert_close(g(x, Y), gradcam_by_hand(net, layer, cells(grid), x, Y), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("name", ["channels last", "the mean of tokens", "the mean beside a token"])
    def test_cam_is_the_cells_weighted_by_the_head(self, name: str) -> None:
        make, layer, cells, side = LAYOUTS[name]
        net = seeded(make)
        seen: list[Tensor] = []
        x = _pictures((32, 64))
        handle = net.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2]))
        with torch.no_grad():
            net(x)
        handle.remove()
        weight = net.get_parameter("head.weight").detach()[Y]
        by_hand = torch.einsum("nc,nchw->nhw", weight, cells((32 // side, 64 // side))(seen[0]))
        classifier = Classifier(net, input_size=(32, 64))
        torch.testing.assert_close(CAM(classifier)(x, Y), min_max(by_hand), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("make", [GradCAM, CAM], ids=lambda g: g.name)
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_an_attack_is_told_the_gradient_of_the_map(self, name: str, make: type[GradCAM | CAM]) -> None:
        """Central differences of the distance of the public maps, pixel directions drawn at random."""
        classifier = Classifier(seeded(LAYOUTS[name][0]).double(), input_size=32)
        if make.available(classifier) is not None:
            pytest.skip("another head")
        g, x = make(classifier), _pictures((32, 32)).double()
        target = torch.rand(3, *g.grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with classifier.frozen():
            objective = g.objective(MapTarget(Y, target, tuple("abc"), seed=0))
            view = ForwardPass(classifier, x, taps=objective.taps)
            answer = objective(view)
            direction = answer.direction if answer.at is None else view.carried(answer.at, answer.direction)
        step = 1e-6
        for seed in range(3):
            d = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            ahead, behind = (distance(g(x + s * d, Y), target) for s in (step, -step))
            torch.testing.assert_close(
                (direction * d).sum(dim=(1, 2, 3)), (ahead - behind) / (2 * step), rtol=1e-3, atol=1e-6
            )

    def test_it_is_attacked(self) -> None:
        for make, *_ in LAYOUTS.values():
            classifier, x = Classifier(seeded(make), input_size=32), _pictures((32, 32))
            g = GradCAM(classifier)
            target = (classifier(x).argmax(dim=1) + 1) % CLASSES
            assert ADV2(g, steps=2)(x, target).maps[g.name].shape == (3, *g.grid)

    def test_looking_leaves_no_trace(self) -> None:
        for make, *_ in LAYOUTS.values():
            classifier = Classifier(seeded(make), input_size=32)
            with untouched(classifier.module):
                find_features(classifier)


class _Liar(nn.Module):
    """A convolutional network with one more module, whose output it may or may not read."""

    def __init__(self, beside: Callable[[Tensor], Tensor], *, read: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.Tanh())
        self.beside, self.read = _Called(beside), read
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.trunk(x)
        side = self.beside(z)
        logits: Tensor = self.head(z.mean(dim=(2, 3)))
        return logits + side.flatten(1).square().mean(dim=1, keepdim=True) if self.read else logits


class _Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


class _Turned(nn.Module):
    """All that comes after is turned: nothing but the trunk lies upright."""

    def __init__(self, turn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.Tanh())
        self.turn = _Called(turn)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.turn(self.trunk(x)))
        return logits


def _table(z: Tensor) -> Tensor:
    return torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8).expand(len(z), -1, -1, -1)


def _keys(z: Tensor) -> Tensor:
    cells = z.flatten(2).transpose(1, 2)
    return (cells @ cells.transpose(1, 2)).softmax(dim=-1)[:, None].repeat(1, 2, 1, 1)


LIARS: dict[str, Callable[[], nn.Module]] = {
    "a side branch": lambda: _Liar(lambda z: 2 * z, read=False),
    "a table": lambda: _Liar(
        lambda z: torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8).expand(len(z), -1, -1, -1), read=True
    ),
    "an attention map": lambda: _Liar(_keys, read=True),
    "tokens by heads": lambda: _Liar(lambda z: z.flatten(2).unflatten(1, (2, 8)).transpose(2, 3), read=True),
    "the batch in front of nothing": lambda: _Liar(lambda z: z.transpose(0, 1)[:4], read=False),
    "transposed": lambda: _Turned(lambda z: z.transpose(2, 3)),
    "upside down": lambda: _Turned(lambda z: z.flip(2)),
    "left is right": lambda: _Turned(lambda z: z.flip(3)),
    "windows one after another": lambda: _Turned(
        lambda z: z.unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 3, 5, 1).reshape(len(z), 64, WIDTH)
    ),
}


@pytest.mark.parametrize("name", LIARS)
def test_what_is_no_picture_is_passed_over(name: str) -> None:
    net = seeded(LIARS[name])
    g = GradCAM(Classifier(net, input_size=32))
    assert (g.features.module, g.grid) == ("trunk", (8, 8))
    x = _pictures((32, 32))
    torch.testing.assert_close(g(x, Y), gradcam_by_hand(net, "trunk", lambda z: z, x, Y), rtol=1e-3, atol=1e-4)


class TestChosenLayer:
    @pytest.mark.parametrize("as_module", [False, True])
    def test_it_is_read(self, as_module: bool) -> None:
        net = seeded(TokenNet)
        classifier, x = Classifier(net, input_size=32), _pictures((32, 32))
        layer = "blocks.2.norm1"
        g = GradCAM(classifier, layer=net.get_submodule(layer) if as_module else layer)
        assert (g.features.module, g.grid) == (layer, (4, 4))
        by_hand = gradcam_by_hand(net, layer, tokens_as((4, 4), 1), x, Y)
        torch.testing.assert_close(g(x, Y), by_hand, rtol=1e-3, atol=1e-4)

    def test_a_classifier_may_name_it_once_for_all(self) -> None:
        classifier = Classifier(seeded(TokenNet), input_size=32, layer="blocks.0")
        assert GradCAM(classifier).features.module == "blocks.0"

    @pytest.mark.parametrize(
        ("layer", "why"),
        [
            ("nowhere", "layer 'nowhere' is none of 'toy'; give a name of its named_modules"),
            ("blocks.2", r"layer 'blocks.2' of 'toy' is no picture: the logits do not depend on its cells"),
            ("blocks.2.attn.k_norm", r"nothing in its shape \(4, 2, 17, 8\) changes where the image does"),
            ("head", r"its shape is \(4, 5\) for 4 images"),
            (nn.Identity(), "the layer given, a Identity, is no part of 'toy'"),
        ],
    )
    def test_one_that_is_no_picture_is_refused(self, layer: str | nn.Module, why: str) -> None:
        classifier = Classifier(seeded(TokenNet), input_size=32, name="toy")
        with pytest.raises(InputError, match=why):
            GradCAM(classifier, layer=layer)

    def test_one_whose_norm_is_folded_is_mapped_and_not_attacked(self) -> None:
        net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), ChannelsHead()))
        norm = net.get_submodule("1")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_var = torch.full((6,), 0.1)
        g = GradCAM(Classifier(net, input_size=16), layer="0")
        x = _pictures((16, 16))
        assert g(x, Y).shape == (3, 14, 14)
        with pytest.raises(InputError, match=r"cannot be attacked at the layer '0': .* give the layer after the norm"):
            ADV2(g, steps=2)(x, Y)


class ChannelsHead(nn.Module):
    """Reads the mean of six channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, CLASSES)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.linear(z.mean(dim=(2, 3)))
        return logits


class _Wrapped(nn.Module):
    """Layers that return a tuple, or a dict, as blocks of libraries do."""

    def __init__(self, wrap: Callable[[Tensor], object], unwrap: Callable[[object], Tensor]) -> None:
        super().__init__()
        self.trunk, self.unwrap = nn.Sequential(ChannelsFirst().trunk, _Called(wrap)), unwrap  # type: ignore[arg-type]
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.unwrap(self.trunk(x)).mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda z: (None, z * 2), lambda out: out[1]),
        (lambda z: [z * 2], lambda out: out[0]),
        (lambda z: {"last": z * 2, "none": None}, lambda out: out["last"]),
    ],
    ids=["tuple", "list", "dict"],
)
def test_a_picture_inside_what_a_layer_returns(
    wrap: Callable[[Tensor], object], unwrap: Callable[[object], Tensor]
) -> None:
    classifier = Classifier(seeded(lambda: _Wrapped(wrap, unwrap)), input_size=32)
    x = _pictures((32, 32))
    assert CAM(classifier).features.module in ("trunk", "trunk.1")
    torch.testing.assert_close(CAM(classifier)(x, Y), GradCAM(classifier)(x, Y), rtol=1e-4, atol=1e-5)


def test_a_detector_of_one_colour_is_seen_in_that_colour() -> None:
    """Waves of grey levels leave it dead, its changes and its gradients both."""
    assert GradCAM(planted_classifier()).grid == (4, 4)


def test_a_module_without_gradients_is_refused() -> None:
    class Detached(ChannelsFirst):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(InputError, match="the model has no gradient"):
        GradCAM(Classifier(seeded(Detached), input_size=32))


def test_a_linear_head_is_found_without_gradients() -> None:
    class Detached(ChannelsLast):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    x = _pictures((32, 32))
    maps = CAM(Classifier(seeded(Detached), input_size=32))(x, Y)
    torch.testing.assert_close(maps, CAM(Classifier(seeded(ChannelsLast), input_size=32))(x, Y))


@pytest.mark.parametrize("seed", range(12))
def test_an_untrained_network_of_few_channels_is_read_at_its_last_activation(seed: int) -> None:
    """Of these, many show nowhere where the image changes: most of their channels are at rest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
            nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip
    found = find_features(Classifier(net, input_size=(36, 60)))
    assert (found.module, found.grid) == ("6", (3, 4))
    assert found.head is not None
    assert found.head.weight == "9.weight"
