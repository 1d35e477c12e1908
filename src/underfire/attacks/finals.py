"""The last choice of an attack whose own course does not tell which of its iterates is best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from underfire.attacks.budget import passes_for_finalists
from underfire.attacks.engine import Outcome
from underfire.attacks.keepers import KeptIterates
from underfire.attacks.labels import LabelGoal
from underfire.attacks.trace import Trace
from underfire.interpreters.base import Interpreter
from underfire.interpreters.map_goals import NEAR, MapGoal
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Decided:
    """What was chosen, and the maps (N, h, w) of its images by interpreter."""

    outcome: Outcome
    maps: Mapping[str, Tensor]


def decide(
    classifier: Classifier,
    target: Tensor,
    target_maps: Mapping[Interpreter, Tensor],
    outcome: Outcome,
    *,
    label: LabelGoal,
    goal: MapGoal = NEAR,
    keys: tuple[str, ...],
) -> Decided:
    """Of the finalists of ``outcome`` the one, for each image, whose maps are nearest the target maps where p_t holds.

    Every finalist's maps are taken afresh, on the unmodified ``classifier``, as they will be scored; where there is a
    choice they count among the passes. The trace tells the losses of what was chosen.
    """
    finalists = outcome.finalists
    rows = torch.arange(len(target), device=target.device)
    number = outcome.x_adv.new_zeros(len(target))  # of the finalist that leads, for each image
    best, taken = KeptIterates(number), []
    for k, finalist in enumerate(finalists):
        images = finalist.x_adv.contiguous()
        with torch.no_grad():
            logits = classifier(images)
        maps = {g.name: g(images, target, keys=keys) for g in target_maps}
        map_distance = torch.stack(
            [goal.distance(maps[g.name], goal.aimed(reference)) for g, reference in target_maps.items()]
        ).mean(dim=0)
        nll = label.loss(classifier.decision, logits, target)
        reached = label.label_reached(classifier.decision, logits, target)
        best.offer(number + k, rows=rows, reached=reached, nll=nll, distance=map_distance)
        taken.append(maps)
    chosen = best.theta.long()
    cost = passes_for_finalists(finalists, tuple(target_maps))
    return Decided(
        replace(
            outcome,
            x_adv=torch.stack([f.x_adv for f in finalists])[chosen, rows],
            used=torch.stack([f.used for f in finalists])[chosen, rows],
            passes=outcome.passes + cost,
            trace=_ending(outcome.trace, nll=best.nll, distance=best.distance),
            finalists=(),
        ),
        {name: torch.stack([maps[name] for maps in taken])[chosen, rows] for name in taken[0]},
    )


def _ending(trace: Trace, *, nll: Tensor, distance: Tensor) -> Trace:
    # What the loop noted at half of its steps is the map distance of a shorter fit, which nothing may be compared with.
    maps = None if trace.maps is None else replace(trace.maps, half=distance, kept=distance)
    return replace(trace, prediction=replace(trace.prediction, kept=nll), maps=maps)
