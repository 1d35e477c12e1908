"""Second derivatives through smoothed kinks: values as they were, slopes as defined, the exact derivative of those."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from support.nets import linear_classifier
from support.toys import images, relu_net
from support.traces import untouched
from underfire import Classifier, ModelError
from underfire.attacks.smoothed import TAU, rectifier_slope, smoothed_clip
from underfire.interpreters.clipping import Clipping, double_backward

CLIPS: dict[str, tuple[Callable[[Tensor], Any], float, float]] = {
    "nn.ReLU": (nn.ReLU(), 0, math.inf),
    "nn.ReLU inplace": (nn.ReLU(inplace=True), 0, math.inf),
    "nn.ReLU6": (nn.ReLU6(), 0, 6),
    "nn.ReLU6 inplace": (nn.ReLU6(inplace=True), 0, 6),
    "nn.Hardtanh": (nn.Hardtanh(-2, 0.5), -2, 0.5),
    "nn.Hardtanh inplace": (nn.Hardtanh(inplace=True), -1, 1),
    "F.relu": (F.relu, 0, math.inf),
    "F.relu by name": (lambda z: F.relu(input=z), 0, math.inf),
    "F.relu inplace": (lambda z: F.relu(z, inplace=True), 0, math.inf),
    "F.relu6": (F.relu6, 0, 6),
    "F.relu6 inplace": (lambda z: F.relu6(z, True), 0, 6),
    "F.hardtanh": (lambda z: F.hardtanh(z, max_val=3.0), -1, 3),
    "F.hardtanh inplace": (lambda z: F.hardtanh(z, -1.0, 3.0, True), -1, 3),
    "F.hardtanh_": (F.hardtanh_, -1, 1),
    "torch.relu": (torch.relu, 0, math.inf),
    "torch.relu_": (torch.relu_, 0, math.inf),
    "Tensor.relu": (lambda z: z.relu(), 0, math.inf),
    "Tensor.relu_": (lambda z: z.relu_(), 0, math.inf),
    "an in-place call whose result is dropped": (lambda z: (F.relu(z, inplace=True), z)[1], 0, math.inf),
}
clips = pytest.mark.parametrize("name", list(CLIPS))


def _values() -> Tensor:
    near = torch.tensor([-1e-3, -1e-9, 0.0, 1e-9, 1e-3, 6 - 1e-3, 6.0, 6 + 1e-3, 1e6, -1e6], dtype=torch.float64)
    return torch.cat([near, torch.linspace(-7, 9, 41, dtype=torch.float64)])


def _slope(z: float, low: float, high: float) -> float:
    """The factor by its definition, one number at a time."""

    def of_rectifier(u: float) -> float:
        ratio = u / math.sqrt(u * u + 1e-4)
        return 1 + ratio if u < 0 else ratio

    return of_rectifier(z - low) - (0.0 if math.isinf(high) else of_rectifier(z - high))


class TestClips:
    @clips
    def test_values_stay_to_the_bit(self, name: str) -> None:
        call, _, _ = CLIPS[name]
        plain = call(_values())
        with Clipping(smoothed_clip):
            inside = call(_values())
        assert torch.equal(inside, plain)

    @clips
    def test_the_slope_is_the_smoothed_one(self, name: str) -> None:
        call, low, high = CLIPS[name]
        leaf = _values().requires_grad_()
        with Clipping(smoothed_clip):
            out = call(leaf * 1)
        (slope,) = torch.autograd.grad(out.sum(), leaf)
        wanted = torch.tensor([_slope(float(z), low, high) for z in leaf.detach()], dtype=torch.float64)
        torch.testing.assert_close(slope, wanted, rtol=0, atol=1e-12)

    @clips
    def test_outside_the_block_nothing_is_smoothed(self, name: str) -> None:
        call, _, _ = CLIPS[name]
        with Clipping(smoothed_clip):
            call(_values())
        leaf = _values().requires_grad_()
        (slope,) = torch.autograd.grad(call(leaf * 1).sum(), leaf)
        assert set(slope.tolist()) == {0.0, 1.0}

    def test_in_place_means_in_place(self) -> None:
        z = _values()
        with Clipping(smoothed_clip):
            assert F.relu(z, inplace=True) is z
            assert torch.equal(z, _values().relu())

    @given(st.floats(-50, 50), st.floats(-2, 2), st.floats(0.1, 8))
    def test_the_second_derivative_is_the_slope_of_the_slope(self, z: float, low: float, width: float) -> None:
        high = low + width
        leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(smoothed_clip(leaf, low, high), leaf, create_graph=True)
        (second,) = torch.autograd.grad(slope, leaf)
        closed = sum(s * TAU / ((z - kink) ** 2 + TAU) ** 1.5 for kink, s in ((low, 1), (high, -1)))
        assert float(second) == pytest.approx(closed, rel=1e-6, abs=1e-9)

    @given(st.floats(-1e3, 1e3))
    def test_the_slope_lies_between_0_and_1_and_is_that_of_a_relu_far_from_the_kink(self, z: float) -> None:
        slope = float(rectifier_slope(torch.tensor(z, dtype=torch.float64)))
        assert 0 <= slope <= 1
        if abs(z) > 1:
            assert slope == pytest.approx(float(z > 0), abs=1e-4)


class _OneLayer(nn.Module):
    """Scores a·clip(W x + b): what enters the clips is linear in x, so the smoothed slopes are a field of their own."""

    def __init__(self, clip: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.w = torch.randn(40, 12, generator=draw, dtype=torch.float64) * 2
        self.b = torch.randn(40, generator=draw, dtype=torch.float64) + 1
        self.a = torch.randn(40, generator=draw, dtype=torch.float64)
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.clip(x.flatten(1) @ self.w.T + self.b) @ self.a
        return scores


class TestDoubleBackward:
    @pytest.mark.parametrize("name", ["nn.ReLU", "nn.ReLU6", "nn.Hardtanh"])
    def test_it_is_the_exact_derivative_of_the_smoothed_gradients(self, name: str) -> None:
        net = _OneLayer(CLIPS[name][0])
        draw = torch.Generator().manual_seed(1)
        x = torch.rand(3, 3, 2, 2, generator=draw, dtype=torch.float64)
        v, d = (torch.randn(x.shape, generator=draw, dtype=torch.float64) for _ in range(2))
        _, product = double_backward(net, x, smoothed_clip)
        found = (product(v) * d).sum(dim=(1, 2, 3))
        step = 1e-7
        ahead, behind = (double_backward(net, x + s * d, smoothed_clip)[0] for s in (step, -step))
        wanted = ((ahead - behind) * v).sum(dim=(1, 2, 3)) / (2 * step)
        assert float(wanted.abs().min()) > 1e-3
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)

    def test_through_two_layers_and_a_loss_it_is_the_sum_over_kinks_by_hand(self) -> None:
        """The Jacobians are those of the smoothed slopes everywhere, the values those of the network as it is."""
        draw = torch.Generator().manual_seed(2)
        first, second, head = (
            torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((20, 12), (15, 20), (4, 15))
        )
        x, v = (torch.rand(1, 12, generator=draw, dtype=torch.float64) for _ in range(2))
        y = torch.tensor([2])

        def nll(z: Tensor) -> Tensor:
            return F.cross_entropy(F.relu(F.relu6(z @ first.T) @ second.T) @ head.T, y, reduction="none")

        gradient, product = double_backward(nll, x, smoothed_clip)
        a = x @ first.T
        b = a.clamp(0, 6) @ second.T
        p = (b.clamp(min=0) @ head.T).softmax(dim=1)[0]
        slopes_a = torch.tensor([_slope(float(u), 0, 6) for u in a[0]], dtype=torch.float64)
        slopes_b = torch.tensor([_slope(float(u), 0, math.inf) for u in b[0]], dtype=torch.float64)
        bends_a = TAU / (a[0] ** 2 + TAU) ** 1.5 - TAU / ((a[0] - 6) ** 2 + TAU) ** 1.5
        bends_b = TAU / (b[0] ** 2 + TAU) ** 1.5
        to_a, to_b = first, (second * slopes_a) @ first  # ∂a/∂x, ∂b/∂x
        to_logits = (head * slopes_b) @ to_b
        at_logits = p - F.one_hot(y, 4)[0]
        at_b = head.T @ at_logits
        at_a = second.T @ (slopes_b * at_b)
        hessian = (
            to_logits.T @ (torch.diag(p) - torch.outer(p, p)) @ to_logits
            + to_b.T @ torch.diag(bends_b * at_b) @ to_b
            + to_a.T @ torch.diag(bends_a * at_a) @ to_a
        )
        torch.testing.assert_close(gradient[0], to_logits.T @ at_logits)
        torch.testing.assert_close(product(v)[0], hessian @ v[0])

    def test_losses_without_curvature_have_none(self) -> None:
        classifier = linear_classifier()
        x = images(2, 16, dtype=torch.float64)
        with classifier.frozen():
            _, product = double_backward(lambda z: classifier.scores(z)[:, 0], x, smoothed_clip)
        assert torch.equal(product(torch.ones_like(x)), torch.zeros_like(x))

    def test_under_no_grad_too(self, relu_classifier: Classifier) -> None:
        x = images(2, 32)
        with torch.no_grad(), relu_classifier.frozen():
            gradient, product = double_backward(lambda z: relu_classifier.scores(z)[:, 3], x, smoothed_clip)
            assert float(product(gradient).abs().max()) > 0
        assert not gradient.requires_grad

    def test_no_trace(self) -> None:
        net = relu_net()
        classifier = Classifier(net, input_size=32)
        x = images(3, 32)
        with untouched(net), classifier.frozen():
            _, product = double_backward(lambda z: classifier.scores(z)[:, 0], x, smoothed_clip)
            product(torch.ones_like(x))
        before = classifier(x)
        with untouched(net), pytest.raises(ModelError), classifier.frozen():
            double_backward(lambda z: classifier.scores(z[:, :2])[:, 0], x, smoothed_clip)
        assert torch.equal(classifier(x), before)
        leaf = torch.tensor([-1e-3, 1e-3], requires_grad=True)
        assert torch.autograd.grad(F.relu(leaf).sum(), leaf)[0].tolist() == [0, 1]
