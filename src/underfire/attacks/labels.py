"""What an attack wants of the prediction: a class, any other class, or no change."""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from underfire.models.decisions import Decision, probability

TOLERANCE = 0.1
"""By so much the probability of a label that is kept may change."""


class LabelGoal(Protocol):
    """A goal on the prediction; of every method ``logits`` are (N, K) and ``target`` (N,) the classes attacked."""

    def aim(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The classes (N,) whose −log p a step moves."""
        ...

    def sign(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) 1 where it shall fall, −1 where it shall rise."""
        ...

    def loss(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The prediction loss (N,), lower where the goal is nearer; detached."""
        ...

    def met(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) bool: the goal is met."""
        ...

    def label_reached(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) bool: it is met so clearly that an iterate may be kept for its map."""
        ...

    def needs_confidence(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) bool: the next step minds the prediction."""
        ...

    def select(self, places: Tensor) -> Self:
        """The goal of the images at ``places``."""
        ...


@dataclass(frozen=True)
class Confidence:
    """The prediction is the target class, and p_t at least ``keep``.

    A step minds the prediction as long as p_t is below ``seek``, a little above ``keep``, so that the label
    is not lost by the next step on the map.
    """

    keep: float = 0.9
    seek: float = 0.95

    def aim(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """The target classes."""
        return target

    def sign(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """It shall fall."""
        return logits.new_ones(len(target))

    def loss(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """−log p_t, in nats."""
        return decision.nll(logits.detach(), self.aim(decision, logits, target))

    def met(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The prediction is the target class, whatever p_t."""
        return decision.predict(logits, target) == target

    def label_reached(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """It is, with p_t of at least ``keep``."""
        p = probability(decision, logits, self.aim(decision, logits, target))
        return (p >= self.keep) & self.met(decision, logits, target)

    def needs_confidence(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """While p_t is below ``seek``."""
        return probability(decision, logits, self.aim(decision, logits, target)) < self.seek

    def select(self, places: Tensor) -> Self:  # noqa: ARG002
        """The same for any images."""
        return self


@dataclass(frozen=True)
class OtherLabel(Confidence):
    """The prediction is any class but the one attacked, and that class's probability at least ``keep``.

    A step goes towards the class that is the most probable of the others, whichever that is at the time.
    """

    def aim(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The most probable of the other classes."""
        return decision.probabilities(logits.detach()).scatter(1, target[:, None], -1.0).argmax(dim=1)

    def met(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The prediction is another class."""
        return decision.predict(logits, target) != target


@dataclass(frozen=True)
class KeptLabel:
    """The prediction stays, and its probability within ``tolerance`` of what it was.

    Attributes:
        before: (N,) the probability of the label on the benign images.
        tolerance: of its change; an iterate counts up to nine tenths of it, and a step minds it from three quarters on.
    """

    before: Tensor
    tolerance: float = TOLERANCE

    def aim(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """The labels."""
        return target

    def sign(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """Back to where the probability was; up where another class leads."""
        low = (self._change(decision, logits, target) <= 0) | ~self._leads(decision, logits, target)
        return torch.where(low, 1.0, -1.0).to(logits.dtype)

    def loss(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The change of the probability, and 1 where another class leads."""
        moved = self._change(decision, logits, target).abs()
        return moved + (~self._leads(decision, logits, target)).to(moved)

    def met(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """The label leads, and its probability changed by no more than the tolerance."""
        return self._within(decision, logits, target, 1.0)

    def label_reached(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """It does, with a tenth of the tolerance to spare."""
        return self._within(decision, logits, target, 0.9)

    def needs_confidence(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        """Where the change is above three quarters of the tolerance, or another class leads."""
        return ~self._within(decision, logits, target, 0.75)

    def select(self, places: Tensor) -> Self:
        """The goal of the images at ``places``."""
        return replace(self, before=self.before[places])

    def _within(self, decision: Decision, logits: Tensor, target: Tensor, share: float) -> Tensor:
        near = self._change(decision, logits, target).abs() <= share * self.tolerance
        return near & self._leads(decision, logits, target)

    def _change(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        return probability(decision, logits, target) - self.before

    def _leads(self, decision: Decision, logits: Tensor, target: Tensor) -> Tensor:
        return decision.predict(logits, target) == target
