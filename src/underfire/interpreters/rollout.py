"""Attention rollout (Abnar & Zuidema 2020)."""

from torch import Tensor

from underfire.interpreters.attention import AttentionInterpreter
from underfire.interpreters.base import ForwardPass


class Rollout(AttentionInterpreter):
    """How much each cell is attended to by the tokens that the head reads, through all layers; the same for any class.

    Each layer's weights are averaged over heads, and the residual connection counts as much as they do: the product of
    all (I + A)/2. Min–max scaled.
    """

    name = "rollout"
    title = "Attention rollout"
    summary = "attention of all layers multiplied, residual connections included; no class"
    passes_per_step = 2

    def mixed(self, view: ForwardPass, classes: Tensor, *, attackable: bool) -> list[Tensor]:  # noqa: ARG002
        """The weights (N, T, T) of each layer, averaged over heads."""
        return [weights.mean(dim=1) for weights in view.attention(self._tap)]
