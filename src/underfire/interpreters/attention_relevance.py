"""Gradient × attention relevance (Chefer, Gur & Wolf, ICCV 2021), for transformers that attend to themselves."""

from torch import Tensor

from underfire.interpreters.attention import AttentionInterpreter
from underfire.interpreters.base import ForwardPass


class AttentionRelevance(AttentionInterpreter):
    """Rollout by what raises the class's logit: of each layer, the mean over heads of max(0, ∂logit/∂A ⊙ A).

    The relevance is the product of all (I + that), as the paper's equation 6 adds it up. Min–max scaled.
    """

    name = "attentionrelevance"
    title = "Gradient × attention"
    summary = "attention of all layers times the gradient of the class logit in it, multiplied"
    goes_back = True
    passes_per_step = 3

    def mixed(self, view: ForwardPass, classes: Tensor, *, attackable: bool) -> list[Tensor]:
        """The positive part of gradient × attention (N, T, T) of each layer, averaged over heads."""
        chosen = view.logits.gather(1, classes[:, None]).squeeze(1)
        slopes = view.attention_gradient(self._tap, chosen, attackable=attackable)
        return [(a * g).relu().mean(dim=1) for a, g in zip(view.attention(self._tap), slopes, strict=True)]
