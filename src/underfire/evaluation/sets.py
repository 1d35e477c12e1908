"""The sets of interpreters that a study of defences compares, and what cannot be asked of them."""

from collections.abc import Iterable, Sequence
from itertools import combinations, product

from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import REFITTED, AuditPlan
from underfire.defenses.adaptive import steps_for
from underfire.defenses.detector import photos_to_fit
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.score_based import queries_for
from underfire.errors import InputError
from underfire.evaluation.signals import MEAN_MAP, SQUEEZING, Contender
from underfire.evaluation.trials import check_search
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.text import plural

FPR = 0.05
"""The share of clean photos that a detector may flag, where nobody names another."""

STRICT = 0.01
"""The stricter rate at which detection is told as well, where there are photos enough for it."""


def named_sets(plan: AuditPlan, sets: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """``sets``, each in the order of the plan's interpreters and then of their first naming, and each once.

    Without any, all non-empty subsets of the plan's interpreters, small ones first, MASK left out: it fits every map
    anew, and a detector asks for many.

    Raises:
        InputError: a set names an interpreter twice, or none is left.
    """
    if not sets:
        names = [name for name in plan.interpreters if name not in REFITTED]
        if not names:
            raise InputError(f"the run has no interpreter but {', '.join(plan.interpreters)}; name sets with --set")
        return tuple(found for size in range(1, len(names) + 1) for found in combinations(names, size))
    for names in map(list, sets):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"the set '{','.join(names)}' names '{twice}' twice; name it once")
    order = list(dict.fromkeys([*plan.interpreters, *(name for names in sets for name in names)]))
    return tuple(dict.fromkeys(tuple(sorted(names, key=order.index)) for names in sets))


def contenders_of(
    plan: AuditPlan, classifier: Classifier, sets: Sequence[Sequence[str]]
) -> tuple[tuple[Interpreter, ...], tuple[Contender, ...]]:
    """The interpreters that take part, and the detectors: one for each set of `named_sets`, and the baselines.

    The mean map is that of the largest set, if it has more than one interpreter.

    Raises:
        InputError: as `named_sets`, or ``classifier`` cannot have an interpreter.
    """
    named = named_sets(plan, sets)
    together = {name for names in named for name in names}
    order = dict.fromkeys([*plan.interpreters, *(name for names in named for name in names)])
    interpreters = make_interpreters([name for name in order if name in together], classifier, rts=plan.rts)
    by_name = {g.name: g for g in interpreters}
    contenders = [Contender("+".join(names), tuple(by_name[name] for name in names)) for names in named]
    most = largest(contenders).interpreters
    if len(most) > 1:
        contenders.append(Contender(MEAN_MAP, most))
    return interpreters, (*contenders, Contender(SQUEEZING, ()))


def check_sets(
    plan: AuditPlan,
    classifier: Classifier,
    sets: Sequence[Sequence[str]],
    budget: int | None,
    passes: Iterable[int],
    search: int | None,
) -> dict[str, int]:
    """By set what it costs, in passes for an image.

    Raises:
        InputError: there are sets that cannot be, see `contenders_of`; none is within ``budget``; an attack of so many
            ``passes`` on one of them has no step, or a ``search`` no two queries or another perturbation than it knows.
    """
    _, contenders = contenders_of(plan, classifier, sets)
    signals = {c.key: EnsembleSignals(c.interpreters) for c in contenders if c.is_set}
    for some, count in product(signals.values(), passes):
        steps_for(count, some)
    if search is not None:
        check_search(plan)
        for some in signals.values():
            queries_for(search, some)
    costs = {key: some.passes_per_image for key, some in signals.items()}
    cheapest = min(costs, key=lambda key: costs[key])
    if budget is not None and costs[cheapest] > budget:
        raise InputError(
            f"a budget of {budget} passes is below what any set costs; the cheapest, {cheapest}, takes "
            f"{costs[cheapest]}: give at least that"
        )
    return costs


def check_enough(clean: int, fpr: float) -> None:
    """Refuse a number of ``clean`` photos that is too small for the rate ``fpr``; raises `InputError`."""
    needed = photos_to_fit(fpr)
    if clean < needed:
        raise InputError(
            f"{plural(clean, 'clean photo')} can be used, too few for a false-positive rate of {fpr:g}; give at least "
            f"{needed} with --clean, or a higher rate"
        )


def largest(contenders: Sequence[Contender]) -> Contender:
    """The first of those with the most interpreters."""
    return max(contenders, key=lambda contender: len(contender.interpreters))


def rates_for(clean: int, fpr: float) -> tuple[float, ...]:
    """The named rate, and the stricter one where there are photos enough for it."""
    check_enough(clean, fpr)
    return (fpr, STRICT) if fpr > STRICT and clean >= photos_to_fit(STRICT) else (fpr,)
