"""Which set of interpreters detects best within a budget of passes, against the adaptive attacker?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from underfire.attacks.control import Weighting
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.run import Run
from underfire.defenses.adaptive import PASSES
from underfire.errors import InputError
from underfire.evaluation.attackers import WEIGHTINGS, AdaptiveTrial, AttackBudget, Attacker
from underfire.evaluation.detectors import (
    CandidateDetector,
    DetectorName,
    FittedDetector,
    ablations,
    check_enough,
    largest,
    rates_for,
)
from underfire.evaluation.extra_attacks import AttackedImage, ObliviousAttack, attacks_in
from underfire.evaluation.figure import defense_figure
from underfire.evaluation.measurements import Measurements, clean_rows, clean_signals, measured
from underfire.evaluation.options import DefenseOptions
from underfire.evaluation.results import DetectorRecord, DetectorResult, details, result_of, summaries
from underfire.evaluation.signals import SignalCache, SignalExtractor, signal_folder
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
        run, known[0], classifier, options, work=source.work, passes=passes, limit=source.limit, note=source.note
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
    everyone = attacked(run.photos)
    interpreters, candidates = options.check_with(run.plan, classifier, passes)
    attacker = Attacker(run, everyone[:limit], interpreters, work, note)
    bench = _Bench.of(attacker, everyone, clean, candidates, options, AttackBudget.of(run.plan, passes))
    records = bench.records()
    norm = bench.spent.perturbation.name
    return Study(
        name="defense",
        title="Which interpreters detect best, against an adaptive attacker?",
        claim=CLAIM,
        claims=defense_claims(records),
        table=to_arrow(records, DetectorRecord),
        figure=defense_figure(records, norm),
        words=defense_words(
            records,
            norm=norm,
            taking_part=taking_part(run.photos, run.skipped),
            beyond_limit=len(everyone) - len(attacker.photos),
            left_out=len(clean) - len(bench.measurements.clean),
            rates=bench.rates,
            passes=passes,
            budget=options.budget,
            all_weightings=[weighting.name for weighting in bench.weightings],
        ),
    )


@dataclass(frozen=True)
class _Bench:
    """Fitted detectors, what they are tested on, and who attacks them.

    Attributes:
        options: of the study.
        rates: at which detectors are fitted, the nominal one first.
        measurements: of clean photos and of the run's images.
        fitted: by detector.
        attacker: of each.
        spent: the attacker's budget.
    """

    options: DefenseOptions
    rates: tuple[float, ...]
    measurements: Measurements
    fitted: Mapping[DetectorName, FittedDetector]
    attacker: Attacker
    spent: AttackBudget

    @classmethod
    def of(
        cls,
        attacker: Attacker,
        everyone: tuple[PlannedPhoto, ...],
        clean: Photos,
        candidates: tuple[CandidateDetector, ...],
        options: DefenseOptions,
        spent: AttackBudget,
    ) -> "_Bench":
        """Measures all images, and fits every detector on ``clean`` photos; ``everyone`` are the attacked ones."""
        run, note, interpreters = attacker.run, attacker.note, attacker.interpreters
        classifier, seed = interpreters[0].classifier, run.plan.seed
        attacks = _attacks(run, everyone, options)
        rows = clean_rows(run, clean, classifier.dtype, note=note)
        rates = rates_for(len(rows), options.fpr)
        attacks |= attacker.oblivious(largest([c for c in candidates if c.is_set]).interpreters, spent)
        extractor = SignalExtractor(interpreters, candidates, seed=seed)
        cache = SignalCache(signal_folder(run, extractor, attacker.work), extractor, note)
        signals = clean_signals(clean, rows, cache)
        measurements = measured(run, attacker.photos, attacks, signals, cache, classifier.dtype)
        fitted = {c.name: FittedDetector.fit(c, classifier, signals, rates=rates, seed=seed) for c in candidates}
        return cls(options, rates, measurements, fitted, attacker, spent)

    @property
    def sets(self) -> list[FittedDetector]:
        """The detectors that are no baselines."""
        return [fitted for fitted in self.fitted.values() if fitted.candidate.is_set]

    @property
    def weightings(self) -> list[Weighting]:
        """Of the adaptive attacker, each once."""
        return [WEIGHTINGS[name] for name in dict.fromkeys(self.options.weighting)]

    def records(self) -> list[DetectorRecord]:
        """Attacks every detector adaptively, and counts what it makes of all images."""
        trials = {
            name: self._trial(fitted, self.spent, self.weightings if fitted.candidate.is_set else self.weightings[:1])
            for name, fitted in self.fitted.items()
        }
        results = [self._result(fitted, trials[name]) for name, fitted in self.fitted.items()]
        of_all = summaries(results, budget=self.options.budget)
        return [*of_all, *self._adaptive(trials), *details(results, self._parts(trials))]

    def _trial(self, fitted: FittedDetector, spent: AttackBudget, weightings: list[Weighting]) -> AdaptiveTrial:
        place, name = list(self.fitted).index(fitted.candidate.name) + 1, fitted.candidate.name
        what = f"adaptive attack {place} of {len(self.fitted)} ({name})"
        return self.attacker.adaptive(fitted, spent, weightings, what=what)

    def _result(self, fitted: FittedDetector, trial: AdaptiveTrial) -> DetectorResult:
        return result_of(fitted, self.measurements, trial)

    def _adaptive(self, trials: Mapping[DetectorName, AdaptiveTrial]) -> Iterator[DetectorRecord]:
        """Of every set, by the attacker's budget, by weighting, and after a score-based attack."""
        options = self.options
        for spent in self.spent.along(options.eps_grid, options.passes_grid):
            for fitted in self.sets:
                result = self._result(fitted, self._trial(fitted, spent, self.weightings[:1]))
                yield result.under_adaptive("resources", f", {spent}")
        for fitted in self.sets:
            trial = trials[fitted.candidate.name]
            for weighting in trial.attempts if len(trial.attempts) > 1 else ():
                result = self._result(fitted, trial.alone(weighting))
                yield result.under_adaptive("sharing", f", {weighting} sharing")
        passes = options.score_search or 0
        for fitted in self.sets if passes else ():
            name = fitted.candidate.name
            trial = self.attacker.search(fitted, trials[name], self.spent, passes, what=f"adaptive attack ({name})")
            yield self._result(fitted, trial).under_adaptive("search", f", then a search of {passes} passes")

    def _parts(self, trials: Mapping[DetectorName, AdaptiveTrial]) -> Iterator[DetectorResult]:
        """The largest set within the budget with parts of its signals, under the attack on all of them."""
        most = self.options.budget
        whole = largest([f.candidate for f in self.sets if most is None or f.passes_per_image <= most])
        classifier, seed = whole.interpreters[0].classifier, self.attacker.run.plan.seed
        for part, kinds in ablations(whole).items():
            fitted = FittedDetector.fit(
                whole, classifier, self.measurements.clean, rates=self.rates, seed=seed, signals=kinds
            )
            yield result_of(fitted, self.measurements, trials[whole.name], signals=part)


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
