"""What logits decide: which class of many, or each label by itself."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError


class Decision(Protocol):
    """How logits (N, K) become probabilities and a predicted class.

    With labels that don't exclude each other, the prediction depends on the class that it is compared with: it is that
    class if the model assigns it to the image, and the most probable other class if not.
    """

    @property
    def exclusive(self) -> bool:
        """Whether an image has one class alone."""
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

    def predict(self, logits: Tensor, classes: Tensor) -> Tensor:
        """(N,) int64, compared with ``classes`` (N,)."""
        ...

    def predict_from(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """As `predict`, of ``probabilities`` (N, K)."""
        ...

    def assigned(self, probabilities: Tensor) -> list[int]:
        """The classes that an image of ``probabilities`` (K,) is assigned."""
        ...


class OneOfMany:
    """Classes that exclude each other: softmax, and the most probable one is predicted."""

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

    def predict(self, logits: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002 - the same whatever it is compared with
        """(N,) int64: the most probable class."""
        return logits.argmax(dim=1)

    predict_from = predict

    def assigned(self, probabilities: Tensor) -> list[int]:
        """The most probable class of an image."""
        return [int(probabilities.argmax())]


class EachOfMany:
    """Labels that don't exclude each other: a sigmoid each, and those above one half are predicted."""

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

    def predict(self, logits: Tensor, classes: Tensor) -> Tensor:
        """(N,) int64: the label compared with if the model assigns it, or the most probable other one."""
        return self.predict_from(self.probabilities(logits), classes)

    def predict_from(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """As `predict`, of ``probabilities`` (N, K)."""
        compared = classes[:, None]
        others = probabilities.scatter(1, compared, -1.0).argmax(dim=1)
        return torch.where(probabilities.gather(1, compared).squeeze(1) > 0.5, classes, others)

    def assigned(self, probabilities: Tensor) -> list[int]:
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
