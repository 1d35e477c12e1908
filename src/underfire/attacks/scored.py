"""One attack from checked input to scored result, shared by all compositions of the loop."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from underfire.attacks.control import probability
from underfire.attacks.engine import Setting, descend
from underfire.attacks.result import AttackResult
from underfire.classifier import Classifier
from underfire.interpreters.base import Interpreter, Task
from underfire.prepared import prepared


def attack_and_score(
    name: str,
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    target_maps: Mapping[Interpreter, Tensor],
    setting: Setting,
    *,
    keys: tuple[str, ...],
    seed: int,
) -> AttackResult:
    """Attack a checked batch on the prepared classifier and score what comes out on the unmodified one."""
    started = time.perf_counter()
    x = x.detach()
    goals = [(g, Task(target, maps, keys, seed)) for g, maps in target_maps.items()]
    if x.shape[0]:
        outcome = descend(prepared(classifier), x, target, goals, setting)
        x_adv, passes = outcome.x_adv.contiguous(), outcome.passes
    else:
        x_adv, passes = x.clone(), 0
    with torch.no_grad():
        logits = classifier(x_adv)
    prediction = logits.argmax(dim=1)
    return AttackResult(
        attack=name,
        x=x,
        x_adv=x_adv,
        target=target,
        prediction=prediction,
        success=prediction == target,
        confidence=probability(logits, target),
        maps={g.name: g(x_adv, target, keys=keys) for g in target_maps},
        target_maps={g.name: maps for g, maps in target_maps.items()},
        passes=torch.full((x.shape[0],), passes, dtype=torch.int64),
        steps=setting.schedule.steps,
        seconds=time.perf_counter() - started,
        eps=setting.perturbation.eps,
        keys=keys,
    )
