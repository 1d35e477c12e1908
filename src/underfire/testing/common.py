"""What the suites share: a small classifier, images for it, and how a broken promise is said."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.models.classifier import Classifier
from underfire.plugins import check_name

_SIZE, _CLASSES, _IMAGES = 16, 5, 5
_FAR = 10.0  # from the kink of a ReLU, in units of the activation


class _Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        """``x`` and a constant."""
        return x + self.by


def smooth_classifier(*, dtype: torch.dtype = torch.float64, seed: int = 0, flat: bool = False) -> Classifier:
    """A small classifier of 16×16 images that is differentiable any number of times, for finite differences.

    It ends in global average pooling and one linear layer. With ``flat`` its logits are the same for every
    image, so that all that interpreters can show is constant. Its ReLU, for interpreters with a rule of their own for
    what comes back through one, is nowhere near its kink.
    """
    with torch.random.fork_rng(devices=[]):
        trunk = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Sequential(nn.Tanh(), _Shift(_FAR), nn.ReLU(), _Shift(-_FAR)),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.Softplus(beta=4),
        )
        head = nn.Linear(8, _CLASSES)
        net = nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        net.to(dtype)
    _fill(net, seed)
    head.weight.data.mul_(0 if flat else 6)
    return Classifier(net, mean=0.5, std=0.25, input_size=_SIZE, name="smooth")


class _Tokens(nn.Module):
    """Patches of 4×4 pixels and a class token through two blocks of attention; the head reads the class token."""

    def __init__(self, width: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.first = nn.Parameter(torch.zeros(1, 1 + (_SIZE // 4) ** 2, width))
        self.joint, self.out = (nn.ModuleList(nn.Linear(width, n * width) for _ in range(2)) for n in (3, 1))
        self.head = nn.Linear(width, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of ``x``."""
        z = self.patch(x).flatten(2).transpose(1, 2)
        z = torch.cat([torch.zeros_like(z[:, :1]), z], dim=1) + self.first
        for joint, out in zip(self.joint, self.out, strict=True):
            query, key, value = joint(z).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            read = nn.functional.scaled_dot_product_attention(query, key, value)
            z = z + out(read.transpose(1, 2).flatten(2)).tanh()
        logits: Tensor = self.head(z[:, 0])
        return logits


def token_classifier(*, dtype: torch.dtype = torch.float64, seed: int = 0, flat: bool = False) -> Classifier:
    """The same as a small transformer with fused attention, for interpreters that read attention."""
    with torch.random.fork_rng(devices=[]):
        net = _Tokens().to(dtype)
    _fill(net, seed)
    net.head.weight.data.mul_(0 if flat else 6)
    return Classifier(net, mean=0.5, std=0.25, input_size=_SIZE, name="tokens")


def _fill(net: nn.Module, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        fan_in = parameter[0].numel()
        values = torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 2 / math.sqrt(fan_in)
        parameter.data = values.to(parameter.dtype)


@contextmanager
def no_trace(classifier: Classifier, what: str) -> Iterator[None]:
    """Assert that the block leaves the module, the global random state and the gradient mode as they were."""
    module = classifier.module
    state = copy.deepcopy(module.state_dict())
    before = _marks(module)
    random_state, enabled = torch.get_rng_state(), torch.is_grad_enabled()
    yield
    for key, value in module.state_dict().items():
        hold(torch.equal(value, state[key]), f"{what}: changes {key} of the model")
    for mark, now in _marks(module).items():
        hold(before[mark] == now, f"{what}: leaves {mark} of the model changed")
    hold(torch.equal(random_state, torch.get_rng_state()), f"{what}: draws from the global random state")
    hold(torch.is_grad_enabled() == enabled, f"{what}: leaves the gradient mode changed")


def _marks(module: nn.Module) -> dict[str, list[object]]:
    grads = [None if p.grad is None else p.grad.sum().item() for p in module.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in module.modules()]
    return {
        "the training modes": [m.training for m in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "the gradients": list(grads),
        "the hooks": list(hooks),
    }


def keys_of(n: int) -> tuple[str, ...]:
    """One name per image."""
    return tuple(f"image {i}" for i in range(n))


def hold(promise: bool, broken: str) -> None:
    """Raise AssertionError with the sentence ``broken``, also under ``python -O``."""
    if not promise:
        raise AssertionError(broken)


def some_images() -> tuple[Tensor, Tensor]:
    """Images (5, 3, 16, 16) in (0, 1) with one class each."""
    draw = torch.Generator().manual_seed(7)
    x = 0.1 + 0.8 * torch.rand((_IMAGES, 3, _SIZE, _SIZE), generator=draw, dtype=torch.float64)
    return x, torch.arange(_IMAGES) % _CLASSES


def hold_named(name: object, kind: str) -> None:
    """Raise AssertionError where a part of this kind cannot be called ``name`` on command lines and in rows."""
    try:
        check_name(name, kind, "under test")
    except InputError as error:
        raise AssertionError(str(error)) from error
