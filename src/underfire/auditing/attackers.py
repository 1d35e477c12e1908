"""The attacks that a plan means."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from underfire.attacks.joint import JointAttack, Terms
from underfire.attacks.registry import entry_of
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
