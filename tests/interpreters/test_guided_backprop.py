"""GuidedBackprop against its rule by hand and Captum; its direction is a true vector–Jacobian product."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from torch import Tensor, nn
from torch.nn import functional as F

from support.toys import images, relu_net, smooth_net
from support.traces import untouched
from underfire import ADV2, Classifier, GuidedBackprop, InputError
from underfire.interpreters.clipping import Clipping, double_backward
from underfire.interpreters.gates import WIDTH, guiding
from underfire.interpreters.maps import saliency
from underfire.testing import check_interpreter

Y = torch.tensor([0, 3, 3, 7])

CALLS: dict[str, Callable[[], nn.Module]] = {
    "nn.ReLU": lambda: nn.ReLU(),
    "nn.ReLU inplace": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: _Called(F.relu),
    "torch.relu": lambda: _Called(torch.relu),
    "Tensor.relu": lambda: _Called(lambda z: z.relu()),
    "Tensor.relu_": lambda: _Called(lambda z: z.relu_()),
    "clamp(min=0)": lambda: _Called(lambda z: z.clamp(min=0)),
    "clamp_min": lambda: _Called(lambda z: torch.clamp_min(z, 0)),
    "clamp_": lambda: _Called(lambda z: z.clamp_(min=0)),
    "clip(0)": lambda: _Called(lambda z: torch.clip(z, 0)),
    "nn.Threshold": lambda: nn.Threshold(0, 0),
    "threshold_": lambda: nn.Threshold(0, 0, inplace=True),
    "maximum": lambda: _Called(lambda z: torch.maximum(z, torch.zeros_like(z))),
    "max of zero and it": lambda: _Called(lambda z: torch.max(z.new_zeros(()), z)),
    "where": lambda: _Called(lambda z: torch.where(z > 0, z, 0)),
    "times its gate": lambda: _Called(lambda z: z * (z > 0)),
    "masked_fill": lambda: _Called(lambda z: z.masked_fill(z <= 0, 0)),
    "aten": lambda: _Called(lambda z: torch.ops.aten.relu.default(z)),
}


class _Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


class _Layers(nn.Module):
    """Scores by two rectifiers: H·relu(W₂·relu6(W₁x)), small enough to do by hand."""

    def __init__(self, clip: Callable[[Tensor], Tensor] = F.relu6) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(2)
        self.first, self.second, self.head = (
            nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64))
            for shape in ((20, 48), (15, 20), (10, 15))
        )
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.clip(x.flatten(1) @ self.first.T) @ self.second.T) @ self.head.T


def _net(activation: Callable[[], nn.Module]) -> nn.Module:
    net = relu_net().double().eval()
    net.features[2], net.features[5] = activation(), activation()
    return net


class TestTheRule:
    def test_it_is_the_rule_by_hand(self) -> None:
        net = _Layers()
        x = images(4, 4, dtype=torch.float64)
        a = x.flatten(1) @ net.first.T
        c = a.clamp(0, 6) @ net.second.T
        back = net.head[Y].clamp(min=0) * (c > 0) @ net.second
        wanted = (back.clamp(min=0) * ((a > 0) & (a < 6)) @ net.first).reshape(x.shape)
        assert bool((a > 6).any())
        found = GuidedBackprop(Classifier(net, input_size=4)).signed(x, Y)
        torch.testing.assert_close(found, wanted.detach())

    @pytest.mark.parametrize("call", CALLS)
    def test_captum_has_the_same_however_relu_is_called(self, call: str) -> None:
        classifier = Classifier(_net(CALLS[call]), mean=0.5, std=0.25, input_size=32)
        x = images(4, 32, dtype=torch.float64)
        module = nn.Sequential(_Normalised(), _net(nn.ReLU))
        with pytest.warns(UserWarning, match="hooks"):
            theirs = CaptumGuidedBackprop(module).attribute(x.clone().requires_grad_(), target=Y).detach()
        torch.testing.assert_close(GuidedBackprop(classifier).signed(x, Y), theirs)
        torch.testing.assert_close(GuidedBackprop(classifier)(x, Y), saliency(theirs))

    def test_without_a_rectifier_it_is_the_gradient_of_the_logit(self, smooth_classifier64: Classifier) -> None:
        x = images(4, 16, dtype=torch.float64).requires_grad_()
        chosen = smooth_classifier64(x).gather(1, Y[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, x)
        torch.testing.assert_close(GuidedBackprop(smooth_classifier64).signed(x, Y), gradient)

    def test_an_exported_graph_is_seen_through(self) -> None:
        net, x = smooth_net().eval(), images(4, 16)
        net.features[1] = nn.ReLU()
        many = ({0: torch.export.Dim("n")},)
        exported = torch.export.export(net, (x,), dynamic_shapes=many).module()
        wanted, found = (GuidedBackprop(Classifier(m, input_size=16)).signed(x, Y) for m in (net, exported))
        torch.testing.assert_close(found, wanted)

    @pytest.mark.parametrize(
        "function",
        [
            lambda z: z.clamp(-1, 1),
            lambda z: z.clamp_min(1e-3),
            lambda z: torch.where(z > 1, z, 0),
            lambda z: z * torch.ones_like(z),
            lambda z: torch.maximum(z, 0.1 * z),
        ],
        ids=["clamp", "clamp_min", "where", "times one", "leaky"],
    )
    def test_what_is_no_rectifier_is_differentiated_as_it_is(self, function: Callable[[Tensor], Tensor]) -> None:
        z = torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
        with guiding() as clip, Clipping(clip):
            (found,) = torch.autograd.grad(-function(z).sum(), z)
        (wanted,) = torch.autograd.grad(-function(z).sum(), z)
        assert torch.equal(found, wanted)

    def test_a_hard_sigmoid_is_attacked(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Hardsigmoid(), nn.Flatten(), nn.Linear(6 * 36, 10)).double()
        classifier, x = Classifier(net, input_size=8), images(4, 8, dtype=torch.float64)
        leaf = x.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(net(leaf).gather(1, Y[:, None]).sum(), leaf)
        torch.testing.assert_close(GuidedBackprop(classifier).signed(x, Y), wanted)
        assert ADV2(GuidedBackprop(classifier), steps=2)(x, (Y + 1) % 10).x_adv.shape == x.shape

    def test_a_scripted_module_is_refused(self) -> None:
        scripted = torch.jit.script(smooth_net())
        with pytest.raises(InputError, match="cannot see the ReLUs of 'scripted'"):
            GuidedBackprop(Classifier(scripted, input_size=16, name="scripted"))

    def test_the_class_counts_as_a_call_checks_it(self, relu_classifier: Classifier) -> None:
        with pytest.raises(InputError, match="class 10 does not exist"):
            GuidedBackprop(relu_classifier).signed(images(1, 32), torch.tensor([10]))


class _Normalised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


def _bump(u: Tensor) -> Tensor:
    return 0.5 * WIDTH**2 / (u**2 + WIDTH**2) ** 1.5


class TestTheProduct:
    def test_it_is_the_transposed_jacobian_by_hand(self) -> None:
        """J has a term for each rectifier's gate, J·v another value than Jᵀ·v."""
        net = _Layers()
        x = images(1, 4, dtype=torch.float64)
        draw = torch.Generator().manual_seed(5)
        v = torch.randn(x.shape, generator=draw, dtype=torch.float64)
        with guiding() as clip:
            field, product = double_backward(lambda z: net(z)[:, 3], x, clip)
        found = product(v)
        with torch.no_grad():
            first, second, head = net.first, net.second, net.head
            a = first @ x.flatten()
            gate_a, bend_a = ((a > 0) & (a < 6)).double(), _bump(a) - _bump(a - 6)
            c = second @ a.clamp(0, 6)
            gate_c, bend_c = (c > 0).double(), _bump(c)
            at_d = head[3].clamp(min=0)
            u = second.T @ (at_d * gate_c)
            w = u.clamp(min=0)
            to_c = second @ torch.diag(gate_a) @ first  # ∂c/∂x, by the chain rule: nothing is cut at 0 here
            of_w = torch.diag((u > 0).double()) @ second.T @ torch.diag(at_d * bend_c) @ to_c
            jacobian = first.T @ (torch.diag(w * bend_a) @ first + torch.diag(gate_a) @ of_w)
        torch.testing.assert_close(field.flatten(), first.T @ (w * gate_a))
        torch.testing.assert_close(found.flatten(), jacobian.T @ v.flatten())
        other = jacobian @ v.flatten()
        assert float((found.flatten() - other).abs().max()) > 0.1 * float(other.abs().max())

    def test_it_keeps_the_contract_to_four_digits(self) -> None:
        check_interpreter(GuidedBackprop, tolerance=1e-4)

    def test_a_directional_difference_would_be_another(self) -> None:
        """Where gates stay as they are, what comes back depends on x through smooth layers alone, and exactly so."""
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Sigmoid(), nn.Flatten())
        net.insert(0, nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid()))
        net.append(nn.Linear(6 * 16, 4))
        for index, parameter in enumerate(net.double().requires_grad_(False).parameters()):
            draw = torch.Generator().manual_seed(index)
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) / 2)
        x = images(1, 8, dtype=torch.float64)
        draw = torch.Generator().manual_seed(1)
        v, d = (torch.randn(x.shape, generator=draw, dtype=torch.float64) for _ in range(2))

        def field(z: Tensor) -> Tensor:
            with guiding() as clip:
                return double_backward(lambda z: net(z)[:, 1], z, clip)[0]

        step = 1e-6
        jd = (field(x + step * d) - field(x - step * d)) / (2 * step)
        jv = (field(x + step * v) - field(x - step * v)) / (2 * step)
        assert abs(float((jd * v).sum() - (jv * d).sum())) > 0.1 * abs(float((jd * v).sum()))

    def test_no_trace(self) -> None:
        net = relu_net()
        classifier = Classifier(net, input_size=32)
        x = images(3, 32)
        with untouched(net), classifier.frozen():
            GuidedBackprop(classifier)(x, torch.tensor([0, 1, 2]))
        leaf = torch.tensor([-1.0, 1.0], requires_grad=True)
        assert torch.autograd.grad(F.relu(leaf) @ torch.tensor([-1.0, -1.0]), leaf)[0].tolist() == [0, -1]

    def test_a_rule_ends_with_its_block(self) -> None:
        leaf = torch.tensor([-1.0, 1.0, 2.0], requires_grad=True)
        with guiding() as clip, Clipping(clip):
            out = F.relu(leaf) @ torch.tensor([1.0, -1.0, 1.0])
            (inside,) = torch.autograd.grad(out, leaf, retain_graph=True)
        (after,) = torch.autograd.grad(out, leaf)
        assert (inside.tolist(), after.tolist()) == ([0, 0, 1], [0, -1, 1])
