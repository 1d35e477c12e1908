"""Training of RTS's masking network."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from underfire.images.dataset import Split
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.models.classifier import Classifier
from underfire.training.batches import Batch
from underfire.training.loop import Listener
from underfire.training.networks import train_network
from underfire.training.plan import RtsPlan
from underfire.training.scores import RtsScore, means, numbers
from underfire.training.step import TrainingStep


def train_rts(
    classifier: Classifier,
    photos: Split,
    out: Path,
    *,
    plan: RtsPlan,
    listener: Listener,
    encoder: Classifier | None = None,
) -> MaskingNetwork:
    """Train a masking network for ``classifier`` from random weights and write it to ``out``; see ``loop.train``.

    Raises:
        InputError: there is a file or a checkpoint of other settings, the classifier has no linear head, or the loss of
            a photo is not a number.
    """

    def lesson() -> RtsLesson:
        return RtsLesson(MaskingNetwork.untrained(classifier, encoder=encoder, seed=plan.seed), classifier, plan)

    return train_network(lesson, classifier, photos, out, plan=plan, listener=listener, encoder=encoder)


class RtsLesson:
    """Show the part that keeps the top class and destroys it, and nothing for an absent class."""

    def __init__(self, network: MaskingNetwork, classifier: Classifier, plan: RtsPlan) -> None:
        self.network, self._classifier = network, classifier
        self._step, self._ramp = TrainingStep.of(network, classifier, plan), plan.ramp

    def losses(self, batch: Batch, done: float) -> Tensor:
        """RTS's loss, the area at the weight that the plan's ramp gives it by now."""
        return self._step(batch, share=min(1.0, done / self._ramp) if self._ramp else 1.0).loss

    def score(self, held_out: Iterable[Batch]) -> RtsScore:
        """The score of the held-out photos."""
        return RtsScore(**means([numbers(self._step(batch)) for batch in held_out]))

    def save(self, out: Path, about: Mapping[str, Any]) -> None:
        """Write the masking network."""
        self.network.save(out, self._classifier, **about)
