"""What modules return, and how logits are read from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from underfire.choices import Outputs
from underfire.errors import InputError
from underfire.models.decisions import EACH_OF_MANY, ONE_OF_MANY, Decision
from underfire.weights import oddity

_TOLERANCE = 1e-3  # of probabilities, whose sums are rounded
_SHAPING = ("Squeeze", "Unsqueeze", "View", "UnsafeView", "Reshape", "Select", "Slice", "ToCopy", "Clone", "Alias")
"""Beginnings of the names of steps that change no number."""


@dataclass(frozen=True)
class OutputReading:
    """How logits (N, K) are read from what a module returns for N images.

    One column is the logit z of the second of two classes: its logits are (-z/2, z/2), whose softmax is
    (1 - σ(z), σ(z)), and both classes have a map, each other's negative.

    Attributes:
        outputs: what the module is said to return.
        columns: how many numbers it returns for an image.
        squashed: they are σ(z), where z is meant.
    """

    outputs: Outputs
    columns: int
    squashed: bool = False

    @property
    def decision(self) -> Decision:
        """What the logits decide."""
        return EACH_OF_MANY if self.outputs == "sigmoid" and self.columns > 1 else ONE_OF_MANY

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return max(2, self.columns)

    def scores(self, returned: Any, n: int) -> Tensor | None:
        """The numbers (N, columns) in what a module ``returned`` for ``n`` images; None if it is something else."""
        found = scores_in(returned, n)
        return found if found is not None and found.shape[1] == self.columns else None

    def logits(self, scores: Tensor) -> Tensor:
        """Logits (N, K) of the numbers (N, columns) that a module returned."""
        if self.squashed:
            scores = EACH_OF_MANY.logits(scores)
        elif self.outputs == "probabilities":
            scores = ONE_OF_MANY.logits(scores)
        return torch.cat([-scores / 2, scores / 2], dim=1) if self.columns == 1 else scores


def reading_of(scores: Tensor, outputs: Outputs) -> OutputReading:
    """The reading of a module that returned ``scores`` (N, columns), with their graph where a sigmoid is looked for.

    Raises:
        InputError: they contradict what ``outputs`` says.
    """
    columns, squashed = scores.shape[1], _ends_in_sigmoid(scores)
    single, within = columns == 1, bool(((scores >= -_TOLERANCE) & (scores <= 1 + _TOLERANCE)).all())
    if outputs == "logits" and (squashed if single else is_probabilities(scores)):
        raise InputError(
            "the module returns probabilities, not logits; remove its softmax or sigmoid, or say"
            " outputs='probabilities'."
        )
    if outputs == "probabilities" and not (within if single else is_probabilities(scores)):
        wrong = "don't lie in [0, 1]" if single else "don't sum to 1"
        hint = ", or say outputs='sigmoid' if each is of a label of its own" if within else ""
        raise InputError(f"outputs='probabilities' was given, but the module's outputs {wrong}; drop the option{hint}.")
    if outputs == "sigmoid" and not single and is_probabilities(scores):
        raise InputError("outputs='sigmoid' was given, but the module's outputs sum to 1; say outputs='probabilities'.")
    return OutputReading(outputs, columns, squashed=squashed or (single and outputs == "probabilities"))


def scores_in(returned: Any, n: int) -> Tensor | None:
    """The scores (N, columns) in what a module ``returned`` for ``n`` images; None if there are none.

    They are what it returned, its ``logits`` (of a dictionary or as an attribute), the only tensor of a dictionary, or
    the first thing of a tuple or list. Of one number for an image the second axis may be missing.
    """
    if isinstance(returned, Mapping):
        tensors = [value for value in returned.values() if isinstance(value, Tensor)]
        returned = returned.get("logits", tensors[0] if len(tensors) == 1 else None)
    elif isinstance(returned, tuple | list):
        returned = getattr(returned, "logits", returned[0] if returned else None)
    elif not isinstance(returned, Tensor):
        returned = getattr(returned, "logits", None)
    if not isinstance(returned, Tensor) or oddity(returned) is not None or not returned.is_floating_point():
        return None
    if returned.ndim == 1:
        returned = returned[:, None]
    return returned if returned.ndim == 2 and len(returned) == n and returned.shape[1] else None


def described_output(returned: Any) -> str:
    """What a module returned, in a few words."""
    if isinstance(returned, Tensor):
        kind = oddity(returned) or ("" if returned.is_floating_point() else f"of {returned.dtype}")
        return f"{tuple(returned.shape)} {kind}".rstrip()
    keys = f" of {', '.join(map(repr, list(returned)[:5]))}" if isinstance(returned, Mapping) and returned else ""
    return f"{type(returned).__name__}{keys}"


def is_probabilities(scores: Tensor) -> bool:
    """Whether every row of ``scores`` (N, K) lies in [0, 1] and sums to 1, as a softmax's does."""
    inside = bool((scores >= -_TOLERANCE).all()) and bool((scores <= 1 + _TOLERANCE).all())
    return inside and bool(((scores.sum(dim=1) - 1).abs() < _TOLERANCE).all())


def _ends_in_sigmoid(scores: Tensor) -> bool:
    """Whether the graph of ``scores`` says so; values between 0 and 1 may be small logits."""
    node = scores.grad_fn
    while node is not None and node.name().startswith(_SHAPING):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("SigmoidBackward")
