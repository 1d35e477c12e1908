"""Layer-wise relevance propagation (Bach et al. 2015) at the level of torch's functions, no model's code known.

Relevance is kept as R = a ⊙ G for each activation a. What comes back, G, is what autograd brings back wherever a
function is linear; functions that are not, and layers with a rule of their own, bring back what their rule says. So a
sum needs no rule, a value of 0 no division, and conservation is as good as the arithmetic.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from underfire.devices import filled
from underfire.errors import InputError
from underfire.interpreters import transposed
from underfire.interpreters.base import twice_differentiable
from underfire.models.classifier import Classifier
from underfire.models.gradients import gradients

T = TypeVar("T")
Coming = Callable[..., tuple[Tensor | None, ...]]
"""Of what comes to a function's output, the output and its inputs: what goes on to each input."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer as it was called, a batch norm behind it included.

    Attributes:
        run: from an input and a weight to the output without a bias.
        back: from what comes to the output, an input and a weight to what goes on to the input: run's transpose.
        x: the input.
        weight: of the layer.
        bias: (C,) of the layer, or None.
        channels: the shape in which a bias is added to the output, such as (-1, 1, 1).
    """

    run: Callable[[Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor, Tensor], Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    channels: tuple[int, ...]

    def forth(self, x: Tensor, weight: Tensor) -> Tensor:
        """``run``, differentiable in ``x`` any number of times."""
        like = x.detach()
        return transposed.linear(x, lambda z: self.run(z, weight), lambda g: self.back(g, like, weight))

    def onward(self, g: Tensor, weight: Tensor) -> Tensor:
        """``back``, differentiable in ``g`` any number of times."""
        like = self.x.detach()
        return transposed.linear(g, lambda g: self.back(g, like, weight), lambda z: self.run(z, weight))

    def output(self) -> Tensor:
        """What the layer returns."""
        out = self.forth(self.x, self.weight)
        return out if self.bias is None else out + self.bias.reshape(self.channels)


@dataclass(frozen=True)
class Lineage:
    """What is known of a tensor that depends on the image.

    Attributes:
        carries: whether relevance goes on from it to the image; not from a gate or a standard deviation.
        box: its values where the image is black and where it is white, while it is an affine function of pixels.
        layer: the layer that made it.
    """

    carries: bool = True
    box: tuple[Tensor, Tensor] | None = None
    layer: Layer | None = None


Rule = Callable[["Propagation", Any, Sequence[Any], Mapping[str, Any]], Any]
"""What takes the place of a function's call with positional and named arguments."""


@dataclass
class _Phase:
    back: bool = True  # relevance goes back; False: derivatives are taken of all that was done


class Propagation(TorchFunctionMode):
    """Inside the block calls of torch's functions on what depends on the image get the rules of ``table``.

    Values stay those of the network. Functions that work in place give a new tensor instead.

    Args:
        table: the rules by names of functions.
        refusal: from what has no rule to a sentence.

    Attributes:
        met: the names of the functions met.
    """

    def __init__(self, table: Mapping[str, Rule], refusal: Callable[[str], str]) -> None:
        super().__init__()
        self.met: set[str] = set()
        self._table, self._refusal, self._phase = table, refusal, _Phase()
        self._lineages: Any = WeakTensorKeyDictionary()

    def begin(self, x: Tensor, box: tuple[Tensor, Tensor]) -> None:
        """Relevance ends at ``x``, whose values lie between those of ``box``."""
        self._lineages[x] = Lineage(box=box)

    def end(self) -> None:
        """From here on derivatives go back, of the relevance too."""
        self._phase.back = False

    def refuse(self, what: str) -> InputError:
        """That there is no rule for ``what``, to be raised."""
        return InputError(self._refusal(what))

    def lineage(self, value: Any) -> Lineage | None:
        """What is known of ``value`` if it is a tensor that depends on the image."""
        if not isinstance(value, Tensor) or not value.requires_grad:
            return None
        found: Lineage | None = self._lineages.get(value)
        if found is None:
            raise self.refuse("what a scripted module or an autograd.Function of its own computes")
        return found

    def carries(self, value: Any) -> bool:
        """Whether relevance goes from ``value`` to the image."""
        found = self.lineage(value)
        return found is not None and found.carries

    def mark(self, out: T, trace: Lineage) -> T:
        """``out``, known from here on for what ``trace`` says."""
        for tensor in tensors(out):
            if tensor.requires_grad:
                self._lineages[tensor] = trace
        return out

    def ruled(self, coming: Coming, out: Tensor, *inputs: Tensor) -> Tensor:
        """``out``, from where ``coming`` says what goes on to ``inputs``, while relevance goes back."""
        ruled: Tensor = _Ruled.apply(self._phase, coming, out, *inputs)  # type: ignore[no-untyped-call]
        return self.mark(ruled, Lineage())

    def scaled(self, out: Tensor, share: float) -> Tensor:
        """``out``, which lets ``share`` of the relevance go on; with none left it carries none."""
        if share == 1:
            return out
        scaled = self.ruled(lambda g, *_: (None if share == 0 else g * share,), out, out)
        return self.mark(scaled, Lineage(carries=share != 0))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or what its rule makes of it."""
        named = dict(kwargs or {})
        traces = [found for found in map(self.lineage, tensors([args, named])) if found is not None]
        if not traces:
            return func(*args, **named)
        func, args, named = _out_of_place(func, args, named)
        if not any(found.carries for found in traces):
            return self.mark(func(*args, **named), Lineage(carries=False))
        name = _name(func)
        rule = self._table.get(name)
        if rule is not None:
            self.met.add(name)
            return rule(self, func, args, named)
        out = func(*args, **named)
        if out is None or any(tensor.requires_grad for tensor in tensors(out)):
            raise self.refuse(repr(name))
        return out


class _Ruled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, phase: _Phase, coming: Coming, out: Tensor, *inputs: Tensor) -> Tensor:
        ctx.phase, ctx.coming, ctx.inputs = phase, coming, len(inputs)
        ctx.save_for_backward(out, *inputs)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.phase.back:
            return None, None, grads[0], *[None] * ctx.inputs
        return None, None, None, *ctx.coming(grads[0], *ctx.saved_tensors)


def called(rule: Callable[..., Any]) -> Rule:
    """The rule that is written with the function's own arguments after the first two."""

    def with_arguments(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        return rule(mode, func, *args, **named)

    return with_arguments


def linear(mode: Propagation, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The rule of functions that are linear in all that carries relevance, or pick some of their inputs' values."""
    out = func(*args, **named)
    found = [trace for trace in map(mode.lineage, tensors([args, named])) if trace is not None]
    if any(trace.box is None for trace in found):
        return mode.mark(out, Lineage())
    ends = []
    for end in (0, 1):

        def swapped(value: Any, end: int = end) -> Any:
            trace = mode.lineage(value)
            return value if trace is None or trace.box is None else trace.box[end]

        ends.append(func(*tree_map(swapped, args), **tree_map(swapped, dict(named))))
    for tensor, low, high in zip(*map(tensors, (out, *ends)), strict=True):
        mode.mark(tensor, Lineage(box=(low, high)))
    return out


@dataclass(frozen=True)
class Relevance:
    """The relevance of each pixel's channels, and what is needed to go on from it.

    Attributes:
        x: the images (N, C, H, W), a leaf.
        values: (N, C, H, W); attached to ``x`` if so asked.
        logits: (N, K), as the propagation computed them.
        met: names of the functions on the way.
    """

    x: Tensor
    values: Tensor
    logits: Tensor = field(repr=False)
    met: frozenset[str] = frozenset()


def propagated(
    classifier: Classifier, x: Tensor, y: Tensor, made: Callable[[], Propagation], *, attached: bool = False
) -> Relevance:
    """The relevance of ``x`` (N, C, H, W) for the logits of ``y`` (N,), inside ``classifier.frozen()``.

    It is that of the normalised image, the classifier's mean being what has none; the layers that a rule for bounded
    pixels holds for know it between black and white.

    Raises:
        InputError: a function has no rule.
    """
    mode = made()
    with torch.enable_grad(), ExitStack() as stack:
        leaf = x.detach().requires_grad_(True)
        low, high = (torch.full_like(leaf, value).requires_grad_(True) for value in (0, 1))
        if attached:
            stack.enter_context(twice_differentiable())
        mode.begin(leaf, (low, high))
        with mode:
            logits = classifier.scores(leaf)
        chosen = logits.gather(1, y[:, None]).sum()
        found = gradients(chosen, (leaf, low, high), attached=attached, keep=attached)
        if all(back is None for back in found):
            raise mode.refuse("pixels that reach the logits through gates alone")
        mode.end()
        own = classifier.preprocessing
        mean = filled(own.mean[:: -1 if own.bgr else 1], x).reshape(1, -1, 1, 1)
        factors = (leaf - mean, -leaf, 1 - leaf)
        values = torch.zeros_like(leaf)
        for factor, back in zip(factors, found, strict=True):
            if back is not None:
                values = values + factor * back
    return Relevance(leaf, values if attached else values.detach(), logits.detach(), frozenset(mode.met))


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in ``value``, which may be any lists, tuples and dictionaries of them."""
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _name(func: Any) -> str:
    """Of a function, method or attribute, the same for all that do the same."""
    name: str = getattr(func, "__name__", "")
    return str(func.__self__.__name__) if name == "__get__" else name


def _out_of_place(func: Any, args: Sequence[Any], named: dict[str, Any]) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """The call that returns what this one returns, and overwrites nothing."""
    if func in _IN_PLACE:
        return _IN_PLACE[func], args, named
    if not inspect.isfunction(func):
        return func, args, named
    parameters = inspect.signature(func)
    if "inplace" not in parameters.parameters:
        return func, args, named
    bound = parameters.bind(*args, **named)
    bound.arguments["inplace"] = False
    return func, bound.args, bound.kwargs


def _in_place() -> Iterator[tuple[Any, Any]]:
    """Methods and functions that overwrite their first argument, and those that do the same without."""
    for owner in (Tensor, torch):
        for name in ("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "clamp", "clamp_min", "clamp_max", "neg"):
            if hasattr(owner, f"{name}_"):
                yield getattr(owner, f"{name}_"), getattr(owner, name)
    for name in ("add", "sub", "mul", "truediv"):
        yield getattr(Tensor, f"__i{name}__"), getattr(Tensor, f"__{name}__")


_IN_PLACE = dict(_in_place())
