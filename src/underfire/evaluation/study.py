"""Which set of interpreters detects best within a budget of passes, against the adaptive attacker?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from underfire.attacks.control import Weighting
from underfire.auditing.cache import cache_key
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.run import Run
from underfire.defenses.adaptive import PASSES
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.views import default_views, described
from underfire.errors import InputError
from underfire.evaluation.attackers import (
    WEIGHTINGS,
    AdaptiveAttacker,
    AdaptiveTrial,
    AttackBudget,
    oblivious_attack,
)
from underfire.evaluation.detectors import (
    CandidateDetector,
    DetectorName,
    ablations,
    candidates_of,
    check_enough,
    largest,
    rates_for,
)
from underfire.evaluation.extra_attacks import AttackedImage, ObliviousAttack, attacks_in
from underfire.evaluation.figure import defense_figure
from underfire.evaluation.measurements import Measurements, clean_photos, measured
from underfire.evaluation.options import DefenseOptions
from underfire.evaluation.results import DetectorRecord, DetectorResult, adaptive_record, details, result_of, summaries
from underfire.evaluation.signals import FittedDetector, SignalCache, SignalExtractor
from underfire.evaluation.words import CLAIM, defense_claims, defense_words
from underfire.files import quoted
from underfire.images.dataset import Photos
from underfire.models.classifier import Classifier
from underfire.present.tables import to_arrow
from underfire.studies.options import StudySource
from underfire.studies.reruns import taking_part
from underfire.studies.source import Note, attacked, quiet
from underfire.studies.study import Study


def study(source: StudySource, options: DefenseOptions) -> Study:
    """The study as the command line calls it."""
    options.check()
    passes = source.plan.passes or PASSES
    known: list[Photos] = []

    def check(plan: AuditPlan, classifier: Classifier) -> None:
        options.check_with(plan, classifier, passes)
        known.append(source.usable(options.clean, classifier))
        check_enough(len(known[0]), options.fpr)

    run = source.audited(check)
    classifier = run.classifier(source.plan.device)
    if not known:
        check(run.plan, classifier)
    return defense_study(
        run,
        known[0],
        classifier,
        options,
        work=source.work,
        passes=passes,
        limit=source.limit,
        note=source.note,
    )


def defense_study(
    run: Run,
    clean: Photos,
    classifier: Classifier,
    options: DefenseOptions,
    *,
    work: Path,
    passes: int = PASSES,
    limit: int | None = None,
    note: Note = quiet,
) -> Study:
    """Detectors over sets of interpreters, on the images of ``run`` and against an attacker who knows each.

    All on images as saved in 8 bit. ``work`` caches what was measured and attacked, photo by photo; the same call goes
    on from there.

    Args:
        run: an audit with an attack.
        clean: photos to fit on; those that are in ``run`` as well are left out.
        classifier: that of the audit.
        options: what is compared, and how; of its photos, ``clean`` are those that can be decoded.
        work: a folder.
        passes: of the adaptive attacker, for a photo.
        limit: at most so many of the attacked photos, the first ones.
        note: reports progress.

    Raises:
        InputError: there are too few clean photos for the rate, no attack, no set within the budget, too few passes
            for a step, or a name, a folder or an image is not what it should be.
    """
    collected = _collect(run, clean, classifier, options, work=work, passes=passes, limit=limit, note=note)
    records = _judge(collected)
    return Study(
        name="defense",
        title="Which interpreters detect best, against an adaptive attacker?",
        claim=CLAIM,
        claims=defense_claims(records),
        table=to_arrow(records, DetectorRecord),
        figure=defense_figure(records),
        words=defense_words(
            records,
            taking_part=taking_part(run.photos, run.skipped),
            beyond_limit=collected.beyond_limit,
            left_out=collected.left_out,
            rates=collected.rates,
            passes=passes,
            budget=options.budget,
            all_weightings=list(dict.fromkeys(options.weighting)),
        ),
    )


@dataclass(frozen=True)
class _Collected:
    """What the study works on, and how detectors are attacked.

    Attributes:
        options: of the study.
        candidates: the sets and the baselines.
        costs: of the sets, in passes for an image.
        rates: at which detectors are fitted, the nominal one first.
        measurements: of clean photos and of the run's images.
        fitted: by detector.
        attacker: the adaptive one.
        spent: the attacker's budget.
        beyond_limit: photos that the study left out.
        left_out: clean photos that show the same as others.
    """

    options: DefenseOptions
    candidates: tuple[CandidateDetector, ...]
    costs: Mapping[DetectorName, int]
    rates: tuple[float, ...]
    measurements: Measurements
    fitted: Mapping[DetectorName, FittedDetector]
    attacker: AdaptiveAttacker
    spent: AttackBudget
    beyond_limit: int
    left_out: int

    @property
    def sets(self) -> tuple[CandidateDetector, ...]:
        """The candidates that are no baselines."""
        return tuple(candidate for candidate in self.candidates if candidate.is_set)

    @property
    def weightings(self) -> list[Weighting]:
        """Of the adaptive attacker, each once."""
        return [WEIGHTINGS[name] for name in dict.fromkeys(self.options.weighting)]

    def trial(self, candidate: CandidateDetector, spent: AttackBudget, weightings: list[Weighting]) -> AdaptiveTrial:
        """An adaptive attack on ``candidate``."""
        place = self.candidates.index(candidate) + 1
        what = f"adaptive attack {place} of {len(self.candidates)} ({candidate.name})"
        return self.attacker.attack(self.fitted[candidate.name], spent, weightings, what=what)

    def result(self, candidate: CandidateDetector, trial: AdaptiveTrial) -> DetectorResult:
        """What ``candidate`` makes of all images, and of ``trial``."""
        return result_of(self.fitted[candidate.name], self.measurements, trial)


def _collect(
    run: Run,
    clean: Photos,
    classifier: Classifier,
    options: DefenseOptions,
    *,
    work: Path,
    passes: int,
    limit: int | None,
    note: Note,
) -> _Collected:
    """Checks the options, measures all images, and fits every detector."""
    everyone = attacked(run.photos)
    photos = everyone[:limit]
    costs = options.check_with(run.plan, classifier, passes)
    spent, seed = AttackBudget.of(run.plan, passes), run.plan.seed
    interpreters, candidates = candidates_of(run.plan, classifier, options.sets)
    attacks = _attacks(run, everyone, options)
    fitted_on = clean_photos(run, clean, classifier.dtype, note=note)
    rates = rates_for(len(fitted_on.rows), options.fpr)
    all_maps = largest([c for c in candidates if c.is_set]).interpreters
    attacks |= oblivious_attack(run, photos, all_maps, spent, work=work / "blind", note=note)
    views = list(map(described, default_views(classifier.input_size, seed)))
    key = cache_key(run, EnsembleSignals.version, classifier.fingerprint(), views, seed)
    cache = SignalCache(work / "values" / key, SignalExtractor(interpreters, candidates, seed=seed), note)
    measurements = measured(run, photos, fitted_on, attacks, cache, classifier.dtype)
    return _Collected(
        options=options,
        candidates=candidates,
        costs=costs,
        rates=rates,
        measurements=measurements,
        fitted={
            c.name: FittedDetector.fit(c, cache.extractor, measurements.clean, rates=rates, seed=seed)
            for c in candidates
        },
        attacker=AdaptiveAttacker(run, photos, interpreters, work / "adaptive", work / "values" / key, note),
        spent=spent,
        beyond_limit=len(everyone) - len(photos),
        left_out=fitted_on.left_out,
    )


def _attacks(
    run: Run, photos: tuple[PlannedPhoto, ...], options: DefenseOptions
) -> dict[ObliviousAttack, Mapping[str, AttackedImage]]:
    """The attacked images of ``run`` and of the extra attacks."""
    if all(row.condition.is_control for row in run.records):
        raise InputError(f"the run {quoted(run.path)} has no attack; run an audit with --attacks pgd,adv2")
    found = dict(attacks_in(run.path, photos))
    for name, folder in options.extra_attacks:
        found |= attacks_in(folder, photos, name=name)
    return found


def _judge(collected: _Collected) -> list[DetectorRecord]:
    """Attacks every detector adaptively, and counts what it makes of all images."""
    options, first = collected.options, collected.weightings[:1]
    trials = {
        c.name: collected.trial(c, collected.spent, collected.weightings if c.is_set else first)
        for c in collected.candidates
    }
    results = [collected.result(c, trials[c.name]) for c in collected.candidates]
    adaptive = list(_adaptive_records(collected, trials))
    reference = largest(
        [c for c in collected.sets if options.budget is None or collected.costs[c.name] <= options.budget]
    )
    parts = [
        result_of(
            FittedDetector.fit(
                reference,
                collected.measurements.extractor,
                collected.measurements.clean,
                rates=collected.rates,
                seed=collected.attacker.run.plan.seed,
                signals=kinds,
            ),
            collected.measurements,
            trials[reference.name],
            signals=name,
        )
        for name, kinds in ablations(reference).items()
    ]
    return [*summaries(results, budget=options.budget), *adaptive, *details(results, parts)]


def _adaptive_records(collected: _Collected, trials: Mapping[DetectorName, AdaptiveTrial]) -> Iterator[DetectorRecord]:
    """Of every set, by the attacker's budget, by weighting, and after a score-based attack."""
    options, first = collected.options, collected.weightings[:1]
    for spent in collected.spent.along(options.eps_grid, options.passes_grid):
        for c in collected.sets:
            yield adaptive_record("resources", collected.result(c, collected.trial(c, spent, first)))
    for c in collected.sets:
        trial = trials[c.name]
        for weighting in trial.attempts if len(trial.attempts) > 1 else ():
            yield adaptive_record("sharing", collected.result(c, trial.alone(weighting)))
    for c in collected.sets if options.score_search is not None else ():
        searched = collected.attacker.search(
            collected.fitted[c.name], trials[c.name], options.score_search or 0, what=f"adaptive attack ({c.name})"
        )
        yield adaptive_record("search", collected.result(c, searched))
