"""What of a class an attribution explains: its probability or its logit."""

from typing import Literal, get_args

from torch import Tensor

from underfire.errors import InputError
from underfire.models.decisions import Decision

Output = Literal["probability", "logit"]


def check_output(output: str) -> None:
    """Refuse an ``output`` that is neither.

    Raises:
        InputError: it is none of :data:`Output`.
    """
    if output not in get_args(Output):
        raise InputError(f"output {output!r} is unknown; give 'probability' or 'logit'.")


def of_class(decision: Decision, logits: Tensor, classes: Tensor, output: Output) -> Tensor:
    """The ``output`` (N,) of ``classes`` (N,) by ``logits`` (N, K)."""
    scores = decision.probabilities(logits) if output == "probability" else logits
    return scores.gather(1, classes[:, None]).squeeze(1)
