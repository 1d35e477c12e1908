"""Where a transformer's tokens attend to one another, however its attention is computed.

Functions of torch are intercepted, so that no model's code need be known: a softmax whose result multiplies values,
``scaled_dot_product_attention``, whose weights are then computed openly, and what ``nn.MultiheadAttention`` calls.
What is seen is proved to be all: where each token attends to itself alone, no change of the image reaches another.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from underfire.errors import InputError, ModelError
from underfire.models.classifier import Classifier, filled
from underfire.models.features import scenes
from underfire.models.gradients import gradients
from underfire.models.layout import Layout, changed, far, layout_of
from underfire.models.remembered import Remembered

_BESIDE = 0.1  # cells that count less than this share of a class token are read beside it
_SAME = 1e-3  # largest change, relative to the largest of all, that counts as none
_SOFTMAXES = ("softmax", "_softmax", "_safe_softmax")
_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "bmm", "einsum")
_KEEPING = (
    "dropout",
    "dropout_",
    "to",
    "type",
    "type_as",
    "float",
    "contiguous",
    "clone",
    "reshape",
    "view",
    "flatten",
)


@dataclass(frozen=True)
class Attended:
    """One attention of a pass.

    Attributes:
        weights: (N, heads, T, T), or (N·heads, T, T); rows sum to 1.
        values: what they weigh, (N, heads, T, C) or (N·heads, T, C).
    """

    weights: Tensor
    values: Tensor


@dataclass(frozen=True)
class Attention:
    """The attention between all tokens of an image, layer after layer.

    Attributes:
        layers: which of the attentions of a pass they are, counted from 0.
        heads: of each layer.
        tokens: how many there are.
        layout: which of them are cells, and where these lie.
        read: the tokens from which the logits are made, in the last layer's output.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    tokens: int
    layout: Layout
    read: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the cells."""
        return self.layout.grid

    def weights(self, found: Sequence[Attended]) -> list[Tensor]:
        """Those of the layers, as a pass left them."""
        return [found[layer].weights for layer in self.layers]

    def by_head(self, values: Sequence[Tensor]) -> list[Tensor]:
        """``values`` of the layers, shaped like their weights, as (N, heads, T, T) each."""
        size = (self.tokens, self.tokens)
        return [value.reshape(-1, heads, *size) for value, heads in zip(values, self.heads, strict=True)]


class Attending(TorchFunctionMode):
    """Inside the block every attention is found, and computed by parts that have derivatives of any order.

    Args:
        apart: each token attends to itself alone.

    Attributes:
        found: one after the other.
    """

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__()
        self.found: list[Attended] = []
        self._apart = apart
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # by id: what holds weights, and these as they were made

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The call ``func``, or its parts."""
        named, name = dict(kwargs or {}), _name(func)
        if name == F.multi_head_attention_forward.__name__:
            with self:
                return opened(func)(*args, **named)
        if name == F.scaled_dot_product_attention.__name__:
            return self._scaled_dot_product(*args, **named)
        if name in _PRODUCTS:
            return self._product(func, args, named)
        out = func(*args, **named)
        if name in _SOFTMAXES:
            if named.get("dim", args[1] if len(args) > 1 else None) in (-1, out.ndim - 1):
                self._known[id(out)] = (out, out)
        elif name in _KEEPING and args and id(args[0]) in self._known:
            self._known[id(out)] = (out, self._known[id(args[0])][1])
        return out

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            shared = query.shape[-3] // key.shape[-3]
            key, value = (z.repeat_interleave(shared, -3) for z in (key, value))
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones_like(scores, dtype=torch.bool).tril()
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
        weights = scores.softmax(dim=-1)
        self.found.append(Attended(weights, value))
        weights = self._own(weights) if self._apart else weights
        return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value

    def _product(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        """A matrix product, or attention if a softmax is one of its two factors."""
        factors = [leaf for leaf in tree_leaves([args, named]) if isinstance(leaf, Tensor)]
        weights = next((factor for factor in factors if id(factor) in self._known), None)
        if weights is None or len(factors) != 2:
            return func(*args, **named)
        values = factors[1] if weights is factors[0] else factors[0]
        self.found.append(Attended(self._known[id(weights)][1], values))
        if self._apart:
            own = self._own(weights)
            args, named = tree_map(lambda leaf: own if leaf is weights else leaf, (list(args), named))
        return func(*args, **named)

    def _own(self, weights: Tensor) -> Tensor:
        """Weights by which each token attends to itself alone; others as they are where tokens read other ones."""
        rows, columns = weights.shape[-2:]
        if rows != columns:
            return weights
        return torch.eye(rows, dtype=weights.dtype, device=weights.device).expand_as(weights)


def opened(func: FunctionType) -> Callable[..., Any]:
    """``func``, which asks first whether somebody intercepts it, without that question: what it calls is seen."""
    without = {**func.__globals__, "has_torch_function": lambda _: False}
    opened = FunctionType(func.__code__, without, func.__name__, func.__defaults__, func.__closure__)
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened


_found: Remembered[Attention | str] = Remembered()
"""A classifier's attention, or in a sentence why there is none to be read."""


def find_attention(classifier: Classifier) -> Attention:
    """The attention between all tokens of an image on the way to the logits of ``classifier``.

    Raises:
        InputError: it has none, or not of this kind, or not all of it can be seen; the sentence says why.
    """
    found = _found.get(classifier, None, lambda: _found_anew(classifier))
    if isinstance(found, str):
        raise InputError(f"{found}; use gradcam instead.")
    return found


@dataclass(frozen=True)
class _Look:
    """One pass of the patterns: the attentions that the logits depend on, or all where these depend on nothing.

    Their places in the pass, what they are, and the gradient of a mixture of the logits in their weights.
    """

    layers: tuple[int, ...]
    attentions: tuple[Attended, ...]
    slopes: tuple[Tensor, ...]


def _found_anew(classifier: Classifier) -> Attention | str:
    who, rows = repr(classifier.name), len(_filled(classifier))
    try:
        look = _look(classifier)
    except ModelError as error:
        return str(error).rstrip(".")
    if not look.layers:
        return f"{who} has no attention that can be read: no softmax whose result multiplies values"
    tokens = look.attentions[0].weights.shape[-1]
    heads = []
    for one in look.attentions:
        count = _heads(one.weights, rows, tokens)
        if count is None:
            return (
                f"the attention of {who} is not between all tokens of an image in every layer, as in windows or where a"
                f" query pools: for {rows} images there are weights {tuple(one.weights.shape)}"
            )
        heads.append(count)
    if _side_by_side(look.attentions):
        return f"{who} has attentions side by side, and in a rollout each follows another"
    last = look.slopes[-1].reshape(rows, heads[-1], tokens, tokens).abs().sum(dim=(0, 1, 3))
    for scene in scenes(classifier):
        *changes, still = _changes(classifier, scene, look.layers, tokens)
        layout = layout_of({"tokens": changes[0]}, classifier.input_size)
        if layout is None:
            continue
        reads_cells = bool((layout.cells(last[None]) > 0).any())
        if any(_spreads(change, layout, classifier.input_size) for change in changes) or not (reads_cells or still):
            return f"the tokens of {who} see more of the image than the attention that can be read brings them"
        return Attention(look.layers, tuple(heads), tokens, layout, _summaries(last, layout))
    return f"the tokens that attend to one another in {who} do not change where the image does"


def _look(classifier: Classifier) -> _Look:
    with torch.inference_mode(False), torch.enable_grad(), classifier.frozen():
        with Attending() as attending:
            logits = classifier.scores(classifier.patterns().clone().requires_grad_(True))
        attached = {layer: one for layer, one in enumerate(attending.found) if one.weights.requires_grad}
        if not attached:
            return _Look((), (), ())
        mixture = torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        slopes = gradients((logits @ mixture.to(logits)).sum(), [one.weights for one in attached.values()])
    known = {layer: slope for layer, slope in zip(attached, slopes, strict=True) if slope is not None}
    known = {layer: slope for layer, slope in known.items() if bool((slope != 0).any())} or known
    return _Look(tuple(known), tuple(attached[layer] for layer in known), tuple(known.values()))


def _side_by_side(attentions: Sequence[Attended]) -> bool:
    """Whether what one weighs does not depend on the one before it."""
    return any(
        gradients(after.values.sum(), [before.weights])[0] is None for before, after in itertools.pairwise(attentions)
    )


def _summaries(slope: Tensor, layout: Layout) -> tuple[int, ...]:
    """The tokens that the logits are made of, by how much these depend on each of the last layer's (T,).

    Class tokens alone where each cell counts far less than they do, as one of a mean read beside them.
    """
    read = slope > 0 if bool(slope.any()) else torch.ones_like(slope, dtype=torch.bool)
    cells = torch.zeros_like(read)
    layout.cells(cells[None]).fill_(True)
    others = read & ~cells
    if bool(others.any()) and bool(slope[cells].mean() <= _BESIDE * slope[others].mean()):
        read = others
    return tuple(read.nonzero().flatten().tolist())


def _spreads(change: Tensor, layout: Layout, size: tuple[int, int]) -> bool:
    """Whether tokens change (K, T) that are no cells, or far from the place that was changed."""
    others = torch.ones_like(change, dtype=torch.bool)
    layout.cells(others).copy_(far(size, layout.grid))
    return bool((change[others] > _SAME * change.max()).any())


def _changes(
    classifier: Classifier, scene: tuple[Tensor, Tensor], layers: Sequence[int], tokens: int
) -> tuple[Tensor, Tensor, bool]:
    """What changing one place of a scene after another changes where each token attends to itself alone.

    The values of the first and of the last layer, (K, T) each, by their root mean square; whether no logit changes.
    """
    image, other = scene
    batch = len(classifier.patterns())

    def passed(x: Tensor) -> tuple[Tensor, ...]:
        with Attending(apart=True) as attending:
            logits = classifier.scores(x)
        values = (attending.found[layer].values for layer in (layers[0], layers[-1]))
        rows = len(_filled(classifier))
        return *(v.reshape(rows, -1, tokens, v.shape[-1])[: len(x)] for v in values), logits

    with torch.no_grad(), classifier.frozen():
        before = passed(image.repeat(batch, 1, 1, 1))
        parts = [passed(part) for part in changed(image, other).split(batch)]
    first, last, logits = (
        torch.cat(now) - then[:1] for now, then in zip(zip(*parts, strict=True), before, strict=True)
    )
    still = float(logits.abs().max()) <= _SAME * float(before[2].abs().max())
    return first.square().mean(dim=(1, 3)).sqrt(), last.square().mean(dim=(1, 3)).sqrt(), still


def _filled(classifier: Classifier) -> Tensor:
    """The patterns as a pass has them."""
    x = classifier.patterns()
    return filled(x) if x.device.type == "cpu" else x


def _heads(weights: Tensor, rows: int, tokens: int) -> int | None:
    """How many heads ``weights`` between all ``tokens`` of ``rows`` images have; None if they are others."""
    if weights.shape[-2:] != (tokens, tokens):
        return None
    if weights.ndim == 4 and weights.shape[0] == rows:
        return weights.shape[1]
    return weights.shape[0] // rows if weights.ndim == 3 and weights.shape[0] % rows == 0 else None


def _name(func: Any) -> str:
    found = func.overloadpacket if isinstance(func, OpOverload) else func
    return str(getattr(found, "__name__", ""))
