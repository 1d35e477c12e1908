"""What logits decide: which class of many, or each label by itself."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError


class Decision(Protocol):
    """How logits (N, K) become probabilities and an answer.

    An answer is asked about a class of each image: it is that class where the image is seen as of it, and the most
    probable other one where it is not.
    """

    @property
    def exclusive(self) -> bool:
        """Whether an image is seen as of one class alone."""
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, K) in [0, 1]."""
        ...

    def logits(self, probabilities: Tensor) -> Tensor:
        """Logits (N, K) that have these ``probabilities``."""
        ...

    def nll(self, logits: Tensor, classes: Tensor) -> Tensor:
        """-log p_c (N,) of ``classes`` (N,), differentiable."""
        ...

    def answer(self, logits: Tensor, classes: Tensor) -> Tensor:
        """(N,) int64, asked about ``classes`` (N,)."""
        ...

    def answer_of(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """As `answer`, of ``probabilities`` (N, K)."""
        ...

    def shown(self, probabilities: Tensor) -> list[int]:
        """The classes that an image of ``probabilities`` (K,) is seen as."""
        ...


class OneOfMany:
    """Classes that exclude each other: softmax, and the most probable one is seen."""

    exclusive = True

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, K), rows sum to 1."""
        return logits.softmax(dim=1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Logits (N, K) that have these ``probabilities``."""
        return _log(probabilities)

    def nll(self, logits: Tensor, classes: Tensor) -> Tensor:
        """-log p_c (N,) of ``classes`` (N,), differentiable."""
        return F.cross_entropy(logits, classes, reduction="none")

    def answer(self, logits: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002 - the same whatever is asked
        """(N,) int64: the most probable class."""
        return logits.argmax(dim=1)

    answer_of = answer

    def shown(self, probabilities: Tensor) -> list[int]:
        """The most probable class of an image."""
        return [int(probabilities.argmax())]


class EachOfMany:
    """Labels that don't exclude each other: a sigmoid each, and those with more than one half are seen."""

    exclusive = False

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, K), each by itself."""
        return logits.sigmoid()

    def logits(self, probabilities: Tensor) -> Tensor:
        """Logits (N, K) that have these ``probabilities``."""
        return _log(probabilities) - _log(1 - probabilities)

    def nll(self, logits: Tensor, classes: Tensor) -> Tensor:
        """-log p_c (N,) of the labels ``classes`` (N,), differentiable; it rises with no other label."""
        return F.softplus(-logits.gather(1, classes[:, None]).squeeze(1))

    def answer(self, logits: Tensor, classes: Tensor) -> Tensor:
        """(N,) int64: the label asked about where it is seen, or the most probable other one."""
        return self.answer_of(self.probabilities(logits), classes)

    def answer_of(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """As `answer`, of ``probabilities`` (N, K)."""
        asked = classes[:, None]
        others = probabilities.scatter(1, asked, -1.0).argmax(dim=1)
        return torch.where(probabilities.gather(1, asked).squeeze(1) > 0.5, classes, others)

    def shown(self, probabilities: Tensor) -> list[int]:
        """The labels of more than one half."""
        return (probabilities > 0.5).nonzero().flatten().tolist()


ONE_OF_MANY, EACH_OF_MANY = OneOfMany(), EachOfMany()


def probability(decision: Decision, logits: Tensor, classes: Tensor) -> Tensor:
    """P_c (N,) of ``classes`` (N,) under ``logits`` (N, K), detached."""
    return decision.probabilities(logits.detach()).gather(1, classes[:, None]).squeeze(1)


def check_exclusive(what: str, *, exclusive: bool) -> None:
    """Refuses ``what``, in the plural, by an `InputError`, unless classes are ``exclusive`` (see `Decision`)."""
    if not exclusive:
        raise InputError(
            f"{what} are defined for classes that exclude each other, and this model's outputs are labels of their own"
            " (outputs='sigmoid'); give a model of one label, whose two classes are that it is there or not."
        )


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
