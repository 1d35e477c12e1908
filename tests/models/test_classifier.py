"""The classifier: preprocessing inside, refusals in sentences, no trace, the same bits in any batch."""

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from support.toys import CLASSES, ReluNet, images, relu_net, smooth_net
from support.traces import scramble, untouched
from underfire.attacks import ADV2, PGD
from underfire.errors import InputError, ModelError
from underfire.interpreters import CAM, GRAD, LRP, GradCAM, Interpreter
from underfire.models.classifier import Classifier
from underfire.models.frozen import frozen
from underfire.models.outputs import is_probabilities

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.25, 0.3)


def _relu(**options: object) -> Classifier:
    return Classifier(relu_net(), **{"mean": MEAN, "std": STD, "input_size": 32, **options})  # type: ignore[arg-type]


def _by_hand(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(STD).reshape(1, 3, 1, 1)


def _compile_all(net: ReluNet) -> nn.Module:
    net.compile(backend="eager")
    return net


def _compile_a_layer(net: ReluNet) -> nn.Module:
    net.features.compile(backend="eager")
    return net.features


def _compile_a_part(net: ReluNet) -> nn.Module:
    part: Any = torch.compile(net.features, backend="eager")
    net.features = part
    return net.features


class TestPreprocessing:
    def test_inside_equals_by_hand(self, relu_classifier: Classifier) -> None:
        x = images(4, 32)
        net = relu_net().eval()
        torch.testing.assert_close(relu_classifier(x), net(_by_hand(x)))
        assert not torch.allclose(relu_classifier(x), net(x), atol=0.1)

    def test_the_gradient_is_in_pixels_of_0_to_1(self, relu_classifier: Classifier) -> None:
        x = images(4, 32)
        net = relu_net().eval()
        z = _by_hand(x).requires_grad_(True)
        (in_normalised,) = torch.autograd.grad(net(z)[:, 3].sum(), z)
        leaf = x.clone().requires_grad_(True)
        (in_pixels,) = torch.autograd.grad(relu_classifier(leaf)[:, 3].sum(), leaf)
        torch.testing.assert_close(in_pixels, in_normalised / torch.tensor(STD).reshape(1, 3, 1, 1))

    def test_one_number_holds_for_all_channels(self) -> None:
        net, x = relu_net(), images(2, 32)
        single = Classifier(net, mean=0.5, std=0.25, input_size=32)
        triple = Classifier(net, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=(32, 32))
        assert torch.equal(single(x), triple(x))

    def test_no_preprocessing_is_the_default(self) -> None:
        net, x = relu_net(), images(4, 32)
        torch.testing.assert_close(Classifier(net, input_size=32)(x), net.eval()(x))

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("given_per_channel", [True, False])
    def test_grey_and_colour(self, channels: int, given_per_channel: bool) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        mean, std = ((0.5,) * channels, (0.25,) * channels) if given_per_channel else (0.5, 0.25)
        classifier = Classifier(net, mean=mean, std=std, input_size=(6, 8))
        x = torch.rand(4, channels, 6, 8)
        torch.testing.assert_close(classifier(x), net((x - 0.5) / 0.25))
        with pytest.raises(InputError, match=r"\(2, 2, 6, 8\) don't fit"):
            classifier(torch.rand(2, 2, 6, 8))


class TestRefusedImages:
    @pytest.mark.parametrize(
        ("spoil", "sentence"),
        [
            (lambda x: x[0], r"shape \(3, 32, 32\) don't fit"),
            (lambda x: x[:, :1], r"shape \(2, 1, 32, 32\) don't fit the classifier; give \(N, 3, 32, 32\)"),
            (lambda x: x[:, :, :16], r"shape \(2, 3, 16, 32\)"),
            (lambda x: x.permute(0, 2, 3, 1), r"shape \(2, 32, 32, 3\)"),
            (lambda x: (x * 255).to(torch.uint8), r"torch.uint8.*divide 8-bit images by 255"),
            (lambda x: x.double(), r"torch.float64 were given to a classifier of torch.float32"),
            (lambda x: x.half(), r"torch.float16"),
            (lambda x: x * 255, r"pixel values from .* to 2\d\d.* outside \[0, 1\]; divide by 255 first"),
            (lambda x: (x - 0.5) / 0.25, r"pixel values from -1.* outside \[0, 1\]; give images before normalisation"),
            (lambda x: x.clone().index_fill_(3, torch.tensor([5]), 1.0001), r"to 1 are|to 1\.000"),
            (lambda x: x.clone().index_fill_(3, torch.tensor([5]), float("nan")), r"NaN or infinity"),
            (lambda x: x.clone().index_fill_(3, torch.tensor([5]), float("inf")), r"NaN or infinity"),
            (lambda x: x.numpy(), r"a tensor \(N, 3, 32, 32\), not 'ndarray'"),
            (lambda x: [x], r"not 'list'"),
        ],
    )
    def test_one_sentence_that_quotes(
        self, relu_classifier: Classifier, spoil: Callable[[Tensor], Tensor], sentence: str
    ) -> None:
        with untouched(relu_classifier.module), pytest.raises(InputError, match=sentence) as refusal:
            relu_classifier(spoil(images(2, 32)))
        assert str(refusal.value).endswith(".")
        assert "\n" not in str(refusal.value)

    def test_the_borders_of_the_range_are_inside(self, relu_classifier: Classifier) -> None:
        assert relu_classifier(torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])).shape == (2, CLASSES)

    def test_no_image_gives_no_row(self, toy_classifier: Classifier) -> None:
        size = toy_classifier.input_size[0]
        assert toy_classifier(torch.empty(0, 3, size, size)).shape == (0, CLASSES)

    @pytest.mark.parametrize(
        ("y", "sentence"),
        [
            (torch.tensor([0, 1, 2]), r"int64 tensor of shape \(2,\), not torch.int64 \(3,\)"),
            (torch.tensor([[0], [1]]), r"\(2, 1\)"),
            (torch.tensor([0, 1], dtype=torch.int32), "torch.int32"),
            (torch.tensor([0.0, 1.0]), "torch.float32"),
            (torch.tensor([0, CLASSES]), "class 10 does not exist: the classifier has classes 0 to 9"),
            (torch.tensor([-1, 0]), "class -1 does not exist"),
            ([0, 1], "not list"),
        ],
    )
    def test_classes(self, relu_classifier: Classifier, y: Tensor, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            relu_classifier.check_classes(y, 2)


class _Shaking(nn.Module):
    """Adds noise of its own to what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class _Returns(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


class TestRefusedArguments:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"input_size": 0}, r"input_size \(0, 0\)"),
            ({"input_size": (32, 0)}, r"input_size \(32, 0\)"),
            ({"input_size": (32,)}, r"input_size \(32,\)"),
            ({"resize": 0}, "resize 0"),
            ({"outputs": "scores"}, "outputs 'scores' is unknown; give 'logits', 'probabilities', 'sigmoid'"),
            ({"std": 0.0}, "std 0.0 must be above zero"),
            ({"std": (0.2, -0.2, 0.2)}, "std .* must be above zero"),
            ({"mean": float("nan")}, "mean nan is not a finite number"),
            ({"mean": ()}, r"mean \(\)"),
            ({"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2)}, "3 .* 2|2 .* 3"),
            ({"mean": (0.5, 0.5), "std": (0.5, 0.5), "bgr": True}, "bgr is for 3 channels, and the classifier takes 2"),
            ({"interpolation": "cubic"}, "interpolation 'cubic' is unknown; give one of nearest, .*bicubic"),
            ({"crop": "centre"}, "crop 'centre' is unknown; give one of center, squash, letterbox"),
            ({"mean": (0.5, 0.5), "std": (0.2, 0.2)}, r"cannot take images of shape \(4, 2, 32, 32\)"),
            ({"class_names": ["cat", "dog"]}, "2 class names were given for a module of 10 outputs"),
        ],
    )
    def test_one_sentence_that_quotes(self, options: dict[str, object], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence) as refusal:
            _relu(**options)
        assert "\n" not in str(refusal.value)

    def test_something_else_than_a_module(self) -> None:
        with pytest.raises(InputError, match="not from 'function'"):
            Classifier(lambda x: x, input_size=8)  # type: ignore[arg-type]

    def test_a_size_the_module_cannot_take(self) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
        with pytest.raises(
            InputError, match=r"cannot take images of shape \(4, 3, 9, 9\).*check input_size"
        ) as refusal:
            Classifier(net, input_size=9)
        assert "check input_size" in str(refusal.value)
        assert isinstance(refusal.value.__cause__, RuntimeError)

    @pytest.mark.parametrize(
        ("function", "sentence"),
        [
            (lambda x: x, r"returns \(4, 3, 8, 8\) for 4 images"),
            (lambda x: x.mean(), r"returns \(\)"),
            (lambda x: x.mean(dim=(0, 2, 3))[None].expand(2, 3), r"returns \(2, 3\) for 4 images"),
            (lambda x: {"logits": x}, "returns dict of 'logits' for 4 images; .*as 'logits' of a dictionary"),
            (lambda x: {"boxes": x.mean(dim=(2, 3)), "labels": x.mean(dim=(2, 3))}, "dict of 'boxes', 'labels' for 4"),
            (lambda x: (), "returns tuple for 4 images"),
        ],
    )
    def test_what_no_classifier_returns(self, function: Callable[[Tensor], object], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            Classifier(_Returns(function), input_size=8)


class TestProbabilities:
    def test_a_softmax_is_told_from_logits(self) -> None:
        net = nn.Sequential(relu_net(), nn.Softmax(dim=1))
        with pytest.raises(InputError, match="returns probabilities, not logits; remove its softmax"):
            Classifier(net, input_size=32)

    def test_logits_are_told_from_a_softmax(self) -> None:
        with pytest.raises(InputError, match="don't sum to 1"):
            Classifier(relu_net(), input_size=32, outputs="probabilities")

    def test_probabilities_become_logits(self, relu_classifier: Classifier) -> None:
        net = nn.Sequential(relu_net(), nn.Softmax(dim=1))
        classifier = Classifier(net, mean=MEAN, std=STD, input_size=32, outputs="probabilities")
        x = images(4, 32)
        torch.testing.assert_close(classifier(x), relu_classifier(x).log_softmax(dim=1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(classifier.probabilities(x), relu_classifier.probabilities(x))

    def test_a_probability_of_zero_has_a_finite_logit_and_gradient(self) -> None:
        net = _Returns(lambda x: F.one_hot((x.mean(dim=(1, 2, 3)) > 0.5).long(), 2).float() + 0 * x.sum())
        classifier = Classifier(net, input_size=8, outputs="probabilities")
        leaf = torch.rand(3, 3, 8, 8).requires_grad_(True)
        logits = classifier(leaf)
        (gradient,) = torch.autograd.grad(logits.sum(), leaf)
        assert torch.isfinite(logits).all()
        assert torch.isfinite(gradient).all()

    def test_they_sum_to_one_and_carry_no_graph(self, relu_classifier: Classifier) -> None:
        p = relu_classifier.probabilities(images(3, 32).requires_grad_(True))
        assert not p.requires_grad
        torch.testing.assert_close(p.sum(dim=1), torch.ones(3))

    @given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=4), st.floats(1.01, 5))
    def test_what_is_a_probability(self, rows: list[list[float]], factor: float) -> None:
        p = torch.tensor(rows, dtype=torch.float64).softmax(dim=1)
        assert is_probabilities(p)
        assert not is_probabilities(p * factor)
        assert not is_probabilities(p - 2 / 3)


class _Fails(ReluNet):
    """Fails in the middle of its forward pass, once told to."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.broken:
            raise RuntimeError("the network is on fire")
        return logits


class TestNoTrace:
    def test_a_call(self, toy_classifier: Classifier) -> None:
        scramble(toy_classifier.module)
        x = images(3, toy_classifier.input_size[0]).requires_grad_(True)
        before = x.detach().clone()
        with untouched(toy_classifier.module):
            toy_classifier(x).sum().backward()
        assert torch.equal(x.detach(), before)

    def test_the_making_of_one(self) -> None:
        net = relu_net()
        scramble(net)
        with untouched(net):
            Classifier(net, input_size=32)

    def test_an_exception_inside_forward(self) -> None:
        net = _Fails()
        classifier = Classifier(net, input_size=32)
        scramble(net)
        net.broken = True
        with untouched(net), pytest.raises(ModelError, match="'classifier' fails with RuntimeError: the network is on"):
            classifier(images(3, 32))
        assert not classifier.is_frozen
        net.broken = False
        with untouched(net):
            classifier(images(3, 32))

    def test_an_exception_inside_nested_blocks(self, relu_classifier: Classifier) -> None:
        scramble(relu_classifier.module)
        with untouched(relu_classifier.module):
            with pytest.raises(KeyError), relu_classifier.frozen(), relu_classifier.frozen():
                raise KeyError
            assert not relu_classifier.is_frozen

    def test_an_inner_block_opens_nothing_early(self, relu_classifier: Classifier) -> None:
        net = relu_classifier.module
        net.train()
        with relu_classifier.frozen():
            with relu_classifier.frozen():
                relu_classifier(images(1, 32))
            assert relu_classifier.is_frozen
            assert not any(m.training for m in net.modules())
            assert not any(p.requires_grad for p in net.parameters())
        assert all(m.training for m in net.modules())
        assert all(p.requires_grad for p in net.parameters())

    def test_a_call_runs_in_evaluation_mode_with_frozen_parameters(self) -> None:
        seen: list[tuple[bool, bool]] = []

        class Watched(ReluNet):
            def forward(self, x: Tensor) -> Tensor:
                training = any(m.training for m in self.modules())
                seen.append((training, any(p.requires_grad for p in self.parameters())))
                return super().forward(x)

        classifier = Classifier(Watched().train(), input_size=32)
        classifier(images(2, 32))
        assert seen == [(False, False)] * len(seen)
        assert len(seen) >= 2

    def test_training_and_dropout_change_nothing(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(relu_net(), nn.Dropout(0.9))
        classifier = Classifier(net, input_size=32)
        x = images(4, 32)
        expected = classifier(x)
        net.train()
        assert torch.equal(classifier(x), expected)


class TestNames:
    def test_they_are_numbered_by_default(self, relu_classifier: Classifier) -> None:
        assert relu_classifier.class_names == tuple(f"class {k}" for k in range(CLASSES))
        assert relu_classifier.num_classes == CLASSES

    def test_they_are_kept_as_given(self) -> None:
        names = [f"<b>{k}</b> & co" for k in range(CLASSES)]
        assert _relu(class_names=names).class_names == tuple(names)

    def test_sizes(self) -> None:
        assert _relu().input_size == (32, 32)
        assert _relu().preprocessing.resize == 32
        assert _relu(input_size=(48, 32)).preprocessing.resize == 32
        assert _relu(resize=40).preprocessing.resize == 40


class TestDeviceAndType:
    def test_they_are_the_module_s(self) -> None:
        classifier = Classifier(relu_net().double(), input_size=32)
        assert classifier.dtype == torch.float64
        assert classifier.device == torch.device("cpu")
        assert classifier.to("cpu") is classifier
        assert classifier(images(2, 32, dtype=torch.float64)).dtype == torch.float64

    def test_a_module_without_parameters(self) -> None:
        classifier = Classifier(_Returns(lambda x: x.mean(dim=(2, 3))), input_size=4)
        assert (classifier.dtype, classifier.device) == (torch.float32, torch.device("cpu"))
        assert classifier(torch.rand(2, 3, 4, 4)).shape == (2, 3)


class TestFingerprint:
    def test_equal_modules_have_one(self) -> None:
        assert _relu().fingerprint() == _relu().fingerprint()
        assert len(_relu().fingerprint()) == 64

    def test_neither_modes_nor_use_change_it(self) -> None:
        classifier = _relu()
        before = classifier.fingerprint()
        classifier.module.eval()
        assert classifier.fingerprint() == before
        classifier.module.train()
        classifier(images(2, 32))
        classifier.module.requires_grad_(False)
        assert classifier.fingerprint() == before

    @pytest.mark.parametrize("key", ["features.0.weight", "features.1.running_var", "features.4.bias", "head.bias"])
    def test_one_number_changes_it(self, key: str) -> None:
        classifier = _relu()
        before = classifier.fingerprint()
        with torch.no_grad():
            flat = classifier.module.state_dict()[key].view(-1)
            flat[-1] = torch.nextafter(flat[-1], torch.tensor(9.0))
        assert classifier.fingerprint() != before

    @pytest.mark.parametrize(
        "options",
        [
            {"mean": 0.5},
            {"std": (0.25, 0.25, 0.2)},
            {"input_size": 36},
            {"resize": 36},
            {"crop": "squash"},
            {"interpolation": "bilinear"},
            {"bgr": True},
        ],
        ids=str,
    )
    def test_preprocessing_changes_it(self, options: dict[str, object]) -> None:
        assert _relu(**options).fingerprint() != _relu().fingerprint()

    def test_the_type_changes_it(self) -> None:
        double = Classifier(relu_net().double(), mean=MEAN, std=STD, input_size=32)
        assert double.fingerprint() != _relu().fingerprint()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class TestSameBitsInAnyBatch:
    """An image's logits and input gradient are the same bits, whoever shares its batch (on a CPU)."""

    @pytest.mark.parametrize("toy", ["smooth", "relu", "wide"])
    @given(batch=st.lists(st.integers(0, 8), min_size=1, max_size=9))
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_toys(self, toy: str, batch: list[int]) -> None:
        _compare(_TOYS[toy], images(9, _TOYS[toy].input_size[0]), [batch])

    def test_a_head_on_batches_about_a_kernel_s_limit(self) -> None:
        _compare(_TOYS["wide"], images(49, 16), [list(range(n)) for n in (11, 12, 13, 15, 16, 17, 31, 32, 33)])

    def test_toys_on_two_threads(self, two_threads: None) -> None:
        for toy in _TOYS.values():
            _compare(toy, images(9, toy.input_size[0]), [list(range(n)) for n in range(1, 9)])

    @pytest.mark.real
    def test_efficientnet_on_two_threads(self, efficientnet: Classifier, two_threads: None) -> None:
        _compare(efficientnet, images(5, efficientnet.input_size[0]), [[4], [3, 1], [4, 2, 0]])


class _Wide(nn.Module):
    """A head wide enough for the kernels that large matrices get."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 320, 3, stride=2)
            self.hidden = nn.Linear(320, 257)
            self.head = nn.Linear(257, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.hidden(F.relu(self.conv(x)).mean(dim=(2, 3)))))
        return logits


_TOYS = {
    "smooth": Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16),
    "relu": Classifier(relu_net(), mean=MEAN, std=STD, input_size=32),
    "wide": Classifier(_Wide(), mean=0.5, std=0.25, input_size=16),
}


def _compare(classifier: Classifier, x: Tensor, batches: Sequence[Sequence[int]]) -> None:
    logits, gradients = _logits_and_gradients(classifier, x, torch.arange(len(x)) % classifier.num_classes)
    for batch in batches:
        chosen = torch.tensor(batch)
        some_logits, some_gradients = _logits_and_gradients(classifier, x[chosen], chosen % classifier.num_classes)
        assert torch.equal(some_logits, logits[chosen]), f"logits of {batch} differ"
        assert torch.equal(some_gradients, gradients[chosen]), f"gradients of {batch} differ"


def _logits_and_gradients(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_(True)
    logits = classifier(leaf)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), leaf)
    return logits.detach(), gradient


class TestWhatTheModuleDoes:
    """What a stranger's module may do otherwise than a plain one."""

    def test_channels_are_tried_until_some_fit(self) -> None:
        class Late(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.project, self.stem, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(1, 16, 3), nn.Linear(8, 5)

            def forward(self, x: Tensor) -> Tensor:
                logits: Tensor = self.head(self.project(self.stem(x)).mean(dim=(2, 3)))
                return logits

        assert Classifier(Late(), input_size=8).channels == 1
        grey = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        assert Classifier(grey, mean=(0.13,), std=(0.31,), input_size=8).channels == 1
        colour = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
        assert Classifier(colour, input_size=8).channels == 3

    def test_a_failure_at_any_time_is_one_sentence(self) -> None:
        net = _Fails()
        classifier = Classifier(net, input_size=32)
        net.broken = True
        with pytest.raises(
            ModelError, match=r"^the model 'classifier' fails with RuntimeError: the network is on fire\.$"
        ):
            GRAD(classifier)(images(2, 32), torch.tensor([0, 1]))

    def test_the_modules_own_eval_decides_what_evaluation_mode_is(self) -> None:
        class MonteCarlo(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net, self.drop = relu_net(), nn.Dropout(0.5)

            def train(self, mode: bool = True) -> "MonteCarlo":
                super().train(mode)
                self.drop.train()
                return self

            def forward(self, x: Tensor) -> Tensor:
                logits: Tensor = self.net(self.drop(x))
                return logits

        for net in (MonteCarlo(), MonteCarlo().eval()):
            classifier, x = Classifier(net, input_size=32), images(2, 32)
            modes = [m.training for m in net.modules()]
            assert not torch.equal(classifier(x), classifier(x))
            assert [m.training for m in net.modules()] == modes

    def test_one_that_merges_its_weights_in_evaluation_mode_is_split_again(self) -> None:
        class Merging(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = relu_net()
                self.added = nn.Parameter(torch.ones(10))

            def train(self, mode: bool = True) -> "Merging":
                if mode != self.training:
                    self.net.head.bias.data += -self.added if mode else self.added
                super().train(mode)
                return self

            def forward(self, x: Tensor) -> Tensor:
                logits: Tensor = self.net(x)
                return logits + self.added * self.training

        net, x = Merging(), images(2, 32)
        before = net.net.head.bias.detach().clone()
        merged = Classifier(net, input_size=32)(x)
        torch.testing.assert_close(net.net.head.bias, before)
        torch.testing.assert_close(merged, net.eval()(x))

    def test_autocast_inside_gives_scores_maps_and_attacks_in_the_type_of_the_images(self) -> None:
        class Mixed(ReluNet):
            def forward(self, x: Tensor) -> Tensor:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    return super().forward(x)

        classifier, x, y = Classifier(Mixed(), input_size=32), images(2, 32), torch.tensor([1, 2])
        assert classifier(x).dtype == torch.float32
        for interpreter in (GRAD(classifier), GradCAM(classifier), CAM(classifier)):
            assert interpreter(x, y).dtype == torch.float32
            assert ADV2(interpreter, steps=3)(x, y).x_adv.dtype == torch.float32

    def test_a_compiled_module_is_looked_at_through_the_one_it_was_made_from(self) -> None:
        net = relu_net()
        compiled: Any = torch.compile(net)  # compiles nothing before it is called
        assert Classifier(compiled, input_size=32).module is net

    @pytest.mark.parametrize("compiled", [_compile_all, _compile_a_layer, _compile_a_part])
    def test_a_module_compiled_in_place_shows_its_layers_and_stays_compiled(
        self, compiled: Callable[[ReluNet], nn.Module]
    ) -> None:
        net, x, y = relu_net().eval(), images(3, 32), torch.tensor([1, 2, 3])
        part = compiled(net)
        net(x)  # from now on the code is there, and knows of no hook
        code = (part._compiled_call_impl, part.forward)
        seen, plain = Classifier(net, input_size=32), Classifier(relu_net(), input_size=32)
        wanted = CAM(plain)
        for _ in range(2):
            assert torch.equal(CAM(seen)(x, y), wanted(x, y))
        assert torch.equal(ADV2(CAM(seen), steps=3)(x, y).x_adv, ADV2(wanted, steps=3)(x, y).x_adv)
        assert (part._compiled_call_impl, part.forward) == code

    def test_a_scripted_module_is_attacked(self) -> None:
        classifier = Classifier(torch.jit.trace(relu_net().eval(), images(4, 32)), input_size=32)
        result = PGD(classifier, steps=2)(images(2, 32), torch.tensor([1, 2]))
        assert (result.x_adv != result.x).any()

    def test_a_module_that_was_never_called_is_refused_with_the_weight_that_has_no_shape(self) -> None:
        lazy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5))
        with pytest.raises(InputError, match=r"'2\.weight' has no shape before the first call; call the module once"):
            Classifier(lazy, input_size=8)
        lazy(images(1, 8))
        assert Classifier(lazy, input_size=8).num_classes == 5

    @pytest.mark.parametrize("make", [CAM, LRP])
    def test_what_looks_inside_a_module_that_draws_says_so(self, make: type[Interpreter]) -> None:
        net = nn.Sequential(relu_net(), _Shaking())
        with pytest.raises(InputError, match="draws random numbers"):
            make(Classifier(net, input_size=32))

    def test_weights_that_are_no_plain_tensors_have_no_fingerprint(self) -> None:
        quantised = torch.ao.quantization.quantize_dynamic(relu_net().eval(), {nn.Linear})
        with pytest.raises(InputError, match=r"'head\._packed_params\._packed_params' .*; give the module before"):
            Classifier(quantised, input_size=32).fingerprint()


class TestInferenceMode:
    @pytest.mark.parametrize("make", [CAM, GRAD, GradCAM])
    def test_maps_and_attacks_are_those_outside(self, make: type[Interpreter]) -> None:
        classifier, x, y = Classifier(relu_net(), input_size=32), images(2, 32), torch.tensor([1, 2])
        maps, attacked = make(classifier)(x, y), ADV2(make(classifier), steps=3)(x, y)
        with torch.inference_mode():
            inner_x, inner_y = x.clone(), y.clone()
            assert torch.equal(make(classifier)(x, y), maps)
            assert torch.equal(ADV2(make(classifier), steps=3)(inner_x, inner_y).x_adv, attacked.x_adv)
        assert torch.equal(make(classifier)(inner_x, inner_y), maps)
        assert torch.equal(ADV2(make(classifier), steps=3)(inner_x, inner_y).x_adv, attacked.x_adv)

    def test_a_model_made_there_is_refused_with_the_weight(self) -> None:
        with torch.inference_mode():
            net = relu_net()
            with pytest.raises(InputError, match=r"'features\.0\.weight' was made in torch\.inference_mode"):
                Classifier(net, input_size=32)


class TestThreads:
    def test_results_are_those_of_one_thread_and_flags_come_back(self) -> None:
        """Two wrappers of one module, each call of its own kind, many at a time."""
        net = relu_net()
        scramble(net)
        pair = [Classifier(net, mean=MEAN, std=STD, input_size=32) for _ in range(2)]
        x, y = images(3, 32), torch.tensor([1, 2, 3])

        def work(job: int) -> Tensor:
            classifier, kind = pair[job % 2], job % 5
            if kind == 0:
                return classifier(x[: 1 + job % 3])
            if kind == 1:
                return CAM(classifier)(x, y)  # looks for the features, by hooks
            if kind == 2:
                return GradCAM(classifier)(x, y)
            if kind == 3:
                return PGD(classifier, steps=2)(x, y).x_adv  # copies the module
            return ADV2(GRAD(classifier), steps=2)(x, y).x_adv

        alone = [work(job) for job in range(30)]
        with untouched(net), ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(120)))
        assert [job for job, result in enumerate(found) if not torch.equal(result, alone[job % 30])] == []

    def test_being_inside_a_block_is_said_of_the_thread_that_is(self, relu_classifier: Classifier) -> None:
        with relu_classifier.frozen(), ThreadPoolExecutor(1) as pool:
            assert relu_classifier.is_frozen
            assert not pool.submit(lambda: relu_classifier.is_frozen).result()

    def test_one_that_was_copied_or_sent_has_a_lock_of_its_own(self, relu_classifier: Classifier) -> None:
        twins = copy.deepcopy(relu_classifier), pickle.loads(pickle.dumps(relu_classifier))  # noqa: S301 - our own
        with relu_classifier.frozen(), ThreadPoolExecutor(1) as pool:
            for twin in twins:
                assert pool.submit(twin, images(1, 32)).result().shape == (1, CLASSES)


class TestPhotosAsInputs:
    def test_blue_first(self) -> None:
        seen: list[Tensor] = []

        def remembered(x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean(dim=(2, 3))

        module = _Returns(remembered)
        classifier = Classifier(module, mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2), input_size=8, bgr=True)
        x = images(2, 8)
        classifier(x)
        red, green, blue = x.unbind(1)
        expected = torch.stack([(blue - 0.1) / 0.5, green - 0.2, (red - 0.3) / 2], dim=1)
        torch.testing.assert_close(seen[-1][:2], expected)

    def test_all_of_it_is_one_value(self) -> None:
        options = {"resize": 40, "interpolation": "lanczos", "crop": "squash", "bgr": True}
        told = _relu(**options).preprocessing
        assert {name: getattr(told, name) for name in options} == options
        assert (told.mean, told.std, told.input_size, told.channels) == (MEAN, STD, (32, 32), 3)

    def test_another_input_size_sees_the_same_share(self) -> None:
        told = _relu(resize=40).preprocessing
        assert (told.at((64, 96)).input_size, told.at((64, 96)).resize) == ((64, 96), 80)
        assert (told.enlarged(1.25).input_size, told.enlarged(1.25).resize) == ((40, 40), 50)


def test_a_linear_layer_that_is_given_no_further_rows_returns_what_it_computes() -> None:
    """A view of all rows would be one node more to go back through, for every layer of a transformer."""
    linear, seen = nn.Linear(4, 3), list[Tensor]()
    linear.register_forward_hook(lambda _, __, out: seen.append(out))
    with frozen(linear):
        assert linear(torch.rand(2, 5, 4)) is seen[0]
        assert linear(torch.rand(5, 4)).shape == (5, 3)
    assert seen[1].shape == (16, 3)
