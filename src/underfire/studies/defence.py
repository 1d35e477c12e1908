"""Which set of interpreters detects best within a budget of passes, against the attacker who adapts?"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from underfire.attacks.control import EVEN, Sharing
from underfire.audit.names import make_interpreters, make_perturbation
from underfire.audit.plan import REFITTED, AuditPlan, Condition, PlannedPhoto
from underfire.audit.summary import CONTROLS
from underfire.classifier import Classifier
from underfire.defenses.adaptive import PASSES
from underfire.defenses.detector import photos_to_fit
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.ensemble_signals import Groups
from underfire.errors import InputError
from underfire.images.files import quoted
from underfire.interpreters import Interpreter
from underfire.report.wording import plural
from underfire.studies.defence_also import Attacked, attacks_in
from underfire.studies.defence_figure import defence_figure
from underfire.studies.defence_findings import Judge, Measured
from underfire.studies.defence_lines import Line, best, budget_line, details, summaries, table
from underfire.studies.defence_measure import MEAN_MAP, SQUEEZING, Contender, Meter
from underfire.studies.defence_trials import Attacker, Trial
from underfire.studies.defence_values import clean_photos, clean_values, harmless_names, run_values
from underfire.studies.defence_words import CLAIM, defence_words
from underfire.studies.kept import identity
from underfire.studies.source import Note, Run, attacked, quiet
from underfire.studies.study import Study
from underfire.training.photos import Photos

FPR = 0.05
"""The share of clean photos that a detector may flag, where nobody names another."""

STRICT = 0.01
"""The stricter rate at which detection is told as well, where there are photos enough for it."""

_GROUPS = ("pairs", "shapes", "agreed", "views")


def defence_study(
    run: Run,
    clean: Photos,
    classifier: Classifier,
    *,
    work: Path,
    sets: Sequence[Sequence[str]] = (),
    fpr: float = FPR,
    budget: int | None = None,
    passes: int = PASSES,
    sharings: Sequence[Sharing] = (EVEN,),
    grid: Sequence[float] = (),
    also: Mapping[str, Path] | None = None,
    limit: int | None = None,
    note: Note = quiet,
) -> Study:
    """Detectors over ``sets`` of interpreters, on the images of ``run`` and against an attacker who knows each.

    All on images as saved in 8 bit. ``work`` keeps what was measured and attacked, photo by photo; the same call goes
    on from there.

    Args:
        run: an audit with an attack.
        clean: photos to fit on; those that are in ``run`` as well are left out.
        classifier: that of the audit.
        work: a folder.
        sets: names of interpreters; by default all subsets of the run's, see `named_sets`.
        fpr: the rate of clean photos that may be flagged, in (0, 1).
        budget: passes that detection may cost for a photo; dearer sets are shown and not recommended.
        passes: of the attacker, for a photo.
        sharings: of the attacker; of several the one counts that evades best, photo by photo.
        grid: further budgets of the attacker on the best set, in the unit of the run's perturbation.
        also: further attacks on the same photos, see :func:`underfire.studies.defence_also.attacks_in`, by name.
        limit: at most so many of the attacked photos, the first ones.
        note: is told how the study comes along.

    Raises:
        InputError: there are too few clean photos for ``fpr``, no attack, no set within the ``budget``, or a name, a
            folder or an image is not what it should be.
    """
    everyone = attacked(run.photos)
    photos = everyone[:limit]
    perturbation = run.plan.perturbation_of(Condition("pgd"))
    further = [make_perturbation(perturbation.name, eps) for eps in sorted(set(grid)) if eps != perturbation.eps]
    costs = check_sets(run.plan, classifier, sets, budget)
    interpreters, contenders = contenders_of(run.plan, classifier, sets)
    candidates = [contender for contender in contenders if contender.is_set]
    attacks = _attacks(run, everyone, also or {})
    fitted_on = clean_photos(run, clean, classifier.dtype, note=note)
    rates = _rates(len(fitted_on.rows), fpr)
    seed = run.plan.seed
    meter = Meter(interpreters, contenders, seed=seed)
    settings = EnsembleDetector(interpreters, fpr=fpr, seed=seed).settings()
    where = identity(run, classifier.fingerprint(), settings, meter.names)
    images = identity(run, where, {name: sorted(map(repr, found.items())) for name, found in attacks.items()})
    measured = Measured(
        meter=meter,
        keys=fitted_on.keys,
        clean=clean_values(fitted_on, meter, classifier, work / "clean" / where, note=note),
        images=run_values(run, photos, attacks, meter, classifier, work / "images" / images, note=note),
        attacks={
            name: {p.image_id: found[p.image_id] for p in photos if p.image_id in found}
            for name, found in attacks.items()
        },
        harmless=harmless_names(seed),
    )
    attacker = Attacker(run, photos, sharings, passes, work / "adaptive", note)
    largest = _largest(candidates)
    judges = {c.key: Judge(c, measured, classifier, rates=rates, seed=seed) for c in contenders}
    trials: dict[str, Trial] = {}
    for place, contender in enumerate(candidates, start=1):
        baselines = [c for c in contenders if not c.is_set] if contender is largest else []
        trials[contender.key] = attacker.on(
            judges[contender.key].ensemble,
            perturbation,
            watched=[contender, *baselines],
            what=f"adaptive attack {place} of {len(candidates)} ({contender.key})",
        )
    findings = [
        judges[c.key].findings(trials[known.key], adapted_to=known.key)
        for c in contenders
        for known in (c if c.is_set else largest,)
    ]
    reference = _largest([c for c in candidates if budget is None or costs[c.key] <= budget])
    parts = [
        Judge(reference, measured, classifier, rates=rates, seed=seed, groups=groups).findings(
            trials[reference.key], adapted_to=reference.key, signals=name
        )
        for name, groups in _ablations(reference).items()
    ]
    judged = summaries(findings, budget=budget)
    chosen = next(c for c in candidates if c.key == best(judged).detector)
    budgets: list[Line] = []
    for model in further:
        judge = judges[chosen.key]
        trial = attacker.on(judge.ensemble, model, watched=[chosen], what=f"adaptive attack on the best ({chosen.key})")
        budgets.append(budget_line(judge.findings(trial, adapted_to=chosen.key), model))
    lines = [*judged, *budgets, *details(findings, parts)]
    return Study(
        name="defence",
        title="Which interpreters detect best, against the attacker who adapts?",
        claim=CLAIM,
        table=table(lines),
        figure=defence_figure(lines),
        words=defence_words(
            lines,
            photos=run.photos,
            skipped=run.skipped,
            beyond_limit=len(everyone) - len(photos),
            left_out=fitted_on.left_out,
            rates=rates,
            passes=passes,
            budget=budget,
            sharings=[sharing.name for sharing in sharings],
        ),
    )


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
    largest = _largest(contenders)
    if len(largest.interpreters) > 1:
        contenders.append(Contender(MEAN_MAP, largest.interpreters))
    return interpreters, (*contenders, Contender(SQUEEZING, ()))


def check_sets(
    plan: AuditPlan, classifier: Classifier, sets: Sequence[Sequence[str]], budget: int | None
) -> dict[str, int]:
    """By set what it costs, in passes for an image; refuses sets that cannot be, and a ``budget`` that none is within.

    Raises:
        InputError: there are such, see `contenders_of`.
    """
    _, contenders = contenders_of(plan, classifier, sets)
    costs = {c.key: c.detector(classifier, fpr=FPR, seed=0).signals.passes_per_image for c in contenders if c.is_set}
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


def _attacks(run: Run, photos: Sequence[PlannedPhoto], also: Mapping[str, Path]) -> dict[str, dict[str, Attacked]]:
    """By condition and photo the attacked images of ``run`` and of the folders ``also``."""
    if all(row.condition in CONTROLS for row in run.rows):
        raise InputError(f"the run {quoted(run.path)} has no attack; run an audit with --attacks pgd,adv2")
    found = attacks_in(run.path, photos)
    for name, folder in also.items():
        found |= attacks_in(folder, photos, name=name)
    return found


def _rates(clean: int, fpr: float) -> tuple[float, ...]:
    """The named rate, and the stricter one where there are photos enough for it."""
    check_enough(clean, fpr)
    return (fpr, STRICT) if fpr > STRICT and clean >= photos_to_fit(STRICT) else (fpr,)


def _largest(contenders: Sequence[Contender]) -> Contender:
    """The first of those with the most interpreters."""
    return max(contenders, key=lambda contender: len(contender.interpreters))


def _ablations(contender: Contender) -> dict[str, Groups]:
    """Each group of signals alone, and each left out; a single interpreter has no pairs."""
    names = [name for name in _GROUPS if name != "pairs" or len(contender.interpreters) > 1]
    alone = {f"{name} alone": Groups(**{other: other == name for other in _GROUPS}) for name in names}
    without = {f"without {name}": Groups(**{other: other != name for other in _GROUPS}) for name in names}
    return alone | without
