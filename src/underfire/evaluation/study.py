"""Which set of interpreters detects best within a budget of passes, against the attacker who adapts?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from underfire.attacks.control import EVEN, Sharing
from underfire.auditing.plan import PlannedPhoto
from underfire.defenses.adaptive import PASSES
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.signals import Signal
from underfire.defenses.views import default_views, described
from underfire.errors import InputError
from underfire.evaluation.extra import Attacked, attacks_in
from underfire.evaluation.figure import defence_figure
from underfire.evaluation.findings import Judge, Measured
from underfire.evaluation.lines import details, resources_line, search_line, sharing_line, summaries, table
from underfire.evaluation.oblivious import blind
from underfire.evaluation.sets import FPR, check_sets, contenders_of, largest, rates_for
from underfire.evaluation.signal_cache import Ledger
from underfire.evaluation.signals import Contender, Meter
from underfire.evaluation.trials import Attacker, Resources, Trial, further
from underfire.evaluation.values import CleanPhotos, clean_photos, clean_values, harmless_names, run_values
from underfire.evaluation.words import CLAIM, defence_words
from underfire.images.dataset import Photos
from underfire.images.files import quoted
from underfire.models.classifier import Classifier
from underfire.studies.kept import identity
from underfire.studies.source import Note, Run, attacked, quiet
from underfire.studies.study import Study


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
    eps_grid: Sequence[float] = (),
    passes_grid: Sequence[int] = (),
    search: int | None = None,
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
        eps_grid: further ε that the attacker tries on every set, in the unit of the run's perturbation.
        passes_grid: further numbers of its passes; both grids are tried with the first of ``sharings``.
        search: passes more, for a photo that a set flags, of a search by its score alone; None for no search.
        also: further attacks on the same photos, see :func:`underfire.evaluation.extra.attacks_in`, by name.
        limit: at most so many of the attacked photos, the first ones.
        note: is told how the study comes along.

    Raises:
        InputError: there are too few clean photos for ``fpr``, no attack, no set within the ``budget``, too few passes
            for a step, or a name, a folder or an image is not what it should be.
    """
    everyone = attacked(run.photos)
    photos = everyone[:limit]
    given = Resources.of(run.plan, passes)
    spendings = further(given, eps_grid, passes_grid)
    costs = check_sets(run.plan, classifier, sets, budget, [passes, *passes_grid], search)
    interpreters, contenders = contenders_of(run.plan, classifier, sets)
    candidates = [contender for contender in contenders if contender.is_set]
    biggest = largest(candidates)
    attacks = _attacks(run, everyone, also or {})
    fitted_on = clean_photos(run, clean, classifier.dtype, note=note)
    rates = rates_for(len(fitted_on.rows), fpr)
    attacks |= blind(run, photos, biggest.interpreters, given, work=work / "blind", note=note)
    seed = run.plan.seed
    views = list(map(described, default_views(classifier.input_size, seed)))
    where = work / "values" / identity(run, EnsembleSignals.version, classifier.fingerprint(), views, seed)
    ledger = Ledger(where, Meter(interpreters, contenders, seed=seed), note)
    measured = _measured(run, photos, fitted_on, attacks, ledger, classifier.dtype)
    judges = {c.key: Judge(c, measured, classifier, rates=rates, seed=seed) for c in contenders}
    attacker = Attacker(run, photos, interpreters, work / "adaptive", where, note)

    def attack(contender: Contender, resources: Resources, sharings: Sequence[Sharing]) -> Trial:
        what = f"adaptive attack {contenders.index(contender) + 1} of {len(contenders)} ({contender.key})"
        return attacker.on(contender, judges[contender.key].detector, resources, sharings, what=what)

    def searching(contender: Contender, trial: Trial, passes: int) -> Trial:
        detector = judges[contender.key].detector
        return attacker.searching(contender, detector, trial, passes, what=f"adaptive attack ({contender.key})")

    trials = {c.key: attack(c, given, sharings if c.is_set else sharings[:1]) for c in contenders}
    findings = [judges[c.key].findings(trials[c.key]) for c in contenders]
    spent = [
        resources_line(judges[c.key].findings(attack(c, some, sharings[:1]))) for some in spendings for c in candidates
    ]
    alone = [
        sharing_line(judges[c.key].findings(trials[c.key].alone(name)))
        for c in candidates
        for name in trials[c.key].attempts
        if len(trials[c.key].attempts) > 1
    ]
    searched = [
        search_line(judges[c.key].findings(searching(c, trials[c.key], search)), search)
        for c in candidates
        if search is not None
    ]
    reference = largest([c for c in candidates if budget is None or costs[c.key] <= budget])
    parts = [
        Judge(reference, measured, classifier, rates=rates, seed=seed, signals=kinds).findings(
            trials[reference.key], signals=name
        )
        for name, kinds in _ablations(reference).items()
    ]
    lines = [*summaries(findings, budget=budget), *spent, *alone, *searched, *details(findings, parts)]
    return Study(
        name="defense",
        title="Which interpreters detect best, against the attacker who adapts?",
        claim=CLAIM,
        claims=(),
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


def _measured(
    run: Run,
    photos: Sequence[PlannedPhoto],
    clean: CleanPhotos,
    attacks: Mapping[str, Mapping[str, Attacked]],
    ledger: Ledger,
    dtype: torch.dtype,
) -> Measured:
    """What the ledger's meter finds in ``clean`` photos, and in ``photos`` untouched, changed and attacked."""
    return Measured(
        meter=ledger.meter,
        keys=clean.keys,
        clean=clean_values(clean, ledger),
        images=run_values(run, photos, attacks, ledger, dtype),
        attacks={
            name: {p.image_id: found[p.image_id] for p in photos if p.image_id in found}
            for name, found in attacks.items()
        },
        harmless=harmless_names(run.plan.seed),
    )


def _attacks(run: Run, photos: Sequence[PlannedPhoto], also: Mapping[str, Path]) -> dict[str, dict[str, Attacked]]:
    """By condition and photo the attacked images of ``run`` and of the folders ``also``."""
    if all(row.condition.is_control for row in run.records):
        raise InputError(f"the run {quoted(run.path)} has no attack; run an audit with --attacks pgd,adv2")
    found = attacks_in(run.path, photos)
    for name, folder in also.items():
        found |= attacks_in(folder, photos, name=name)
    return found


def _ablations(contender: Contender) -> dict[str, tuple[type[Signal], ...]]:
    """Each signal alone, and each left out, but for those that the contender's interpreters have none of."""
    called = [g.name for g in contender.interpreters]
    every = EnsembleSignals(contender.interpreters).signals
    kinds = {signal.name: type(signal) for signal in every if signal.names(called)}
    alone = {f"{name} alone": (kind,) for name, kind in kinds.items()}
    without = {f"without {left}": tuple(kind for name, kind in kinds.items() if name != left) for left in kinds}
    return alone | without
