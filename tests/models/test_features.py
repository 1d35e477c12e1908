"""Finding the features that CAM reads, in modules of many shapes."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.toys import images, relu_net, smooth_net
from support.traces import scramble, untouched
from underfire.errors import InputError
from underfire.interpreters import CAM, ForwardPass, GradCAM
from underfire.models.classifier import Classifier
from underfire.models.features import capture, find_features, head_bias, head_weight
from underfire.models.readout import Head

SIZE = 16


class _Functional(nn.Module):
    """A convolution and a head; ``middle`` is what lies between, in functions that no hook sees."""

    def __init__(self, middle: Callable[[Tensor], Tensor], *, head: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.middle = middle
        self.head = nn.Linear(6, 5) if head is None else head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.middle(self.norm(self.conv(x))))
        return logits


class _SharedRelu(nn.Module):
    """One ReLU module in three places; its last call is what the head pools."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.one(x))
        b = self.relu(self.two(a))
        logits: Tensor = self.head(self.relu(b - 0.1).mean(dim=(2, 3)))
        return logits


class _SharedConv(nn.Module):
    """One convolution called three times with the same shapes; the head pools its second call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        second = self.conv(self.conv(self.stem(x)))
        self.conv(second)
        logits: Tensor = self.head(second.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


class _ResNet(nn.Module):
    """Blocks that end in a functional ReLU, functional pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.layers = nn.Sequential(_Block(), _Block())
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.avg_pool2d(self.layers(self.stem(x)), SIZE // 2).flatten(1))
        return logits


def _sequential(*tail: nn.Module, features: int = 6) -> nn.Sequential:
    trunk = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, features, 3, stride=2), nn.ReLU(True))
    return nn.Sequential(*trunk, *tail)


def _two_steps(z: Tensor) -> Tensor:
    return F.relu(z, inplace=True).mean(-1).mean(-1)


# name: (a module, the module and the call whose output the head pools, the grid, the head)
class _Expected(NamedTuple):
    module: str
    call: int
    grid: tuple[int, int]
    weight: str


POOLED: dict[str, tuple[Callable[[], nn.Module], _Expected]] = {
    "functional pooling": (smooth_net, _Expected("features", 0, (8, 8), "head.weight")),
    "sequential": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
        _Expected("3", 0, (7, 7), "6.weight"),
    ),
    "nested sequential": (
        lambda: nn.Sequential(_sequential(nn.AdaptiveAvgPool2d(1)), nn.Sequential(nn.Flatten(), nn.Linear(6, 5))),
        _Expected("0.3", 0, (7, 7), "1.1.weight"),
    ),
    "average pooling by size": (
        lambda: _sequential(nn.AvgPool2d(7), nn.Flatten(), nn.Linear(6, 5)),
        _Expected("3", 0, (7, 7), "6.weight"),
    ),
    "dropout in the head": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 5), nn.Identity()),
        _Expected("3", 0, (7, 7), "7.weight"),
    ),
    "dropout before pooling": (
        lambda: _sequential(nn.Dropout2d(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
        _Expected("4", 0, (7, 7), "7.weight"),
    ),
    "no bias": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5, bias=False)),
        _Expected("3", 0, (7, 7), "6.weight"),
    ),
    "a shared ReLU": (_SharedRelu, _Expected("relu", 2, (16, 16), "head.weight")),
    "a shared convolution": (_SharedConv, _Expected("conv", 1, (16, 16), "head.weight")),
    "blocks with a functional ReLU": (_ResNet, _Expected("layers", 0, (8, 8), "fc.weight")),
    "a functional ReLU in place": (lambda: _Functional(_two_steps), _Expected("norm", 0, (7, 7), "head.weight")),
}


def _classifier(make: Callable[[], nn.Module]) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(make(), mean=0.5, std=0.25, input_size=SIZE)


def _check_that_the_head_reads_the_features(classifier: Classifier, x: Tensor) -> None:
    """Pooling what is captured and applying the head by hand gives the logits; CAM and Grad-CAM can be made."""
    features = find_features(classifier)
    assert features.head is not None
    with torch.no_grad(), classifier.frozen():
        view = ForwardPass(classifier, x, taps=[features])
        activation = view.activation(features)
    assert activation.shape[0] == len(x)
    assert activation.shape[2:] == features.grid
    by_hand = F.linear(activation.mean(dim=(2, 3)), head_weight(classifier, features), head_bias(classifier, features))
    torch.testing.assert_close(by_hand, view.logits, rtol=1e-4, atol=1e-5)
    assert CAM(classifier).grid == GradCAM(classifier).grid == features.grid


class TestPooledActivation:
    @pytest.mark.parametrize("name", POOLED)
    def test_it_is_found(self, name: str) -> None:
        make, expected = POOLED[name]
        found = find_features(_classifier(make))
        assert found.head is not None
        assert (found.grid, found.head.weight) == (expected.grid, expected.weight)
        # a container returns what its last part returns: either names the same activation
        inner = expected.module.startswith(found.module) or found.module.startswith(expected.module)
        assert (inner, found.spot.call) == (True, expected.call)

    @pytest.mark.parametrize("name", POOLED)
    @pytest.mark.parametrize("n", [1, 3, 4])
    def test_the_head_reads_it(self, name: str, n: int) -> None:
        _check_that_the_head_reads_the_features(_classifier(POOLED[name][0]), images(n, SIZE))

    @pytest.mark.parametrize("threads", [2, 3, 8])
    def test_on_any_number_of_threads(self, threads: int, set_threads: Callable[[int], None]) -> None:
        set_threads(threads)
        for make, _ in POOLED.values():
            _check_that_the_head_reads_the_features(_classifier(make), images(3, SIZE))

    @pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "densenet121", "googlenet"])
    def test_torchvision(self, torchvision: ModuleType, model: str) -> None:
        torch.manual_seed(0)
        options = {"init_weights": False, "aux_logits": False} if model == "googlenet" else {}
        net = getattr(torchvision.models, model)(weights=None, num_classes=7, **options)
        classifier = Classifier(net, mean=0.5, std=0.25, input_size=64)
        _check_that_the_head_reads_the_features(classifier, images(2, 64))

    @pytest.mark.real
    def test_efficientnet(self, efficientnet: Classifier) -> None:
        found = find_features(efficientnet)
        assert found.grid == (7, 7)
        _check_that_the_head_reads_the_features(efficientnet, images(2, efficientnet.input_size[0]))


class _Twice(nn.Module):
    """Logits that are no longer what the linear layer returned."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x) * 2
        return logits


class _LowRank(nn.Linear):
    """A linear layer and a learnt change to it, which its weight does not show."""

    def __init__(self) -> None:
        super().__init__(6, 5)
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + z @ self.down.T @ self.up.T


class _Standardised(nn.Linear):
    def forward(self, z: Tensor) -> Tensor:
        return F.linear(z, (self.weight - self.weight.mean(dim=1, keepdim=True)) / self.weight.std(), self.bias)


class _Product(nn.Module):
    """A matrix product and a sum, as an exported graph has them."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(5))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.matrix + self.shift


# name: (a module, the linear read-out of the mean that is found)
LINEAR: dict[str, tuple[Callable[[], nn.Module], Head]] = {
    "a convolution for a head": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten()),
        Head("5.weight", bias="5.bias"),
    ),
    "a product and a sum": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), _Product()),
        Head("6.matrix", transposed=True, bias="6.shift"),
    ),
    "a function of the logits": (_Twice, Head(None)),
    "a low-rank change": (lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), _LowRank()), Head(None)),
    "a standardised weight": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), _Standardised(6, 5)),
        Head(None),
    ),
    "two linear layers with nothing between": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), nn.Linear(3, 5)),
        Head(None),
    ),
}


class TestLinearHeads:
    @pytest.mark.parametrize("name", LINEAR)
    def test_they_are_read_whatever_computes_them(self, name: str) -> None:
        make, head = LINEAR[name]
        classifier = _classifier(make)
        assert find_features(classifier).head == head
        _check_that_the_head_reads_the_features(classifier, images(3, SIZE))
        x, y = images(3, SIZE), torch.tensor([0, 1, 2])
        torch.testing.assert_close(CAM(classifier)(x, y), GradCAM(classifier)(x, y), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["a function of the logits", "a standardised weight", "a product and a sum"])
    def test_they_are_read_anew_when_weights_change(self, name: str) -> None:
        classifier = _classifier(LINEAR[name][0])
        find_features(classifier)
        with torch.no_grad():
            for parameter in classifier.module.parameters():
                parameter.mul_(-1.5)
        _check_that_the_head_reads_the_features(classifier, images(3, SIZE))


class _Cosine(nn.Linear):
    def forward(self, z: Tensor) -> Tensor:
        return 10 * F.linear(F.normalize(z), F.normalize(self.weight))


NO_HEAD: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "two linear layers": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5)),
        (7, 7),
    ),
    "maximum pooling": (lambda: _sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)), (7, 7)),
    "no pooling": (lambda: _sequential(nn.Flatten(), nn.Linear(6 * 49, 5)), (7, 7)),
    "pooling to more than one cell": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)),
        (2, 2),
    ),
    "a cosine": (lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), _Cosine(6, 5)), (7, 7)),
    "a function of the pooled activation": (
        lambda: _sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(6), nn.Linear(6, 5)),
        (7, 7),
    ),
    "pooled after a function that no module shows": (
        lambda: _Functional(lambda z: F.relu(z).mean(dim=(2, 3))),
        (7, 7),
    ),
}


class TestOtherHeads:
    @pytest.mark.parametrize("name", NO_HEAD)
    def test_features_without_a_head(self, name: str) -> None:
        make, grid = NO_HEAD[name]
        classifier = _classifier(make)
        found = find_features(classifier)
        assert (found.grid, found.head) == (grid, None)
        with pytest.raises(InputError, match="'classifier' ends in another head; use gradcam instead"):
            CAM(classifier)
        maps = GradCAM(classifier)(images(3, SIZE), torch.tensor([0, 1, 2]))
        assert maps.shape == (3, *grid)
        with pytest.raises(ValueError, match="no linear head"):
            head_weight(classifier, found)

    def test_mobilenet_v3_has_a_head_of_two_layers(self, torchvision: ModuleType) -> None:
        net = torchvision.models.mobilenet_v3_small(weights=None, num_classes=7)
        found = find_features(Classifier(net, input_size=64))
        assert (found.grid, found.head) == ((2, 2), None)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 8), nn.ReLU(), nn.Linear(8, 5)),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 5)),
            lambda: nn.Sequential(nn.Conv2d(3, 6, SIZE), nn.ReLU(), nn.Flatten(), nn.Linear(6, 5)),
        ],
        ids=["two layers", "one layer", "a grid of one cell"],
    )
    def test_no_features_at_all(self, make: Callable[[], nn.Module]) -> None:
        classifier = _classifier(make)
        with pytest.raises(InputError, match="'classifier' has no activation whose cells change where the image does"):
            find_features(classifier)
        for interpreter in (CAM, GradCAM):
            with pytest.raises(InputError, match="'classifier'"):
                interpreter(classifier)


class TestTraces:
    @pytest.mark.parametrize("name", POOLED)
    def test_looking_leaves_none(self, name: str) -> None:
        classifier = _classifier(POOLED[name][0])
        scramble(classifier.module)
        with untouched(classifier.module):
            find_features(classifier)

    def test_neither_does_an_exception_in_a_capture(self) -> None:
        classifier = Classifier(relu_net(), input_size=32)
        features = find_features(classifier)
        with untouched(classifier.module), pytest.raises(KeyError), capture(classifier, features):
            raise KeyError

    def test_a_capture_sees_every_forward_pass_inside_the_block(self) -> None:
        classifier = _classifier(_SharedRelu)
        features = find_features(classifier)
        x = images(4, SIZE)
        with torch.no_grad(), capture(classifier, features) as seen:
            classifier(x)
            classifier(x.flip(0))
        classifier(x)
        assert len(seen) == 2
        torch.testing.assert_close(seen[0], seen[1].flip(0))

    def test_a_forward_pass_that_broke_off_does_not_shift_the_count(self) -> None:
        classifier = _classifier(_SharedRelu)
        features = find_features(classifier)
        x = images(4, SIZE)
        with torch.no_grad(), capture(classifier, features) as seen:
            with pytest.raises(RuntimeError):
                classifier.module(torch.zeros(4, 7, SIZE, SIZE))
            classifier(x)
        assert len(seen) == 1


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
