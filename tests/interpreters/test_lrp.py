"""LRP against closed forms, conservation and Zennit; its direction is a true vector–Jacobian product."""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles.subjects import CONVOLUTIONAL, MEAN, SIZE, STD, cells, convolutional, pictures
from oracles.zennit_lrp import FIGURES, SETTINGS, zennit_relevance
from support.toys import images, relu_net, smooth_net
from support.traces import untouched
from underfire import ADV2, LRP, PGD, Classifier, InputError, attribution_gradient
from underfire.interpreters.maps import saliency
from underfire.models.folded import prepared
from underfire.testing import check_interpreter

Y = torch.tensor([0, 3, 3, 7])
X32 = images(4, 32, dtype=torch.float64)


def _weights(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class _Net(nn.Module):
    """Any function of images, with weights for it."""

    def __init__(self, function: Callable[..., Tensor], *weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


def _classifier(function: Callable[..., Tensor], *weights: Tensor, size: int = 4) -> Classifier:
    return Classifier(_Net(function, *weights).double(), input_size=size, name="made")


def _read_out(z: Tensor, head: Tensor) -> Tensor:
    return F.linear(z.flatten(1), head)


class TestZennit:
    @pytest.mark.parametrize("setting", SETTINGS)
    @pytest.mark.parametrize("net", CONVOLUTIONAL)
    def test_it_has_the_same(self, net: str, setting: str, torchvision: ModuleType) -> None:
        x, y = pictures()
        classifier = Classifier(convolutional(net, torchvision), mean=MEAN, std=STD, input_size=SIZE)
        found = LRP(classifier, **SETTINGS[setting]).signed(x, y)
        wanted = torch.tensor(json.loads(FIGURES.read_text())[net][setting], dtype=torch.float64).reshape(3, 4, 4)
        assert float((cells(found) - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
        if find_spec("zennit") is not None:
            theirs = zennit_relevance(net, setting, torchvision)
            assert float((found - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


class TestTheRules:
    def test_without_biases_all_of_the_logit_comes_to_the_pixels(self) -> None:
        net = relu_net().double().eval()
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                nn.init.zeros_(module.running_mean)
        classifier = Classifier(net, mean=0.5, std=0.25, input_size=32)
        logits = classifier(X32).gather(1, Y[:, None]).squeeze(1)
        for options in ({"gamma": 0, "box": False}, {"box": False}, {}):
            found = LRP(classifier, **options).signed(X32, Y).sum(dim=(1, 2, 3))
            torch.testing.assert_close(found, logits.detach(), rtol=1e-4, atol=1e-5)

    def test_epsilon_by_hand(self) -> None:
        w, b, head, x = _weights(6, 48), _weights(6, seed=1), _weights(5, 6, seed=2), images(2, 4).double()
        classifier = _classifier(lambda x, w, b, head: F.linear(F.linear(x.flatten(1), w, b).relu(), head), w, b, head)
        z = x.flatten(1) @ w.T + b
        a, y = z.relu(), torch.tensor([1, 4])
        logit = (a * head[y]).sum(dim=1, keepdim=True)
        of_a = a * head[y] / (logit + 0.3 * logit.sign()) * logit
        of_x = x.flatten(1) * ((of_a / (z + 0.3 * z.sign())) @ w)
        found = LRP(classifier, epsilon=0.3).signed(x, y)
        torch.testing.assert_close(found, of_x.reshape(x.shape).detach())

    def test_gamma_by_hand_for_inputs_and_outputs_of_either_sign(self) -> None:
        """A 1×1 convolution of tanh of the pixels, whose relevance is that of the sum of its outputs times a head."""
        w, b, head, x = _weights(4, 3), _weights(4, seed=1), _weights(5, 4 * 16, seed=2), images(2, 4).double()

        def net(x: Tensor, w: Tensor, b: Tensor, head: Tensor) -> Tensor:
            return _read_out(F.conv2d((4 * (x - 0.5)).tanh(), w[:, :, None, None], b), head)

        y, t = torch.tensor([1, 4]), (4 * (x - 0.5)).tanh()
        z = torch.einsum("nchw,kc->nkhw", t, w) + b[:, None, None]
        each = torch.einsum("nchw,kc->nkchw", t, w)
        up = z[:, :, None] > 0
        share = each + 0.25 * torch.where(up, each.clamp(min=0), each.clamp(max=0))
        bias = b[:, None, None] + 0.25 * torch.where(
            up[:, :, 0], b.clamp(min=0)[:, None, None], b.clamp(max=0)[:, None, None]
        )
        of_z = z * head[y].reshape(z.shape)
        of_t = (share / (share.sum(dim=2) + bias)[:, :, None] * of_z[:, :, None]).sum(dim=1)
        of_x = of_t * x / (x - 0.5)  # the constant takes the rest
        assert bool((z > 0).any() and (z < 0).any() and (t < 0).any())
        found = LRP(_classifier(net, w, b, head), box=False).signed(x, y)
        torch.testing.assert_close(found, of_x.detach())

    @pytest.mark.parametrize("before", [lambda x: x, lambda x: 1 - x, lambda x: (x.flip(1) - 0.4) / 0.3])
    def test_bounded_pixels_by_hand_whatever_affine_comes_before(self, before: Callable[[Tensor], Tensor]) -> None:
        w, head, x = _weights(6, 3, 3, 3), _weights(5, 6 * 16, seed=2), images(2, 4).double()

        def net(x: Tensor, w: Tensor, head: Tensor) -> Tensor:
            return _read_out(F.conv2d(before(x), w, padding=1).relu(), head)

        y = torch.tensor([1, 4])
        low, high = (before(torch.full_like(x, end)) for end in (0, 1))
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        up, down = w.clamp(min=0), w.clamp(max=0)
        z = F.conv2d(before(x), w, padding=1)
        total = z - F.conv2d(low, up, padding=1) - F.conv2d(high, down, padding=1)
        share = z.relu() * head[y].reshape(z.shape) / total

        def back(weight: Tensor) -> Tensor:
            return F.conv_transpose2d(share, weight, padding=1)

        wanted = before(x) * back(w) - low * back(up) - high * back(down)
        wanted = wanted.flip(1) if "flip" in before.__code__.co_names else wanted
        found = LRP(_classifier(net, w, head)).signed(x, y)
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-6)

    def test_a_gate_gets_none_and_two_factors_share(self) -> None:
        head, x, y = _weights(5, 48), images(2, 4).double(), torch.tensor([1, 4])

        def relevance(net: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
            classifier = _classifier(lambda x, head: _read_out(net(x), head), head)
            return LRP(classifier).signed(x, y), net(x) * head[y].reshape(x.shape)

        torch.testing.assert_close(*relevance(lambda x: x * (x - 0.5).sigmoid()))
        torch.testing.assert_close(*relevance(lambda x: x * (2 * x)))
        found, whole = relevance(lambda x: x * (x.mean(dim=(2, 3), keepdim=True) / 2))
        of_mean = x / x.mean(dim=(2, 3), keepdim=True) * whole.mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(found, 0.5 * (whole + of_mean))

    @pytest.mark.parametrize(
        "function",
        [
            *(F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.mish, F.leaky_relu, F.elu, F.softsign, torch.tanh),
            *(lambda z: F.gelu(z, approximate="tanh"), lambda z: F.relu(z, inplace=True), lambda z: z.clamp(min=0)),
        ],
    )
    def test_an_activation_hands_on_what_comes(self, function: Callable[[Tensor], Tensor]) -> None:
        head, x, y = _weights(5, 48), images(2, 4).double(), torch.tensor([1, 4])
        found = LRP(_classifier(lambda x, head: _read_out(function(7 * x), head), head)).signed(x, y)
        torch.testing.assert_close(found, function(7 * x) * head[y].reshape(x.shape))

    @pytest.mark.parametrize(
        "norm",
        [
            lambda z: F.layer_norm(z, (4, 4)),
            lambda z: F.group_norm(z, 3),
            lambda z: F.rms_norm(z, (4, 4)),
            lambda z: z * (z.pow(2).mean(dim=(2, 3), keepdim=True) + 1e-5).rsqrt(),
            lambda z: F.normalize(z, dim=1),
        ],
    )
    def test_a_norm_conserves_relevance(self, norm: Callable[[Tensor], Tensor]) -> None:
        head, x, y = _weights(5, 48), images(2, 4).double(), torch.tensor([1, 4])
        classifier = _classifier(lambda x, head: _read_out(norm(x), head), head)
        logits = classifier(x).gather(1, y[:, None]).squeeze(1)
        torch.testing.assert_close(LRP(classifier).signed(x, y).sum(dim=(1, 2, 3)), logits.detach())

    def test_a_model_that_takes_blue_first_has_the_same(self) -> None:
        w, head, x, y = _weights(6, 3, 3, 3), _weights(5, 96, seed=2), images(2, 4).double(), torch.tensor([1, 4])

        def made(flipped: int) -> Classifier:
            kernel = w.flip(1) if flipped == -1 else w
            net = _Net(lambda x, w, head: _read_out(F.conv2d(x, w, padding=1).relu(), head), kernel, head)
            mean, std = [0.2, 0.4, 0.6][::flipped], [0.1, 0.2, 0.3][::flipped]
            return Classifier(net.double(), mean=mean, std=std, input_size=4, bgr=flipped == -1)

        for options in ({}, {"box": False}):
            wanted, found = (LRP(made(flipped), **options).signed(x, y) for flipped in (1, -1))
            torch.testing.assert_close(found, wanted)

    def test_padding_same_of_an_even_kernel(self) -> None:
        w, head, x, y = _weights(6, 3, 2, 2), _weights(5, 96, seed=2), images(2, 4).double(), torch.tensor([1, 4])
        same = _classifier(lambda x, w, head: _read_out(F.conv2d(x, w, padding="same").relu(), head), w, head)
        own = _classifier(lambda x, w, head: _read_out(F.conv2d(F.pad(x, (0, 1, 0, 1)), w).relu(), head), w, head)
        torch.testing.assert_close(LRP(same).signed(x, y), LRP(own).signed(x, y))


class TestTheModel:
    def test_the_copy_that_attacks_work_on_has_the_same(self) -> None:
        classifier = Classifier(relu_net().double(), mean=0.5, std=0.25, input_size=32)
        copied = prepared(classifier)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in copied.module.modules())
        torch.testing.assert_close(LRP(copied).signed(X32, Y), LRP(classifier).signed(X32, Y))

    def test_rows_are_the_same_in_any_batch(self, relu_classifier: Classifier) -> None:
        x, interpreter = images(4, 32), LRP(relu_classifier)
        assert torch.equal(interpreter(x, Y)[1:3], interpreter(x[1:3], Y[1:3]))

    @pytest.mark.parametrize(
        ("function", "named"),
        [
            (lambda z: z.softmax(dim=1), "'softmax'"),
            (lambda z: F.scaled_dot_product_attention(z, z, z), "'scaled_dot_product_attention'.*attnlrp"),
            (lambda z: z / (1 + z.mean()), "a division by what carries relevance"),
            (lambda z: z.exp(), "'exp'"),
            (lambda z: z.sort(dim=1).values.cumsum(dim=1), "'sort'"),
            (lambda z: _hidden(z), "autograd.Function"),
            (lambda z: z.sigmoid(), "gates alone"),
        ],
    )
    def test_what_has_no_rule_is_named(self, function: Callable[[Tensor], Tensor], named: str) -> None:
        classifier = _classifier(lambda x, head: _read_out(function(x), head), _weights(5, 48))
        with pytest.raises(InputError, match=named):
            LRP(classifier)
        assert "made" in (LRP.available(classifier) or "")

    def test_a_scripted_module_is_refused(self) -> None:
        assert "scripted" in (LRP.available(Classifier(torch.jit.script(smooth_net()), input_size=16)) or "")

    def test_what_works_in_place_behind_our_back_is_refused(self) -> None:
        def net(x: Tensor, head: Tensor) -> Tensor:
            z = 2 * x - 1
            F.relu_(z)
            return _read_out(z, head)

        with pytest.raises(InputError, match="works in place"):
            LRP(_classifier(net, _weights(5, 48)))

    @pytest.mark.parametrize("options", [{"epsilon": -1.0}, {"gamma": math.nan}, {"gamma": math.inf}])
    def test_settings_are_checked(self, options: dict[str, Any], relu_classifier: Classifier) -> None:
        with pytest.raises(InputError, match="is not a number from 0"):
            LRP(relu_classifier, **options)

    def test_no_trace(self) -> None:
        net = relu_net()
        classifier = Classifier(net, input_size=32)
        with untouched(net), classifier.frozen():
            found = LRP(classifier)
            maps = found(images(3, 32), Y[:3])
        torch.testing.assert_close(maps, saliency(found.signed(images(3, 32), Y[:3])))


def _hidden(z: Tensor) -> Tensor:
    out: Tensor = _Hidden.apply(z)  # type: ignore[no-untyped-call]
    return out


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class TestTheAttack:
    @pytest.mark.parametrize("options", [{}, {"gamma": 0.0, "box": False, "epsilon": 0.25}])
    def test_it_keeps_the_contract_to_four_digits(self, options: dict[str, Any]) -> None:
        check_interpreter(lambda classifier: LRP(classifier, **options), tolerance=1e-4)

    def test_where_a_layer_gets_nothing_the_direction_is_finite(self) -> None:
        """There the γ rule shares 0 by 0, and the derivative of the shares has the square of that below."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = (nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU())
            net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 12 * 12, 5))
        g, x = LRP(Classifier(net, input_size=16)), images(2, 16)
        x[:, :, :9] = 0
        product = attribution_gradient(g, x, torch.tensor([0, 1]), torch.full((2, *g.grid), 1e3))
        assert torch.isfinite(product).all()
        assert bool(product[:, :, 9:].any())

    def test_adv2_brings_the_map_back(self, relu_classifier: Classifier) -> None:
        x, target = images(4, 32), torch.tensor([1, 4, 5, 2])
        interpreter = LRP(relu_classifier)
        own = interpreter(x, relu_classifier(x).argmax(dim=1))
        moved = ADV2(interpreter, eps=16 / 255, passes=300)(x, target, target_map=own)
        alone = PGD(interpreter.classifier, eps=16 / 255)(x, target)
        reached, drifted = ((interpreter(found.x_adv, target) - own).abs().mean(dim=(1, 2)) for found in (moved, alone))
        assert bool(moved.success.all() and alone.success.all())
        assert float(reached.mean()) < 0.6 * float(drifted.mean())
