"""The linear read-out of an activation's mean, where the logits are one: W·mean + b, whatever computes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import ModelError
from underfire.models.classifier import Classifier
from underfire.models.gradients import gradient
from underfire.models.layout import Layout
from underfire.models.recording import Spot, recorded, replaced
from underfire.models.remembered import Remembered

_SAME = 1e-4  # largest difference of logits, relative to the largest one, that still counts as the same
_ROUNDINGS = 8  # of the activation's type: under autocast it may be a short one
_SIZES = (1.0, 10.0, 100.0, 1000.0)  # factors of the rows that are tried: what is linear is so at any size

_computed: Remembered[tuple[Tensor, Tensor]] = Remembered()


@dataclass(frozen=True)
class Head:
    """A linear read-out, by the names of the module's tensors that hold it.

    Attributes:
        weight: of W (K, C), sides of 1 aside; None if no tensor is W, as where the layer learnt a change to it or
            scales it: W is computed then as the derivative of the logits, and b is what is left.
        transposed: the tensor is Wᵀ.
        bias: of b (K,); None beside a ``weight`` if b is zero.
    """

    weight: str | None
    transposed: bool = False
    bias: str | None = None


def find_head(classifier: Classifier, spot: Spot, layout: Layout) -> Head | None:
    """What reads the mean over the cells of the activation at ``spot`` linearly; None if it is read in another way.

    That the logits are W·mean + b is tried on activations of the patterns and on others in their place. All that the
    logits read of the image must pass through the activation.
    """
    pooled, logits, precision = _tried(classifier, spot, layout)
    slack = max(_SAME, _ROUNDINGS * precision) * logits.abs().amax(dim=1, keepdim=True)
    shape = (logits.shape[1], pooled.shape[1])
    for transposed in (False, True):
        for name, tensor in _shaped(classifier, shape[::-1] if transposed else shape):
            bias = _bias(pooled, logits, tensor.T if transposed else tensor, slack)
            if bias is None:
                continue
            if bool((bias.abs() <= slack.min()).all()):
                return Head(name, transposed)
            for held, values in _shaped(classifier, (shape[0],)):
                if bool(((values - bias).abs() <= slack.min()).all()):
                    return Head(name, transposed, held)
    try:
        computed = _derivative(classifier, spot, layout)
    except ModelError:  # a module without gradients
        return None
    return None if _bias(pooled, logits, computed, slack) is None else Head(None)


def read_out(classifier: Classifier, spot: Spot, layout: Layout, head: Head) -> tuple[Tensor, Tensor]:
    """W (K, C) and b (K,) of ``head`` with the module's tensors of now, detached."""
    if head.weight is None:
        return _computed.get(classifier, (spot, layout), lambda: _compute(classifier, spot, layout))
    tensors, k = dict(_tensors(classifier)), classifier.num_classes
    stored = tensors[head.weight]
    weight = stored.reshape(-1, k).T if head.transposed else stored.reshape(k, -1)
    return weight, weight.new_zeros(k) if head.bias is None else tensors[head.bias].reshape(k)


def _compute(classifier: Classifier, spot: Spot, layout: Layout) -> tuple[Tensor, Tensor]:
    pooled, logits, _ = _tried(classifier, spot, layout)
    weight = _derivative(classifier, spot, layout)
    return weight, (logits - pooled @ weight.T)[: len(logits) // 2].mean(dim=0)


def _tried(classifier: Classifier, spot: Spot, layout: Layout) -> tuple[Tensor, Tensor, float]:
    """Means (M, C) of the activation's cells, the logits (M, K) that come of them, and the activation's precision."""
    x, tried = classifier.patterns(), list[Tensor]()
    draw = torch.Generator().manual_seed(0)

    def other(value: Tensor) -> Tensor:
        """Cells that differ, and means of either sign and many sizes."""
        shape = (len(value), layout.picture(value).shape[1])
        sizes = torch.tensor(_SIZES, dtype=torch.float64)[torch.arange(len(value)) % len(_SIZES), None]
        factors = layout.spread(sizes * torch.randn(shape, generator=draw, dtype=torch.float64))
        shares = 2 * torch.rand(value.shape, generator=draw, dtype=torch.float64)
        size = value.abs().mean().clamp_min(1)
        tried.append((value + size) * (factors * shares).to(value))
        return tried[-1]

    with torch.no_grad(), classifier.frozen():
        logits, seen = recorded(classifier, x, {spot})
        others = replaced(classifier, x, spot, other)
        values = torch.cat([seen[spot][: len(x)], tried[0][: len(x)]])
        pooled = layout.picture(values.to(x.dtype)).mean(dim=(2, 3))
        return pooled, torch.cat([logits, others]), torch.finfo(values.dtype).eps


def _derivative(classifier: Classifier, spot: Spot, layout: Layout) -> Tensor:
    """∂logits/∂mean (K, C) of the activation at ``spot``."""
    with torch.enable_grad(), classifier.frozen():
        logits, seen = recorded(classifier, classifier.patterns().requires_grad_(True), {spot})
        slopes = (gradient(logit, seen[spot]) for logit in logits[0])
        return torch.stack([layout.picture(slope)[0].to(logits.dtype).sum(dim=(1, 2)) for slope in slopes])


def _bias(pooled: Tensor, logits: Tensor, weight: Tensor, slack: Tensor) -> Tensor | None:
    """B (K,) with logits = pooled · weightᵀ + b, to ``slack`` (M, 1) in each row; None if there is none."""
    rest = logits - pooled @ weight.T
    bias = rest[: len(rest) // 2].mean(dim=0)  # of the patterns themselves, where nothing is large
    return bias if bool(((rest - bias).abs() <= slack + slack.min()).all()) else None


def _shaped(classifier: Classifier, shape: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The module's tensors of ``shape``, sides of 1 aside, in that shape."""
    for name, tensor in _tensors(classifier):
        if [side for side in tensor.shape if side > 1] == [side for side in shape if side > 1]:
            yield name, tensor.reshape(*shape)


def _tensors(classifier: Classifier) -> Iterator[tuple[str, Tensor]]:
    """The module's parameters and buffers by name, detached."""
    for name, tensor in (*classifier.module.named_parameters(), *classifier.module.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor.detach()
