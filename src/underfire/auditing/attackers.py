"""The attacks that a plan means, and how they are called."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from underfire.attacks.joint import JointAttack, Terms
from underfire.attacks.registry import entry_of
from underfire.attacks.result import AttackResult
from underfire.auditing.condition import Condition
from underfire.auditing.plan import AuditPlan
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier


def attack_of(
    plan: AuditPlan,
    condition: Condition,
    classifier: Classifier,
    interpreters: Sequence[Interpreter],
    *,
    given: Mapping[str, JointAttack] = MappingProxyType({}),
) -> JointAttack:
    """The attack of ``condition`` on ``classifier`` and on the one of the ``interpreters`` that it names, if any.

    ``given`` are attacks that are made already, by their conditions.

    Raises:
        InputError: the plan's passes don't pay for a single step, or the attack does not suit the interpreter.
    """
    if str(condition) in given:
        return given[str(condition)]
    terms = Terms(plan.perturbation_of(condition), plan.effort_of(condition), plan.seed, condition.wanted)
    attacked = [g for g in interpreters if condition.is_own(g.name)]
    return entry_of(condition.attack).make(classifier, attacked, terms, preset=plan.preset)


def attacked(
    attack: JointAttack,
    condition: Condition,
    x: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    benign: Mapping[str, Tensor],
    keys: Sequence[str],
) -> AttackResult:
    """What ``attack`` makes of the images ``x`` (N, C, H, W) under ``condition``.

    Args:
        attack: that of the condition.
        condition: which goal it has.
        x: benign images in [0, 1], on the classifier's device as all tensors here.
        labels: (N,) the classes that are theirs, int64.
        targets: (N,) the classes to lead to, where that is the goal.
        benign: maps (N, h, w) of the images by interpreter, at least of those under attack.
        keys: one name per image, the owner of its random numbers.
    """
    goal = condition.wanted
    maps = {g.name: benign[g.name] for g in attack.interpreters} or None
    if goal is not None and goal.label == "kept":
        return attack(x, labels, keys=keys)
    if goal is not None and goal.label == "other":
        return attack(x, None, target_map=maps, label=labels, keys=keys)
    return attack(x, targets, target_map=maps, keys=keys)
