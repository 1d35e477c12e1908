"""The vector–Jacobian product of any interpreter's map: right, or refused. The contract asks all built-in ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import DeepLift, GuidedBackprop, InputXGradient, IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from support.toys import images, smooth_net
from underfire import CAM, GRAD, IG, RISE, Classifier, InputError, Interpreter, SmoothGrad, attribution_gradient
from underfire.interpreters import MapObjective, MapTarget
from underfire.interpreters.captum import Captum
from underfire.interpreters.maps import saliency, saliency_grid
from underfire.testing import smooth_classifier

N, Y, KEYS = 3, torch.tensor([0, 3, 4]), ("a", "b", "c")
X = images(N, 16, dtype=torch.float64)


def _error(explained: Interpreter, keys: tuple[str, ...] = KEYS) -> float:
    """How far the product is from finite differences along random directions, relative to their size."""
    draw = torch.Generator().manual_seed(0)
    cotangent = torch.randn((N, *explained.grid), generator=draw, dtype=torch.float64)
    product = attribution_gradient(explained, X, Y, cotangent, keys=keys)
    assert product.shape == X.shape
    assert not product.requires_grad
    found, expected = [], []
    for _ in range(4):
        d = torch.randn(X.shape, generator=draw, dtype=torch.float64)
        ahead, behind = ((explained(X + s * d, Y, keys=keys) * cotangent).sum() for s in (1e-6, -1e-6))
        expected.append((ahead - behind) / 2e-6)
        found.append((product * d).sum())
    return float((torch.stack(found) - torch.stack(expected)).norm() / torch.stack(expected).norm())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Saliency, {}),
        (InputXGradient, {}),
        (IntegratedGradients, {"n_steps": 5}),
        (IntegratedGradients, {"n_steps": 5, "internal_batch_size": 4}),
        (GuidedBackprop, {}),
        (DeepLift, {}),
        (Occlusion, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}),
        (lambda f: NoiseTunnel(Saliency(f)), {"nt_samples": 3, "stdevs": 0.1}),
    ],
    ids=["saliency", "product", "ig", "ig in chunks", "guided", "deeplift", "occlusion", "tunnel"],
)
def test_captum_s(method: Any, options: dict[str, Any]) -> None:
    """Also where Captum's own gradient is cut or wrong (its issue 361): its hooks and detach end with the map."""
    assert _error(Captum(smooth_classifier(), method, options=options)) < (
        1e-2 if method is Occlusion else 1e-4
    )  # of whose values Captum makes float32


class _Attention(nn.Module):
    """Tokens of 4×4 pixels, one block of fused attention, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patches, self.mix = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 24)
            self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (part[:, None] for part in self.mix(tokens).chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(3 * q, k, v)[:, 0]
        logits: Tensor = self.head((tokens + seen.tanh()).mean(dim=1))
        return logits


@pytest.mark.parametrize("make", [GRAD, IG, lambda c: Captum(c, InputXGradient)], ids=["grad", "ig", "captum"])
def test_through_fused_attention(make: Callable[[Classifier], Interpreter]) -> None:
    classifier = Classifier(_Attention().double(), mean=0.5, std=0.25, input_size=16)
    assert _error(make(classifier)) < 1e-4


class _OfThisFile(Interpreter):
    """Pixel-wise attributions, made by a function of the classifier."""

    name = "mine"

    def __init__(self, classifier: Classifier, attribute: Callable[[Classifier, Tensor, Tensor], Tensor]) -> None:
        super().__init__(classifier)
        self.grid = saliency_grid(classifier.input_size)
        self._attribute = attribute

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        return saliency(self._attribute(self.classifier, x, y))

    def objective(self, target: MapTarget) -> MapObjective:
        raise NotImplementedError


def _back(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the chosen logits, as code that looks at maps writes it."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        chosen = classifier.scores(leaf).gather(1, y[:, None]).sum()
        (found,) = torch.autograd.grad(chosen, leaf)
    return found


def _by_tensor_hooks(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """What comes back to the first convolution's output goes on with its square root."""

    def change(module: nn.Module, args: Any, out: Tensor) -> None:
        out.register_hook(lambda grad: grad.abs().add(1e-3).sqrt() * grad.sign())

    handle = next(m for m in classifier.module.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(change)
    try:
        return _back(classifier, x, y)
    finally:
        handle.remove()


def _by_node_hooks(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """The z⁺ rule at the first convolution, by hooks on its node that are taken off at the end, as Zennit's are."""
    conv = next(m for m in classifier.module.modules() if isinstance(m, nn.Conv2d))
    taken: list[Any] = []

    def change(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        seen = args[0]

        def rule(grad_inputs: tuple[Tensor, ...], grad_outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                leaf = seen.detach().requires_grad_(True) if not seen.requires_grad else seen
                z = F.conv2d(leaf, conv.weight.clamp(min=0), None, padding=1)
            ratio = grad_outputs[0] / (z.abs() + 1)
            back = F.conv_transpose2d(ratio, conv.weight.clamp(min=0), padding=1) * seen
            return (back, *grad_inputs[1:])

        assert out.grad_fn is not None
        taken.append(out.grad_fn.register_hook(rule))
        return out

    handle = conv.register_forward_hook(change)
    try:
        return _back(classifier, x, y)
    finally:
        handle.remove()
        for hook in taken:
            hook.remove()


def _by_detach(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Gradient × input of a network whose first activations are taken for constants of their value, as LXT's are."""

    def change(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return args[0] * (out / (args[0] + 10)).detach() + (out - args[0] * (out / (args[0] + 10))).detach()

    tanh = next(m for m in classifier.module.modules() if isinstance(m, nn.Tanh))
    handle = tanh.register_forward_hook(change)
    try:
        return x * _back(classifier, x, y)
    finally:
        handle.remove()


@pytest.mark.parametrize("attribute", [_back, _by_tensor_hooks, _by_node_hooks, _by_detach])
def test_a_modified_way_back(attribute: Callable[[Classifier, Tensor, Tensor], Tensor]) -> None:
    """The way back is changed for the map, and not for its derivative; and the map keeps its values."""
    assert _error(_OfThisFile(smooth_classifier(), attribute)) < 1e-4


class _Modified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 0.5


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        slope: Tensor = 2 * grads[0] * ctx.saved_tensors[0]
        return slope


def _changed(apply: Callable[..., Any]) -> Callable[[Classifier, Tensor, Tensor], Tensor]:
    def attribute(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            chosen = classifier.scores(apply(leaf)).gather(1, y[:, None]).square().sum()
            found: Tensor = torch.autograd.grad(chosen, leaf)[0]
        return found

    return attribute


def test_what_changes_the_derivative_too_shows_in_finite_differences() -> None:
    """A rule that no call takes off again; nobody sees it from outside, and check_interpreter compares."""
    explained = _OfThisFile(smooth_classifier(), _changed(_Modified.apply))
    assert _error(explained) > 0.1


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        (lambda c, x, y: torch.from_numpy(x.numpy() ** 2), "with a graph it fails with RuntimeError: Can't call numpy"),
        (lambda c, x, y: torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).double(), "does not depend"),
        (lambda c, x, y: x ** (1 + x.requires_grad), "with a graph it is another map"),
        (_changed(_Once.apply), "can be differentiated once only"),
    ],
    ids=["numpy", "constant", "graph", "once"],
)
def test_what_has_no_derivative_is_refused(
    attribute: Callable[[Classifier, Tensor, Tensor], Tensor], reason: str
) -> None:
    explained = _OfThisFile(smooth_classifier(), attribute)
    with pytest.raises(InputError, match=reason) as refusal:
        attribution_gradient(explained, X, Y, torch.ones(N, 4, 4).double())
    assert "\n" not in str(refusal.value)


class TestArguments:
    def test_a_cotangent_of_another_shape_or_type(self) -> None:
        cam = CAM(smooth_classifier())
        for cotangent in (torch.ones(N, 4, 4).double(), torch.ones(N, *cam.grid)):
            with pytest.raises(InputError, match=r"cotangent is .* give \(3, 8, 8\) of torch.float64"):
                attribution_gradient(cam, X, Y, cotangent)

    def test_no_image(self) -> None:
        cam = CAM(smooth_classifier())
        assert attribution_gradient(cam, X[:0], Y[:0], torch.ones(0, *cam.grid).double()).shape == (0, 3, 16, 16)

    def test_images_don_t_mix_and_the_caller_s_mode_does_not_matter(self) -> None:
        for explained in (SmoothGrad(smooth_classifier(), samples=3), RISE(smooth_classifier(), masks=8)):
            cotangent = torch.ones(N, *explained.grid).double()
            cotangent[:, 0] = 2
            whole = attribution_gradient(explained, X, Y, cotangent, keys=KEYS)
            with torch.inference_mode():
                one = attribution_gradient(explained, X[1:2], Y[1:2], cotangent[1:2], keys=KEYS[1:2])
            torch.testing.assert_close(one, whole[1:2], rtol=1e-9, atol=1e-12)

    def test_the_model_is_left_as_it_was(self) -> None:
        classifier = Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16)
        before = [p.requires_grad for p in classifier.module.parameters()]
        attribution_gradient(GRAD(classifier), X, Y, torch.ones(N, 4, 4).double())
        assert [p.requires_grad for p in classifier.module.parameters()] == before
        assert all(p.grad is None for p in classifier.module.parameters())
