"""One attack from checked input to scored result, shared by all compositions of the loop."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from underfire.attacks.engine import Outcome, Setting, descend
from underfire.attacks.finals import decide
from underfire.attacks.labels import Confidence, LabelGoal
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.result import AttackResult
from underfire.interpreters.base import Interpreter, MapObjective, MapTarget
from underfire.models.classifier import Classifier
from underfire.models.decisions import probability
from underfire.models.folded import prepared

ObjectiveOf = Callable[[Interpreter, MapTarget], MapObjective]
"""How an attack aims at an interpreter's map."""


def own_objective(interpreter: Interpreter, target: MapTarget) -> MapObjective:
    """The objective that the interpreter gives itself."""
    return interpreter.objective(target)


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
    objective_of: ObjectiveOf = own_objective,
) -> AttackResult:
    """Attack a checked batch on the prepared classifier and score what comes out on the unmodified one."""
    started = time.perf_counter()
    x = x.detach()
    goal = setting.map_goal
    objectives = [
        objective_of(g, MapTarget(target, goal.aimed(maps), keys, seed, goal)) for g, maps in target_maps.items()
    ]
    outcome = descend(prepared(classifier), x, target, objectives, setting)
    known: Mapping[str, Tensor] = {}
    if outcome.finalists:
        decided = decide(classifier, target, target_maps, outcome, label=setting.label, goal=goal, keys=keys)
        outcome, known = decided.outcome, decided.maps
    return score(
        name,
        classifier,
        x,
        target,
        target_maps,
        outcome,
        known=known,
        perturbation=setting.perturbation,
        steps=setting.schedule.steps,
        label=setting.label,
        keys=keys,
        started=started,
    )


def score(
    name: str,
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    target_maps: Mapping[Interpreter, Tensor],
    outcome: Outcome,
    *,
    known: Mapping[str, Tensor] | None = None,
    perturbation: Perturbation,
    steps: int,
    label: LabelGoal | None = None,
    keys: tuple[str, ...],
    started: float,
) -> AttackResult:
    """Score what came out of an attack on ``x`` (N, C, H, W) that began at ``started``, on the unmodified classifier.

    ``known`` are maps (N, h, w) of the outcome's images by interpreter that were taken already; ``label`` says what
    counts as success, by default that the prediction is ``target``.

    Raises:
        RuntimeError: an image is beyond the budget, a mistake of ours.
    """
    x_adv = outcome.x_adv.contiguous()
    _check_budget(perturbation, x, x_adv, outcome.used)
    with torch.no_grad():
        logits = classifier(x_adv)
    prediction = classifier.decision.predict(logits, target)
    return AttackResult(
        attack=name,
        x=x,
        x_adv=x_adv,
        target=target,
        prediction=prediction,
        success=(label or Confidence()).met(classifier.decision, logits, target),
        confidence=probability(classifier.decision, logits, target),
        maps=known or {g.name: g(x_adv, target, keys=keys) for g in target_maps},
        target_maps={g.name: maps for g, maps in target_maps.items()},
        passes=outcome.passes.cpu(),
        steps=steps,
        seconds=time.perf_counter() - started,
        perturbation=perturbation,
        used=outcome.used,
        trace=outcome.trace,
        keys=keys,
    )


def _check_budget(model: Perturbation, x: Tensor, x_adv: Tensor, used: Tensor) -> None:
    """Raise RuntimeError if an image is beyond the budget of ``model``: it does not project as it should."""
    slack = 4 * torch.finfo(used.dtype).eps * max(1.0, model.eps)
    inside = (used <= model.eps + slack) & model.contains(x, x_adv) & _in_range(x_adv)
    if not inside.all():
        worst = int((~inside).nonzero()[0])
        raise RuntimeError(
            f"the perturbation '{model.name}' broke its budget: image {worst} uses {float(used[worst]):g} of "
            f"{model.eps:g} ({model.unit}) with values from {float(x_adv[worst].min()):g} to "
            f"{float(x_adv[worst].max()):g}; this is a mistake in its project or image."
        )


def _in_range(images: Tensor) -> Tensor:
    flat = images.flatten(1)
    return ((flat >= 0) & (flat <= 1)).all(dim=1)
