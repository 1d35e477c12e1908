"""Adversarial interpretation training: a masking network that is trained with ADV² in the loop.

The abstract of Zhang et al. (2020) names a countermeasure of this name. What is below is a design of our own and no
reproduction of theirs. A network that is trained already goes on training. Each batch of benign photos is attacked by a
short ADV² that knows the network as it is at that step and wants the benign maps for a random class. RTS's own loss on
the benign photos goes on, and two parts join it: *stay*, the benign maps stay what they were before; *show*, the map of
an adversarial image for the target class, which is not there, becomes emptier than the benign one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.attacks.adv2 import ADV2
from underfire.images.dataset import Split
from underfire.interpreters.maps import distance
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.interpreters.rts import RTS
from underfire.models.classifier import Classifier
from underfire.seeding import generator
from underfire.training.batches import Batch
from underfire.training.loop import Listener
from underfire.training.losses import aid_loss
from underfire.training.networks import train_network
from underfire.training.plan import AidPlan
from underfire.training.scores import RtsScore, means, numbers
from underfire.training.step import StepOutput, TrainingStep

METHOD = "adversarial interpretation training"
"""What the file of the weights says of how they were made."""


@dataclass(frozen=True)
class AidScore(RtsScore):
    """The score of a masking network, and what the training is for.

    Attributes:
        stayed: mean L1 distance of the held-out photos' maps from those of the weights it began with.
        reached: of the few held-out photos that are attacked as in training, the share that got the target class.
        showed: mean L1 distance of their adversarial maps from their benign ones; 0 where no photo got there.
    """

    stayed: float
    reached: float
    showed: float


def train_aid(
    classifier: Classifier,
    photos: Split,
    start: Path,
    out: Path,
    *,
    plan: AidPlan,
    listener: Listener,
    encoder: Classifier | None = None,
) -> MaskingNetwork:
    """Train the masking network whose weights are in ``start`` on, against ADV², and write it to ``out``.

    See ``loop.train`` for the rest. The file is an ordinary one of RTS; its settings say that it was made by
    :data:`METHOD` and from which file, by its SHA-256.

    Raises:
        InputError: ``start`` is damaged or of another classifier, there is a file or a checkpoint of other settings,
            the passes don't pay for an attack, or the loss of a photo is not a number.
    """
    before = MaskingNetwork.load(start, classifier, encoder=encoder)

    def lesson() -> AidLesson:
        return AidLesson(MaskingNetwork.load(start, classifier, encoder=encoder), before, classifier, plan)

    return train_network(
        lesson,
        classifier,
        photos,
        out,
        plan=plan,
        listener=listener,
        encoder=encoder,
        method=METHOD,
        start_sha256=hashlib.sha256(start.read_bytes()).hexdigest(),
    )


class AidLesson:
    """Keep the maps of benign photos, and let those of adversarial images differ."""

    def __init__(self, network: MaskingNetwork, before: MaskingNetwork, classifier: Classifier, plan: AidPlan) -> None:
        self.network = network
        self._before, self._classifier, self._plan = before, classifier, plan
        self._step = TrainingStep.of(network, classifier, plan)
        self._attack = ADV2(RTS(classifier, network=network), eps=plan.attack_eps, passes=plan.attack_passes)

    def losses(self, batch: Batch, done: float) -> Tensor:  # noqa: ARG002 - part of a lesson
        """RTS's own loss and what :func:`aid_loss` adds, the same from the first step to the last."""
        benign = self._step(batch)
        found = self._attacked(batch, benign.top)
        return benign.loss + aid_loss(benign.maps, self._maps_before(benign), found.maps, found.reached, self._plan)

    def score(self, held_out: Iterable[Batch]) -> AidScore:
        """The score of all held-out photos, and of an attack on the first few."""
        everywhere, watched, left = [], [], self._plan.watched
        for batch in held_out:
            seen = self._step(batch)
            everywhere.append(numbers(seen) | {"stayed": distance(seen.maps, self._maps_before(seen))})
            if left:
                few = batch.first(left)
                watched.append(self._watch(few, seen))
                left -= len(few)
        reached, showed = (torch.cat([part[name] for part in watched]) for name in ("reached", "showed"))
        return AidScore(
            **means(everywhere),
            reached=float(reached.double().mean()),
            showed=float(showed[reached].double().mean()) if reached.any() else 0.0,
        )

    def save(self, out: Path, about: Mapping[str, Any]) -> None:
        """Write the masking network."""
        self.network.save(out, self._classifier, **about)

    def _watch(self, few: Batch, seen: StepOutput) -> dict[str, Tensor]:
        """For each of the ``few``, the first that were ``seen``: whether the attack got there, and what shows."""
        found = self._attacked(few, seen.top[: len(few)])
        return {"reached": found.reached, "showed": distance(found.maps, seen.maps[: len(few)])}

    def _attacked(self, batch: Batch, top: Tensor) -> "_Attacked":
        """What the attack makes of ``batch``, whose classes are ``top``."""
        target = self.targets(batch, top)
        made = self._attack(batch.x, target, label=top, keys=batch.names)
        return _Attacked(self._step.maps(made.x_adv, target), made.success)

    def targets(self, batch: Batch, top: Tensor) -> Tensor:
        """A random class for each photo, any but its own."""
        others = self._classifier.num_classes - 1
        draws = [generator(self._plan.seed, "target", batch.moment, name) for name in batch.names]
        drawn = torch.stack([torch.randint(others, (), generator=draw) for draw in draws]).to(top)
        return drawn + (drawn >= top)

    @torch.no_grad()
    def _maps_before(self, seen: StepOutput) -> Tensor:
        return self._before.maps(seen.view, seen.top)


@dataclass(frozen=True)
class _Attacked:
    """Maps (N, h, w) of adversarial images for the target class, attached, and (N,) whether it is the top class."""

    maps: Tensor
    reached: Tensor
