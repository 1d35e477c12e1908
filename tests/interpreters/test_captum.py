"""Captum's attributions as interpreters: their values, their directions, and what would be silently wrong."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import captum.attr as attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from support.toys import Normalised, images, relu_net, smooth_net
from support.traces import untouched
from underfire import ADV2, CAM, Classifier, GuidedBackprop, InputError
from underfire.interpreters import ForwardPass, MapTarget, gates
from underfire.interpreters.captum import ATTACKABLE, Captum
from underfire.interpreters.clipping import double_backward
from underfire.interpreters.gates import gated_clip
from underfire.interpreters.maps import min_max, saliency, saliency_slope
from underfire.testing import check_interpreter

Make = Callable[..., Captum]
N = 4
Y = torch.tensor([0, 3, 3, 7])
PATCH = {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}
STRIPES = {"feature_mask": (torch.arange(256) // 32).reshape(1, 1, 16, 16)}


def _captum(method: Callable[..., Any], **options: Any) -> Make:
    def make(classifier: Classifier, **further: Any) -> Captum:
        return Captum(classifier, method, options=options, **further)

    return make


def _tunnel(module: nn.Module) -> Any:
    return attr.NoiseTunnel(attr.Saliency(module))


def _black(method: Callable[..., Any], rows: int, **options: Any) -> Make:
    def make(classifier: Classifier, **further: Any) -> Captum:
        black = torch.zeros(rows, 3, *classifier.input_size, dtype=classifier.dtype)
        return Captum(classifier, method, options={"baselines": black, **options}, **further)

    return make


MAKERS: Mapping[str, Make] = {
    "Saliency": _captum(attr.Saliency),
    "InputXGradient": _captum(attr.InputXGradient),
    "IntegratedGradients": _captum(attr.IntegratedGradients, n_steps=6),
    "IntegratedGradients in chunks": _captum(attr.IntegratedGradients, n_steps=6, internal_batch_size=8),
    "DeepLift": _captum(attr.DeepLift),
    "DeepLiftShap": _black(attr.DeepLiftShap, 3),
    "GradientShap": _black(attr.GradientShap, 1, n_samples=3),
    "GuidedBackprop": _captum(attr.GuidedBackprop),
    "Deconvolution": _captum(attr.Deconvolution),
    "LayerGradCam": _captum(attr.LayerGradCam),
    "LayerGradientXActivation": _captum(attr.LayerGradientXActivation),
    "LayerIntegratedGradients": _captum(attr.LayerIntegratedGradients, n_steps=6),
    "LayerConductance": _captum(attr.LayerConductance, n_steps=6),
    "LayerDeepLift": _captum(attr.LayerDeepLift),
    "Occlusion": _captum(attr.Occlusion, **PATCH),
    "FeatureAblation": _captum(attr.FeatureAblation, **STRIPES),
    "NoiseTunnel": _captum(_tunnel, nt_samples=3, stdevs=0.1, abs=False),
    "NoiseTunnel, variance": _captum(_tunnel, nt_samples=3, stdevs=0.1, nt_type="vargrad"),
}
every = pytest.mark.parametrize("name", MAKERS)


def _toy(net: nn.Module, size: int) -> Classifier:
    return Classifier(net.double(), mean=0.5, std=0.25, input_size=size, name="toy")


def _relu_net() -> nn.Module:
    """Without layers that work in place, which Captum's hooks do not take by themselves."""
    net = relu_net()
    net.features[2], net.features[5] = nn.ReLU(), nn.ReLU()
    return net


class TestContract:
    @every
    def test_what_is_listed_keeps_it_to_four_digits(self, name: str) -> None:
        check_interpreter(MAKERS[name], tolerance=1e-4)

    def test_the_list_is_what_is_checked(self) -> None:
        assert {name.split(" ")[0].rstrip(",") for name in MAKERS} == ATTACKABLE

    @every
    def test_a_batch_split_is_the_whole_to_the_bit(self, name: str) -> None:
        classifier, x = Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16), images(5, 16)
        y, keys = torch.tensor([0, 3, 3, 7, 9]), list("abcde")
        if "chunks" in name:
            pytest.skip("how the path is divided into chunks depends on the batch, and so does the order of the sum")
        g = MAKERS[name](classifier)
        whole = g(x, y, keys=keys)
        for rows in ([0], [1, 2], [4, 3]):
            assert torch.equal(g(x[rows], y[rows], keys=[keys[i] for i in rows]), whole[rows])


class _GraphKept(TorchFunctionMode):
    """What is commonly done: gradients are differentiable, and all else is left as Captum has it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        return func(*args, **(named | {"create_graph": True} if func is torch.autograd.grad else named))


class TestWhatWouldBeSilentlyWrong:
    @pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients", "DeepLift", "Occlusion"])
    def test_captum_as_it_is_fails_the_suite(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """InputXGradient lacks a term, IG its path, Occlusion its first look; others give no direction at all."""
        monkeypatch.setattr("underfire.interpreters.captum.Attached", nullcontext)
        with pytest.raises(AssertionError, match="differs from finite differences"):
            check_interpreter(MAKERS[name])

    @pytest.mark.parametrize("name", ["DeepLift", "GuidedBackprop", "Occlusion"])
    def test_keeping_the_graph_of_gradients_alone_fails_it_too(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was detached stays so, and hooks change the second way back as they did the first."""
        monkeypatch.setattr("underfire.interpreters.captum.Attached", _GraphKept)
        with pytest.raises((AssertionError, RuntimeError), match=r"differs from finite differences|A Module"):
            check_interpreter(MAKERS[name])


class TestValues:
    @pytest.mark.parametrize("net", [smooth_net, _relu_net])
    @pytest.mark.parametrize("method", [attr.Saliency, attr.InputXGradient, attr.GuidedBackprop, attr.DeepLift])
    def test_they_are_captum_s(self, net: Callable[[], nn.Module], method: Any) -> None:
        size = 16 if net is smooth_net else 32
        x = images(N, size, dtype=torch.float64)
        theirs = method(Normalised(net().double()).eval()).attribute(x.clone().requires_grad_(), target=Y).detach()
        torch.testing.assert_close(Captum(_toy(net(), size), method)(x, Y), saliency(theirs), rtol=1e-9, atol=1e-12)

    def test_those_of_a_layer_are_summed_and_signed(self) -> None:
        x = images(N, 32, dtype=torch.float64)
        classifier = _toy(relu_net(), 32)
        torch.testing.assert_close(Captum(classifier, attr.LayerGradCam)(x, Y), CAM(classifier)(x, Y))
        module = Normalised(_relu_net().double()).eval()
        theirs = attr.LayerGradientXActivation(module, module.get_submodule("net.features.2")).attribute(x, target=Y)
        ours = Captum(classifier, attr.LayerGradientXActivation, layer="features.2")
        assert ours.grid == (16, 16)
        torch.testing.assert_close(ours(x, Y), min_max(theirs.sum(dim=1).detach()))

    def test_noise_belongs_to_the_image_and_the_seed(self) -> None:
        classifier, x = _toy(smooth_net(), 16), images(N, 16, dtype=torch.float64)
        make = MAKERS["NoiseTunnel"]
        whole = make(classifier)(x, Y, keys=list("abcd"))
        again = make(classifier)(x[[2]], Y[[2]], keys=["c"])
        assert torch.equal(again, whole[[2]])
        assert not torch.equal(make(classifier, seed=1)(x, Y, keys=list("abcd")), whole)
        assert not torch.equal(make(classifier)(x, Y, keys=list("abce")), whole)


def _direction(classifier: Classifier, method: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The direction at ``x`` of an objective at the maps of others, and these."""
    g = Captum(classifier, method)
    target = g(x, Y).roll(1, dims=0)
    with classifier.frozen():
        return g.objective(MapTarget(Y, target, tuple("abcd"), 0))(ForwardPass(classifier, x)).direction, target


class TestDirections:
    @pytest.mark.parametrize("method", [attr.Saliency, attr.InputXGradient])
    def test_through_relus_they_are_those_of_gates_with_a_derivative(self, method: Any) -> None:
        classifier, x = _toy(_relu_net(), 32), images(N, 32, dtype=torch.float64)
        found, target = _direction(classifier, method, x)
        with classifier.frozen():
            g, product = double_backward(lambda z: classifier.scores(z).gather(1, Y[:, None]).squeeze(1), x, gated_clip)
        factor = x if method is attr.InputXGradient else torch.ones_like(x)
        slope = saliency_slope(factor * g, target)[2]
        wanted = product(factor * slope) + (g * slope if method is attr.InputXGradient else 0)
        torch.testing.assert_close(found, wanted)

    def test_hooks_on_the_way_back_change_nothing_on_the_way_back_through_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Captum's hook cuts what comes back below the gate, ours above: the same values, another derivative."""

        def cut_below(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
            coming = gates._through_gate(ctx, grads[0])
            return F.relu(coming) if ctx.rule.holds else coming, None, None, None

        monkeypatch.setattr(gates._GuidedClip, "backward", staticmethod(cut_below))
        classifier, x = _toy(_relu_net(), 32), images(N, 32, dtype=torch.float64)
        found, target = _direction(classifier, attr.GuidedBackprop, x)
        with classifier.frozen():
            objective = GuidedBackprop(classifier).objective(MapTarget(Y, target, tuple("abcd"), 0))
            torch.testing.assert_close(found, objective(ForwardPass(classifier, x)).direction)

    def test_deeplift_s_is_a_gradient_where_relus_are_too(self) -> None:
        """Its rule for a ReLU is a quotient of differences, which moves with the image."""
        classifier, x = _toy(_relu_net(), 32), images(N, 32, dtype=torch.float64)
        g = Captum(classifier, attr.DeepLift)
        task = MapTarget(Y, g(x, Y).roll(1, dims=0), tuple("abcd"), 0)

        def pull(z: Tensor) -> Any:
            with classifier.frozen():
                return g.objective(task)(ForwardPass(classifier, z))

        d = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        step = 1e-8
        slope = (pull(x + step * d).loss - pull(x - step * d).loss) / (2 * step)
        torch.testing.assert_close((pull(x).direction * d).sum(dim=(1, 2, 3)), slope, rtol=1e-3, atol=1e-6)

    def test_an_attack_brings_the_map_nearer(self) -> None:
        classifier = Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16)
        g, x = Captum(classifier, attr.InputXGradient), images(N, 16)
        target = classifier(x).argsort(dim=1)[:, -2]
        result = ADV2(g, steps=40, eps=16 / 255)(x, target)
        before = (g(x, target) - result.target_maps[g.name]).abs().mean(dim=(1, 2))
        after = (result.maps[g.name] - result.target_maps[g.name]).abs().mean(dim=(1, 2))
        assert bool(result.success.all())
        assert float(after.mean()) < 0.6 * float(before.mean())


class TestWhatIsNotAttackable:
    def test_it_explains_and_refuses_to_be_attacked(self) -> None:
        classifier, x = Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16), images(2, 16)
        g = Captum(classifier, attr.ShapleyValueSampling, options={"n_samples": 2, **STRIPES})
        assert not g.attackable
        assert g(x, Y[:2]).shape == (2, 4, 4)
        with pytest.raises(InputError, match="captum-shapleyvaluesampling is not known to give an attack its true"):
            ADV2(g, steps=5)(x, Y[:2])

    def test_what_is_inside_a_noise_tunnel_counts(self) -> None:
        class Own(attr.Saliency):  # type: ignore[misc]
            pass

        classifier = _toy(smooth_net(), 16)
        options = {"nt_samples": 2, "stdevs": 0.1}
        assert Captum(classifier, lambda f: attr.NoiseTunnel(attr.Saliency(f)), options=options).attackable
        assert not Captum(classifier, lambda f: attr.NoiseTunnel(Own(f)), options=options).attackable

    def test_a_wrong_promise_is_caught(self) -> None:
        with pytest.raises(AssertionError, match="differs from finite differences"):
            check_interpreter(lambda c: Captum(c, attr.ShapleyValueSampling, options={"n_samples": 2, **STRIPES},
                attackable=True))  # fmt: skip


class TestTraces:
    @pytest.mark.parametrize("name", ["DeepLift", "GuidedBackprop", "LayerGradCam", "NoiseTunnel"])
    def test_none_where_it_fails_on_the_way(self, name: str) -> None:
        net = relu_net()
        classifier = Classifier(net, input_size=32)
        options: dict[str, Any] = dict(MAKERS[name](classifier)._call.options)
        state = np.random.get_state(legacy=False)["state"]["pos"]
        with untouched(net):
            g = MAKERS[name](classifier)
            g(images(2, 32), Y[:2])
            with pytest.raises(InputError, match="cannot explain 'classifier'"):
                Captum(classifier, attr.DeepLift, options={"baselines": torch.zeros(7, 1, 2)} | options | {"no": 1})
        assert np.random.get_state(legacy=False)["state"]["pos"] == state
        assert net.features[2].inplace
        assert not hasattr(net.features[2], "input")

    def test_passes_are_counted(self) -> None:
        classifier = _toy(smooth_net(), 16)
        passes = {name: MAKERS[name](classifier).passes_per_map for name in ("Saliency", "IntegratedGradients")}
        passes |= {name: MAKERS[name](classifier).passes_per_map for name in ("DeepLift", "Occlusion")}
        assert passes == {"Saliency": 1, "IntegratedGradients": 6, "DeepLift": 2, "Occlusion": 17}


class TestRefusals:
    def test_captum_is_an_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
        with pytest.raises(InputError, match=r"needs the package captum, .* install underfire\[captum\]"):
            Captum(_toy(smooth_net(), 16), lambda f: f)

    def test_there_must_be_such_a_layer(self) -> None:
        with pytest.raises(InputError, match="layer 'layer4' is none of 'toy'"):
            Captum(_toy(smooth_net(), 16), attr.LayerGradCam, layer="layer4")

    def test_a_convolution_whose_norm_is_folded_is_not_attacked(self) -> None:
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        net.append(nn.Linear(6, 5))
        assert isinstance(net[1], nn.BatchNorm2d)
        net[1].running_var = torch.full((6,), 0.1)
        classifier = _toy(net.eval(), 16)
        x, y = images(2, 16).double(), torch.tensor([0, 1])
        for layer, refused in (("0", True), ("1", False), ("2", False)):
            g = Captum(classifier, attr.LayerGradCam, layer=layer)
            if refused:
                with pytest.raises(InputError, match=r"cannot be attacked at the layer '0': .* give the layer after"):
                    ADV2(g, steps=2)(x, y)
            else:
                ADV2(g, steps=2)(x, y)

    def test_what_is_no_map_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"layer 'head' of 'toy' is no picture: its shape is \(4, 10\)"):
            Captum(_toy(smooth_net(), 16), attr.LayerGradientXActivation, layer="head")
        with pytest.raises(InputError, match="has no activation whose cells change where the image does"):
            Captum(_flat(), attr.LayerGradCam)

    def test_names(self) -> None:
        classifier = _toy(smooth_net(), 16)
        assert Captum(classifier, attr.Saliency).name == "captum-saliency"
        assert Captum(classifier, attr.Saliency, name="mine").name == "mine"
        assert MAKERS["NoiseTunnel"](classifier).name == "captum-noisetunnel"


def _flat() -> Classifier:
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), input_size=8)
