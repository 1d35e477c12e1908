"""The classifier, prepared for the loop of an attack: the same function, faster.

Batch normalisation in evaluation mode is an affine map; folded into the convolution before it, it costs nothing. A
convolution that holds a layer of zero padding pads by itself. The channels-last layout suits convolutions on CPUs.
The copy is used inside attacks only and shares the storage of every parameter that is left as it was; whatever is
reported is scored on the unmodified classifier.
"""

import copy
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError
from underfire.models.classifier import Classifier
from underfire.models.remembered import Remembered

TOLERANCE = 1e-4  # largest difference of the logits, relative to their spread, that still counts as the same


def prepared(classifier: Classifier) -> Classifier:
    """A copy of ``classifier`` with batch norm and padding folded and channels-last weights, or one left as it is.

    Its other parameters share the original's storage, so nothing may write to them.
    The copy's logits are compared with the original's. Where folding changes them by more than ``TOLERANCE``, the copy
    keeps its layers of padding (a convolution may pad in a way of its own); if they still differ, its layers that are
    no plain convolution or batch norm but derived from one; and then all batch norms (somebody else may read a
    convolution's output). A module that cannot be copied, as a scripted one or one that holds a lock, is used itself.
    What may be folded is looked for again if the classifier's tensors, modules, hooks or flags were changed.
    """
    if classifier.is_frozen:
        raise RuntimeError("an attack cannot start inside Classifier.frozen(): leave the block first.")
    shared = _SHARED.get()
    with classifier.alone(), torch.no_grad():
        if shared is None:
            return _prepared(classifier)
        return shared.get(classifier, "copy", lambda: _prepared(classifier))


_SHARED: ContextVar[Remembered[Classifier] | None] = ContextVar("shared copies", default=None)


class SharedCopies:
    """Has `prepared` make one copy of a classifier for many attacks, whose caller changes nothing but its tensors."""

    def __init__(self) -> None:
        self._copies: Remembered[Classifier] = Remembered()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside the block a copy that was made in an earlier one serves again."""
        token = _SHARED.set(self._copies)
        try:
            yield
        finally:
            _SHARED.reset(token)


@dataclass(frozen=True)
class _Plan:
    """What a copy may have changed without computing another function.

    Attributes:
        norms: names of convolutions, each with the batch norm to be folded into it.
        paddings: layers of padding are folded too.
    """

    norms: tuple[tuple[str, str], ...]
    paddings: bool

    def follow(self, twin: Classifier) -> None:
        """Change ``twin`` so, a copy of the classifier."""
        for conv, norm in self.norms:
            _fold(twin.module, conv, norm)
        if self.paddings:
            _fold_paddings(twin.module)
        _lay_channels_last(twin.module)


_plans: Remembered[dict[Hashable, _Plan | None]] = Remembered()
"""By classifier, of its latest structure; None where even another layout changes the function."""


def _prepared(classifier: Classifier) -> Classifier:
    twin = _sharing(classifier)
    if twin is classifier:
        return classifier
    latest, structure = _plans.get(classifier, "latest", dict), _structure(classifier.module)
    if structure not in latest:
        found = _plan(classifier)
        latest.clear()  # a module that counts its calls has another structure after each
        latest[structure] = found
    plan = latest[structure]
    if plan is not None:
        plan.follow(twin)
    return twin


def _structure(module: nn.Module) -> Hashable:
    """What decides which function the tensors of ``module`` make, as far as it shows without a call."""
    return tuple(
        (
            name,
            type(part),
            tuple(part._forward_hooks),
            tuple(part._forward_pre_hooks),
            part.__dict__.get("forward"),
            tuple((flag, value) for flag, value in vars(part).items() if _is_setting(flag, value)),
        )
        for name, part in module.named_modules()
    )


def _is_setting(name: str, value: object) -> bool:
    """Whether an attribute of a module may say how it works; an attack looks at it in evaluation mode."""
    return name != "training" and isinstance(value, bool | int | float | str | None)


def _plan(classifier: Classifier) -> _Plan | None:
    """The plan that folds most of those under which a copy's logits are the same."""
    patterns = classifier.patterns()
    with classifier.frozen():
        pairs, wanted = _convolutions_before_norms(classifier, patterns)
    plain = [pair for pair in pairs if all(_is_plain(classifier.module.get_submodule(name)) for name in pair)]
    for norms, paddings in ((pairs, True), (pairs, False), (plain, True), (plain, False), ([], False)):
        plan, twin = _Plan(tuple(norms), paddings), _sharing(classifier)
        plan.follow(twin)
        if _agrees(twin, patterns, wanted):
            return plan
    return None


def copied(classifier: Classifier) -> Classifier:
    """``classifier`` with a module of its own, in evaluation mode; itself where its module cannot be copied."""
    return _copied(classifier, {})


def _copied(classifier: Classifier, known: dict[int, Any]) -> Classifier:
    """As :func:`copied`; ``known`` is the memo of `copy.deepcopy`: by id, what stands in for a copy."""
    twin = copy.copy(classifier)
    try:
        twin.module = copy.deepcopy(classifier.module, known).eval().requires_grad_(False)
    except Exception:  # noqa: BLE001 - a stranger's module may hold anything, and raise anything
        return classifier
    return twin


def _sharing(classifier: Classifier) -> Classifier:
    """As :func:`copied`, but its parameters share the original's storage: they are to be replaced, not written to."""
    parameters = [p for p in classifier.module.parameters() if type(p) is nn.Parameter]
    return _copied(classifier, {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in parameters})


def _lay_channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _agrees(twin: Classifier, patterns: Tensor, wanted: Tensor) -> bool:
    try:
        with twin.frozen():
            found = twin.scores(patterns)
    except ModelError:  # activations of another size no longer fit together
        return False
    return float((found - wanted).abs().max()) <= TOLERANCE * max(1.0, float(wanted.std()))


def _convolutions_before_norms(classifier: Classifier, patterns: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """The (convolution, batch norm) pairs where the one's output is the other's input, and the patterns' logits.

    The pairs are names of modules that are each called once.
    """
    made_by: dict[int, str] = {}
    alive: list[Tensor] = []  # keeps the outputs alive, so that no two share an id
    read_by: dict[str, str] = {}
    calls: dict[str, int] = {}
    handles = []

    def listen(name: str, module: nn.Module) -> None:
        def keep(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            if _is_plain_convolution(module) and isinstance(output, Tensor):
                made_by[id(output)] = name
                alive.append(output)
            elif inputs and id(inputs[0]) in made_by:
                read_by[name] = made_by[id(inputs[0])]

        handles.append(module.register_forward_hook(keep))

    try:
        for name, module in classifier.module.named_modules():
            if _is_plain_convolution(module) or _is_affine_norm(module):
                listen(name, module)
        logits = classifier.scores(patterns)
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for norm, conv in read_by.items() if calls[norm] == calls[conv] == 1], logits


def _fold_paddings(module: nn.Module) -> None:
    """Let convolutions that hold a layer of zero padding, the same on opposite sides, pad by themselves.

    Ports of TensorFlow models compute their padding that way; the copy that the layer makes is saved.
    """
    for conv in module.modules():
        if not isinstance(conv, nn.Conv2d) or conv.padding != (0, 0) or conv.padding_mode != "zeros":
            continue
        for name, layer in conv.named_children():
            if isinstance(layer, nn.ZeroPad2d):
                left, right, top, bottom = layer.padding
                if left == right and top == bottom:
                    conv.padding = (top, left)
                    setattr(conv, name, nn.Identity().eval())


def _is_plain_convolution(module: nn.Module) -> bool:
    """Whether ``module`` is a convolution with a weight of its own: not computed from others, as by spectral norm."""
    return isinstance(module, nn.Conv2d) and isinstance(module._parameters.get("weight"), nn.Parameter)


def _is_affine_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_var is not None


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    """Put the batch norm's scale and shift into the convolution and an identity in its place."""
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
        raise TypeError(f"{conv_name} and {norm_name} are not a convolution and a batch norm")
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"{norm_name} keeps no running statistics")
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias
    conv.weight = nn.Parameter(conv.weight * scale.reshape(-1, 1, 1, 1), requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    parent, _, leaf = norm_name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity().eval() if _is_plain(norm) else _behind(norm))


def _behind(norm: nn.BatchNorm2d) -> nn.Module:
    """What a layer derived from a batch norm does after it, as far as its parts say: timm's drops and activates."""
    parts = (getattr(norm, name, None) for name in ("drop", "act"))
    return nn.Sequential(*(part for part in parts if isinstance(part, nn.Module))).eval()


def _is_plain(module: nn.Module) -> bool:
    """Whether ``module`` does what a convolution or a batch norm of torch does."""
    return type(module).forward in (nn.Conv2d.forward, nn.BatchNorm2d.forward)
