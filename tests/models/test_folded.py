"""The prepared copy is the same function, without the batch norms that can be folded."""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from support.toys import images, relu_net, smooth_net
from support.traces import scramble, untouched
from underfire.attacks import PGD
from underfire.interpreters import CAM, GRAD, ForwardPass
from underfire.models.classifier import Classifier
from underfire.models.features import find_features
from underfire.models.folded import SharedCopies, prepared

SIZE = 16


class _ReadTwice(nn.Module):
    """The convolution's output goes into the batch norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        logits: Tensor = self.head((F.relu(self.norm(z)) + z).mean(dim=(2, 3)))
        return logits


class _TwoNorms(nn.Module):
    """Two batch norms read one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)
        self.one, self.two = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        logits: Tensor = self.head((self.one(z).relu() - self.two(z).relu()).mean(dim=(2, 3)))
        return logits


class _SharedConv(nn.Module):
    """One convolution, called twice, with a batch norm of its own after each call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3), nn.Linear(3, 5)
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.two(self.conv(F.relu(self.one(self.conv(x)))))
        logits: Tensor = self.head(z.mean(dim=(2, 3)))
        return logits


class _SharedNorm(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.b(F.relu(self.norm(self.a(x)))))
        logits: Tensor = self.head(z.mean(dim=(2, 3)))
        return logits


class _TiedWeights(nn.Module):
    """Two convolutions with one weight, each before a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.b.weight = self.a.weight
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.two(self.b(F.relu(self.one(self.a(x)))))
        logits: Tensor = self.head(z.mean(dim=(2, 3)))
        return logits


class _TwoNames(nn.Module):
    """One batch norm under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5)
        self.alias = self.norm

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.alias(self.conv(x)).relu().mean(dim=(2, 3)))
        return logits


class _Standardised(nn.Conv2d):
    """A convolution that standardises its weight: what is multiplied into the weight is divided out again."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(input, weight / weight.std(dim=(1, 2, 3), keepdim=True), self.bias)


class _InPlaceBetween(nn.Module):
    """A ReLU in place between convolution and batch norm, which then sees the very tensor the former made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(F.relu(self.conv(x), inplace=True)).mean(dim=(2, 3)))
        return logits


class _PadsFirst(nn.Conv2d):
    """A convolution that holds its padding as a layer, as ports of TensorFlow models do."""

    def __init__(
        self, channels: int, features: int, *, side: int = 1, mode: Literal["zeros", "reflect"] = "zeros"
    ) -> None:
        super().__init__(channels, features, 3, padding_mode=mode)
        self.pad = nn.ZeroPad2d(side)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return super().forward(self.pad(input))


class _Lopsided(_PadsFirst):
    """One whose layer pads to the right and below only."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(channels, features)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))


class _NormAndAct(nn.BatchNorm2d):
    """A batch norm that activates, as timm's."""

    def __init__(self, features: int, act: nn.Module) -> None:
        super().__init__(features)
        self.drop, self.act = nn.Identity(), act

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        activated: Tensor = self.act(self.drop(super().forward(input)))
        return activated


class _NormAndHalf(nn.BatchNorm2d):
    """A batch norm with something behind it that none of its parts says."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return super().forward(input) / 2


class _IgnoresItsPadding(_PadsFirst):
    """One that pads by its layer alone, whatever its own padding says."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return F.conv2d(self.pad(input), self.weight, self.bias, self.stride, 0)


class _Residual(nn.Module):
    """A convolution's input is added to its output, which must be of the same size."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        sum_: Tensor = x + self.norm(self.conv(x))
        return sum_


def _net(conv: nn.Module, norm: nn.Module, features: int = 6) -> nn.Module:
    return nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 5))


def _before(rest: nn.Module) -> nn.Module:
    """A foldable pair before a network with one that isn't."""
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), rest)


# name: (a module, how many batch norms are left)
NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "no bias": (lambda: _net(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)), 0),
    "a bias": (lambda: _net(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), 0),
    "no affine": (lambda: _net(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False)), 0),
    "groups": (lambda: _net(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), 0),
    "eps": (lambda: _net(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=0.5)), 0),
    "padding": (lambda: _net(nn.Conv2d(3, 6, 3, padding=2), nn.BatchNorm2d(6)), 0),
    "tied weights": (_TiedWeights, 0),
    "norm before convolution": (lambda: _net(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3)), 1),
    "transposed convolution": (lambda: _net(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)), 1),
    "no running statistics": (lambda: _net(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)), 1),
    "group norm": (lambda: _net(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6)), 0),
    "after a linear layer": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5)),
        1,
    ),
    "no batch norm": (smooth_net, 0),
    "output read elsewhere": (_ReadTwice, 1),
    "two norms": (_TwoNorms, 2),
    "shared convolution": (_SharedConv, 2),
    "shared norm": (_SharedNorm, 1),
    "shared convolution behind others": (lambda: _before(_SharedConv()), 2),
    "shared norm behind others": (lambda: _before(_SharedNorm()), 1),
    "two names": (_TwoNames, 1),
    "standardised weight": (lambda: _net(_Standardised(3, 6, 3), nn.BatchNorm2d(6)), 1),
    "activation in the norm": (lambda: _net(nn.Conv2d(3, 6, 3), _NormAndAct(6, nn.SiLU(inplace=True))), 0),
    "something else in the norm": (lambda: _net(nn.Conv2d(3, 6, 3), _NormAndHalf(6)), 1),
    "something else in a norm behind others": (lambda: _before(_net(nn.Conv2d(3, 6, 3), _NormAndHalf(6))), 1),
    "standardised weight behind others": (lambda: _before(_net(_Standardised(3, 6, 3), nn.BatchNorm2d(6))), 1),
    "spectral norm": (lambda: _net(spectral_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)), 1),
    "weight norm behind others": (lambda: _before(_net(weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6))), 1),
    "pruned": (lambda: _net(prune.l1_unstructured(nn.Conv2d(3, 6, 3), "weight", 0.3), nn.BatchNorm2d(6)), 1),
    "in place between": (_InPlaceBetween, 1),
    "padding in a layer": (lambda: _net(_PadsFirst(3, 6), nn.BatchNorm2d(6)), 0),
    "padding in a layer and a residual": (lambda: _net(_Residual(_PadsFirst(3, 3)), nn.BatchNorm2d(3), 3), 1),
    "padding of its own": (lambda: _net(_IgnoresItsPadding(3, 6), nn.BatchNorm2d(6)), 0),
    "padding of its own and a residual": (
        lambda: _net(_Residual(_IgnoresItsPadding(3, 3)), nn.BatchNorm2d(3), 3),
        1,
    ),
    "reflecting": (lambda: _net(_PadsFirst(3, 6, mode="reflect"), nn.BatchNorm2d(6)), 0),
    "reflecting and a residual": (lambda: _net(_Residual(_PadsFirst(3, 3, mode="reflect")), nn.BatchNorm2d(3), 3), 1),
}


def _classifier(make: Callable[[], nn.Module]) -> Classifier:
    """``make()`` with batch norms that have lived."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d):
                for tensor in (m.weight, m.running_var):
                    if tensor is not None:
                        nn.init.uniform_(tensor, 0.3, 2.0)
                for tensor in (m.bias, m.running_mean):
                    if tensor is not None:
                        nn.init.normal_(tensor)
    return Classifier(net, mean=0.5, std=0.25, input_size=SIZE)


def _norms(classifier: Classifier) -> int:
    return sum(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in classifier.module.modules())


def _check_same_function(a: Classifier, b: Classifier, x: Tensor) -> None:
    outcomes = []
    for classifier in (a, b):
        leaf = x.clone().requires_grad_(True)
        logits = classifier(leaf)
        outcomes.append((logits.detach(), *torch.autograd.grad(logits[:, 1].sum(), leaf)))
    (logits, gradient), (twin_logits, twin_gradient) = outcomes
    assert float((logits - twin_logits).abs().max()) <= 1e-4 * max(1.0, float(logits.std()))
    # in the mean square: a rounded value at the kink of a ReLU may switch its gradient on or off
    assert float((gradient - twin_gradient).norm()) <= 1e-2 * float(gradient.norm())


@pytest.mark.parametrize("name", NETS)
def test_the_same_function_with_the_foldable_norms_gone(name: str) -> None:
    make, left = NETS[name]
    classifier = _classifier(make)
    twin = prepared(classifier)
    assert _norms(twin) == left
    _check_same_function(classifier, twin, images(4, SIZE))


@pytest.mark.parametrize("name", NETS)
def test_the_original_is_untouched_by_copy_and_attack(name: str) -> None:
    classifier = _classifier(NETS[name][0])
    scramble(classifier.module)
    with untouched(classifier.module):
        twin = prepared(classifier)
        PGD(classifier, steps=2)(images(2, SIZE), torch.tensor([1, 2]))
        with torch.no_grad():
            for buffer in twin.module.buffers():
                buffer.zero_()
    assert not any(p.requires_grad for p in twin.module.parameters())
    assert not set(map(id, classifier.module.parameters())) & set(map(id, twin.module.parameters()))


def test_values_that_nothing_changes_are_not_copied(relu_classifier: Classifier) -> None:
    own, twins = (dict(c.module.named_parameters()) for c in (relu_classifier, prepared(relu_classifier)))
    shared = {name for name, p in twins.items() if name in own and p.data_ptr() == own[name].data_ptr()}
    assert shared == {"head.weight", "head.bias"}


class _Marked(nn.Parameter):
    """A parameter of a kind of its own."""


class _Tied(nn.Module):
    """One weight for two layers, and another that is more than its values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Linear(3, 5)
        self.two.weight = self.one.weight
        self.head.weight = _Marked(self.head.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.two(self.one(x).relu()).mean(dim=(2, 3)))
        return logits


def test_tied_weights_stay_tied_and_parameters_keep_their_kind() -> None:
    net = _Tied()
    twin = prepared(Classifier(net, input_size=SIZE)).module
    assert isinstance(twin, _Tied)
    assert twin.one.weight is twin.two.weight
    assert isinstance(twin.head.weight, _Marked)
    assert twin.head.weight.data_ptr() != net.head.weight.data_ptr()


@pytest.mark.parametrize(
    ("conv", "padding"),
    [
        (lambda: _PadsFirst(3, 6), (1, 1)),
        (lambda: _PadsFirst(3, 6, side=2), (2, 2)),
        (lambda: _IgnoresItsPadding(3, 6), None),
        (lambda: _PadsFirst(3, 6, mode="reflect"), None),
        (lambda: _Lopsided(3, 6), None),
    ],
    ids=["a layer", "two wide", "of its own", "reflecting", "lopsided"],
)
def test_a_layer_of_padding_is_folded_where_the_convolution_pads_the_same(
    conv: Callable[[], _PadsFirst], padding: tuple[int, int] | None
) -> None:
    classifier = _classifier(lambda: _net(conv(), nn.BatchNorm2d(6)))
    twin = prepared(classifier)
    for module, (own, is_layer) in (
        (twin.module, (padding or (0, 0), padding is None)),
        (classifier.module, ((0, 0), True)),
    ):
        found = module.get_submodule("0")
        assert isinstance(found, nn.Conv2d)
        assert (found.padding, isinstance(found.get_submodule("pad"), nn.ZeroPad2d)) == (own, is_layer)
    assert _norms(twin) == 0
    _check_same_function(classifier, twin, images(4, SIZE))


def test_in_float64_it_is_exact_to_rounding() -> None:
    classifier = Classifier(relu_net().double(), mean=0.5, std=0.25, input_size=32)
    twin = prepared(classifier)
    assert _norms(twin) == 0
    x = images(5, 32, dtype=torch.float64)
    torch.testing.assert_close(twin(x), classifier(x), rtol=1e-12, atol=1e-12)


def test_all_that_is_said_of_the_classifier_holds_for_the_copy() -> None:
    names = [f"bird {k}" for k in range(10)]
    classifier = Classifier(relu_net(), mean=0.5, std=0.25, input_size=32, resize=40, class_names=names, name="toy")
    twin = prepared(classifier)
    for attribute in ("name", "preprocessing", "class_names", "num_classes", "outputs"):
        assert getattr(twin, attribute) == getattr(classifier, attribute)


def test_features_stay_where_they_were(relu_classifier: Classifier) -> None:
    twin = prepared(relu_classifier)
    features = find_features(relu_classifier)
    assert features is not None
    assert find_features(twin) == features
    x, y = images(3, 32), torch.tensor([1, 2, 3])
    with torch.no_grad(), twin.frozen(), relu_classifier.frozen():
        ours, theirs = (ForwardPass(c, x, taps=[features]).activation(features) for c in (relu_classifier, twin))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    for interpreter in (CAM, GRAD):
        torch.testing.assert_close(interpreter(twin)(x, y), interpreter(relu_classifier)(x, y), rtol=1e-3, atol=1e-3)


def test_a_softmax_at_the_end_stays() -> None:
    classifier = Classifier(nn.Sequential(relu_net(), nn.Softmax(dim=1)), input_size=32, outputs="probabilities")
    twin = prepared(classifier)
    assert _norms(twin) == 0
    _check_same_function(classifier, twin, images(3, 32))


def test_a_module_that_cannot_be_copied_is_attacked_itself() -> None:
    net = relu_net()
    net.lock = threading.Lock()  # type: ignore[assignment]
    classifier = Classifier(net, input_size=32)
    assert prepared(classifier) is classifier
    with untouched(net):
        assert PGD(classifier, steps=3)(images(2, 32), torch.tensor([1, 2])).x_adv.shape == (2, 3, 32, 32)


def test_what_may_be_folded_is_looked_for_once_until_the_weights_change(relu_classifier: Classifier) -> None:
    calls: list[nn.Module] = []
    relu_classifier.module.register_forward_hook(lambda module, _, __: calls.append(module))
    first, again = prepared(relu_classifier), prepared(relu_classifier)
    assert calls.count(relu_classifier.module) == 1
    assert first.module is not again.module
    with torch.no_grad():
        assert torch.equal(first(images(2, 32)), again(images(2, 32)))
        next(relu_classifier.module.parameters()).mul_(2)
        torch.testing.assert_close(prepared(relu_classifier)(images(2, 32)), relu_classifier(images(2, 32)))
    assert calls.count(relu_classifier.module) == 3


def test_a_copy_is_in_evaluation_mode_throughout(relu_classifier: Classifier) -> None:
    """Else each pass of an attack would put it there, layer by layer, and back."""
    assert not any(module.training for module in prepared(relu_classifier).module.modules())


def test_a_hook_that_comes_later_is_not_folded_over(relu_classifier: Classifier) -> None:
    """One that stands between a convolution and its norm, and changes what the norm reads."""
    first, x = prepared(relu_classifier), images(2, 32)
    norm = next(m for m in relu_classifier.module.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 3 + 1,))
    with torch.no_grad():
        assert not torch.allclose(first(x), relu_classifier(x))
        torch.testing.assert_close(prepared(relu_classifier)(x), relu_classifier(x))


class _Switched(nn.Module):
    """Its norm can be switched off by a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.norm.running_mean = torch.tensor([0.3, -0.4, 0.5, -0.6])
        self.norms, self.calls = True, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.conv(x)
        logits: Tensor = self.head((self.norm(x) if self.norms else x).relu().mean(dim=(2, 3)))
        return logits


def test_a_flag_that_is_switched_later_is_seen() -> None:
    torch.manual_seed(0)
    classifier, x = Classifier(_Switched(), input_size=32), images(2, 32)
    with torch.no_grad():
        for norms in (True, False, True):
            classifier.module.norms = norms  # type: ignore[assignment]
            torch.testing.assert_close(prepared(classifier)(x), classifier(x))


def test_inside_a_frozen_block_it_is_refused(relu_classifier: Classifier) -> None:
    with relu_classifier.frozen(), pytest.raises(RuntimeError, match="leave the block first"):
        prepared(relu_classifier)
    prepared(relu_classifier)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small"])
def test_torchvision(torchvision: ModuleType, model: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(getattr(torchvision.models, model)(weights=None, num_classes=7), input_size=64)
    twin = prepared(classifier)
    assert _norms(twin) == 0
    _check_same_function(classifier, twin, images(2, 64))


@pytest.mark.real
def test_efficientnet(efficientnet: Classifier) -> None:
    twin = prepared(efficientnet)
    assert _norms(twin) == 0
    _check_same_function(efficientnet, twin, images(2, efficientnet.input_size[0]))


class TestSharedCopies:
    def test_one_copy_serves_until_the_block_is_left_or_the_weights_change(self) -> None:
        classifier, copies = Classifier(relu_net(), mean=0.5, std=0.25, input_size=SIZE), SharedCopies()
        with copies.used():
            first = prepared(classifier)
            assert prepared(classifier) is first
            assert prepared(Classifier(relu_net(), mean=0.5, std=0.25, input_size=SIZE)) is not first
        assert prepared(classifier) is not first
        with copies.used():
            assert prepared(classifier) is first
            with torch.no_grad():
                next(classifier.module.parameters()).add_(1)
            second = prepared(classifier)
        assert second is not first
        x = images(2, SIZE)
        torch.testing.assert_close(second(x), classifier(x))

    def test_threads_share_none(self) -> None:
        classifier = Classifier(relu_net(), mean=0.5, std=0.25, input_size=SIZE)
        found: list[Classifier] = []
        with SharedCopies().used():
            own = prepared(classifier)
            other = threading.Thread(target=lambda: found.append(prepared(classifier)))
            other.start()
            other.join()
        assert found[0] is not own
