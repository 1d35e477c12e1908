"""Where a classifier keeps the features that representation-guided interpreters read.

The structure is found by looking at one forward pass, not by the names of layers: any module that ends in global
average pooling and one linear layer is recognised, whatever its author called the parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from underfire.models.classifier import Classifier
from underfire.models.folded import prepared

_PADDINGS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
_STEP = 1.5  # a grid this much finer than the last is another resolution, not a border more
_SAME = 1e-3  # largest difference, relative to their spread, of activations that count as the same


@dataclass(frozen=True)
class FeatureMap:
    """The output of one call of one module: the last activation (N, C, h, w) before the head.

    Attributes:
        module: name of the module within the classifier's, ``""`` for the module itself.
        call: which of its calls within one forward pass, counted from 0.
        grid: (h, w) of the activation.
        head: name of the linear layer that reads its spatial mean, or None if the head is anything else.
    """

    module: str
    call: int
    grid: tuple[int, int]
    head: str | None


@dataclass(frozen=True)
class _Call:
    module: str
    call: int
    output: Tensor
    inputs: tuple[object, ...]


def find_features(classifier: Classifier) -> FeatureMap | None:
    """The last convolutional activation of ``classifier``, and its linear head if the two are all there is.

    Returns:
        The activation whose spatial mean is exactly what the last linear layer reads (then CAM is exact) or,
        failing that, the last four-dimensional activation with more than one cell; None if there is none.
    """
    calls = _record(classifier)
    maps = [c for c in calls if c.output.ndim == 4 and c.output.shape[2] * c.output.shape[3] > 1]
    if not maps:
        return None
    head = _linear_head(classifier, calls)
    if head is not None and isinstance(pooled := head.inputs[0], Tensor) and pooled.ndim == 2:
        n = len(classifier.patterns())
        for c in reversed(maps):
            means = c.output[:n].mean(dim=(2, 3))
            if means.shape == pooled[:n].shape and _same(means, pooled[:n]):
                return FeatureMap(c.module, c.call, _grid(c.output), head.module)
    last = maps[-1]
    return FeatureMap(last.module, last.call, _grid(last.output), None)


def find_trunk(classifier: Classifier, last: FeatureMap, *, finest: tuple[int, int]) -> tuple[FeatureMap, ...]:
    """``last`` and, for each finer resolution up to the grid ``finest``, the last activation on it before ``last``.

    Coarsest first. All of them are the same in :func:`underfire.models.folded.prepared` copies of ``classifier``: the
    output of a convolution whose batch norm is folded is not, and paddings are no activations.
    """
    n = len(classifier.patterns())
    copied = {(c.module, c.call): c.output[:n] for c in _record(prepared(classifier))}
    by_grid: dict[tuple[int, int], _Call] = {}
    for c in _record(classifier):
        if (c.module, c.call) == (last.module, last.call):
            break
        padding = isinstance(classifier.module.get_submodule(c.module), _PADDINGS)
        if c.output.ndim == 4 and not padding and _nearly(c.output[:n], copied.get((c.module, c.call))):
            by_grid[_grid(c.output)] = c
    trunk = [last]
    for grid in sorted(by_grid):
        finer = all(now >= _STEP * before for now, before in zip(grid, trunk[-1].grid, strict=True))
        if finer and grid[0] <= finest[0] and grid[1] <= finest[1]:
            trunk.append(FeatureMap(by_grid[grid].module, by_grid[grid].call, grid, None))
    return tuple(trunk)


def head_bias(classifier: Classifier, features: FeatureMap) -> Tensor:
    """The bias (K,) of the linear head of ``features``, detached; zeros where it has none."""
    bias = _head(classifier, features).bias
    return head_weight(classifier, features).new_zeros(classifier.num_classes) if bias is None else bias.detach()


def head_weight(classifier: Classifier, features: FeatureMap) -> Tensor:
    """The weight (K, C) of the linear head of ``features``, detached."""
    return _head(classifier, features).weight.detach()


@contextmanager
def capture(classifier: Classifier, features: FeatureMap) -> Iterator[list[Tensor]]:
    """Inside the block, every forward pass appends the activation of ``features`` to the list yielded."""
    seen: list[Tensor] = []
    calls = 0

    def start(_: nn.Module, __: object) -> None:
        nonlocal calls
        calls = 0

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        nonlocal calls
        if calls == features.call:
            seen.append(output)
        calls += 1

    root, tapped = classifier.module, classifier.module.get_submodule(features.module)
    handles = (root.register_forward_pre_hook(start, prepend=True), tapped.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _record(classifier: Classifier) -> list[_Call]:
    """Every call of every submodule in one forward pass of the patterns, in the order of their return.

    Rows beyond those of the patterns are fillers (see Classifier.scores).
    """
    calls: list[_Call] = []
    counts: dict[str, int] = {}
    handles = []

    def listen(name: str, module: nn.Module) -> None:
        def keep(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            index = counts.get(name, 0)
            counts[name] = index + 1
            if isinstance(output, Tensor):
                calls.append(_Call(name, index, output, inputs))

        handles.append(module.register_forward_hook(keep))

    with torch.no_grad(), classifier.frozen():
        try:
            for name, module in classifier.module.named_modules():
                listen(name, module)
            classifier.scores(classifier.patterns())
        finally:
            for handle in handles:
                handle.remove()
    return calls


def _linear_head(classifier: Classifier, calls: list[_Call]) -> _Call | None:
    """The last linear layer's call, if its output is the classifier's."""
    n = len(classifier.patterns())
    root = next(c for c in reversed(calls) if c.module == "")
    for c in reversed(calls):
        if isinstance(classifier.module.get_submodule(c.module), nn.Linear):
            return c if torch.equal(c.output[:n], root.output[:n]) else None
    return None


def _head(classifier: Classifier, features: FeatureMap) -> nn.Linear:
    if features.head is None:
        raise ValueError("these features have no linear head")
    linear = classifier.module.get_submodule(features.head)
    assert isinstance(linear, nn.Linear)  # noqa: S101 - find_features only names linear layers
    return linear


def _nearly(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and float((a - b).abs().max()) <= _SAME * max(1.0, float(a.std()))


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _grid(activation: Tensor) -> tuple[int, int]:
    return (activation.shape[2], activation.shape[3])
