"""What the modules of a classifier return in one pass, and passes in which one of them returns something else."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.models.classifier import Classifier

Item = int | str | None
"""Which of several values of an output: its index, its key, or None for a tensor that is all there is."""


@dataclass(frozen=True)
class Spot:
    """A tensor that a module returns.

    Attributes:
        module: name of the module within the classifier's, ``""`` for the module itself.
        call: which of its calls within one forward pass, counted from 0.
        item: which of the values that it returns.
    """

    module: str
    call: int
    item: Item = None


@contextmanager
def heard(classifier: Classifier, hear: Callable[[Spot, Tensor], Tensor | None]) -> Iterator[None]:
    """Inside the block ``hear`` is told of every tensor that a module returns, and may give another in its place.

    Scripted modules cannot be heard.
    """
    if isinstance(classifier.module, torch.jit.ScriptModule):
        yield
        return
    counts: dict[str, int] = {}

    def begin(_: nn.Module, __: object) -> None:
        counts.clear()

    def listen(name: str) -> Callable[..., Any]:
        def keep(_: nn.Module, __: object, output: object) -> object:
            call = counts.get(name, 0)
            counts[name] = call + 1
            others = {
                item: other
                for item, value in tensors_in(output).items()
                if (other := hear(Spot(name, call, item), value)) is not None
            }
            return _replaced(output, others) if others else None

        return keep

    handles = [classifier.module.register_forward_pre_hook(begin, prepend=True)]
    try:
        for name, module in classifier.module.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_hook(listen(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def recorded(
    classifier: Classifier, x: Tensor, wanted: Collection[Spot] | None = None
) -> tuple[Tensor, dict[Spot, Tensor]]:
    """The logits of ``x`` and what modules returned on the way, in the order of their return; all, or those wanted.

    Rows beyond those of ``x`` are fillers (see Classifier.scores).
    """
    found: dict[Spot, Tensor] = {}

    def keep(spot: Spot, value: Tensor) -> None:
        if value.is_floating_point() and (wanted is None or spot in wanted):
            found[spot] = value

    with heard(classifier, keep):
        return classifier.scores(x), found


def replaced(classifier: Classifier, x: Tensor, spot: Spot, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The logits of ``x`` when ``change`` has been made to the activation at ``spot``.

    Where modules hand one tensor on, it is changed as the first of them returns it, before anybody reads it.
    """
    with torch.no_grad():
        _, seen = recorded(classifier, x)
    first = next(where for where, value in seen.items() if value is seen[spot])
    with heard(classifier, lambda where, value: change(value) if where == first else None):
        return classifier.scores(x)


def tensors_in(output: object) -> Mapping[Item, Tensor]:
    """The tensors of a module's ``output`` by their place in it."""
    if isinstance(output, Tensor):
        return {None: output}
    if isinstance(output, Mapping):
        return {key: value for key, value in output.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if isinstance(output, tuple | list):
        return {index: value for index, value in enumerate(output) if isinstance(value, Tensor)}
    return {}


def _replaced(output: Any, others: Mapping[Any, Tensor]) -> object:
    if isinstance(output, Tensor):
        return others[None]
    if isinstance(output, tuple):
        values = [others.get(index, value) for index, value in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else tuple(values)
    changed = copy.copy(output)
    for key, value in others.items():
        changed[key] = value
    return changed
