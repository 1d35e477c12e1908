"""What each detector made of every image, counted: the records of the benchmark's table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from underfire.evaluation.attackers import AdaptiveEffort, AdaptiveTrial
from underfire.evaluation.detectors import DetectorName, SignalPart
from underfire.evaluation.extra_attacks import ObliviousAttack
from underfire.evaluation.measurements import Measurements
from underfire.evaluation.signals import DetectorOutput, FittedDetector
from underfire.present.tables import TEXT
from underfire.stats import NO_ESTIMATE, Estimate, Share, auroc_by_photo, bootstrap_mean, wilson

Kind = Literal["set", "baseline", "resources", "sharing", "search", "attack", "harmless", "ablation"]

Choice = Literal["best", "best at its cost", "over the budget"]


@dataclass(frozen=True)
class AttackOutcome:
    """An attacked image: whether the target label was reached, and what the detector says."""

    reached: bool
    output: DetectorOutput

    @property
    def evaded(self) -> bool:
        """Whether the attack succeeded: the label, and no flag."""
        return self.reached and not self.output.flagged


@dataclass(frozen=True)
class AdaptiveOutcome(AttackOutcome):
    """An image of the adaptive attacker, with the probability of the target and the passes of all attempts."""

    confidence: float
    passes: int


@dataclass(frozen=True)
class DetectorResult:
    """What one detector made of every image.

    Attributes:
        name: of the detector.
        passes: that it takes for an image.
        clean: photos that it was fitted on, its threshold included.
        benign: by photo.
        corrupted: by benign corruption and photo.
        attacked: by oblivious attack and photo.
        adaptive: by photo, the strongest attempt.
        effort: of the adaptive attacker.
        signals: of an ablation, which of its signals it has.
    """

    name: DetectorName
    passes: int
    clean: int
    benign: Mapping[str, DetectorOutput]
    corrupted: Mapping[str, Mapping[str, DetectorOutput]]
    attacked: Mapping[ObliviousAttack, Mapping[str, AttackOutcome]]
    adaptive: Mapping[str, AdaptiveOutcome]
    effort: AdaptiveEffort
    signals: SignalPart | None = None


def result_of(
    fitted: FittedDetector, measurements: Measurements, trial: AdaptiveTrial, *, signals: SignalPart | None = None
) -> DetectorResult:
    """What ``fitted`` makes of all images, and of the ``trial`` of an attacker who knew it, or all of its signals."""
    images, extractor = measurements.images, measurements.extractor

    def outputs(signals_of: Mapping[str, Any]) -> dict[str, DetectorOutput]:
        return {photo: fitted.output(values, extractor) for photo, values in signals_of.items()}

    corruptions = next(iter(images.values())).corrupted
    return DetectorResult(
        name=fitted.candidate.name,
        passes=fitted.detector.signals.passes_per_image,
        clean=len(measurements.clean),
        benign=outputs({photo: found.benign for photo, found in images.items()}),
        corrupted={name: outputs({p: found.corrupted[name] for p, found in images.items()}) for name in corruptions},
        attacked={
            attack: {
                photo: AttackOutcome(one.reached, fitted.output(images[photo].attacked[attack], extractor))
                for photo, one in attacked.items()
            }
            for attack, attacked in measurements.attacks.items()
        },
        adaptive=_strongest(fitted, trial),
        effort=trial.effort,
        signals=signals,
    )


def _strongest(fitted: FittedDetector, trial: AdaptiveTrial) -> dict[str, AdaptiveOutcome]:
    """By photo the strongest of several adaptive attempts.

    One that reached the label comes before one that did not, and then that with the higher score. Its passes are those
    of all attempts together.
    """
    several = list(trial.attempts.values())
    found = {}
    for photo in several[0]:
        tries = [attempts[photo] for attempts in several]
        passes = sum(one.record.passes for one in tries)
        outcomes = [
            AdaptiveOutcome(
                one.record.reached, fitted.output(one.signals, trial.extractor), one.record.confidence, passes
            )
            for one in tries
        ]
        found[photo] = max(outcomes, key=lambda outcome: (outcome.reached, outcome.output.score))
    return found


@dataclass(frozen=True)
class BenignCorruption:
    """A change of a photo that no attacker made."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class AdaptiveAttack:
    """An attack by somebody who knows the detector; ``text`` is what tables say of it."""

    text: str
    effort: AdaptiveEffort

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class EffortColumns:
    """The columns about an adaptive attacker.

    Attributes:
        eps: in the perturbation's unit.
        most_passes: that an attempt at a photo may take.
        steps: that these pay for.
        finalists: late iterates that the detector chose from.
        sharing: the weighting of several maps' gradients, ``even+worst`` where the stronger attempt counts.
    """

    eps: float
    most_passes: int
    steps: int
    finalists: int
    sharing: str | None


@dataclass(frozen=True)
class FlagRates:
    """The columns about flags.

    Attributes:
        flagged: share flagged: of attacked images whose label was reached, or of corrupted ones.
        flagged_strictly: the same by the threshold of the stricter rate.
    """

    flagged: Estimate
    flagged_strictly: Estimate


@dataclass(frozen=True, kw_only=True)
class DetectorRecord:
    """One row of the table; all on images as saved in 8 bit.

    Attributes:
        kind: ``set`` and ``baseline``: a detector against the adaptive attack, with a summary of the rest;
            ``resources``: a set against that attack with one weighting, by the attacker's budget; ``sharing``: with one
            weighting alone; ``search``: with the first weighting, and a score-based attack after it; ``attack``:
            against one oblivious attack; ``harmless``: on photos under a benign corruption; ``ablation``: with a part
            of its signals.
        detector: which one.
        verdict: of a set; ``best``: lowest ``evaded`` within the budget, the cheaper of two alike; ``best at its
            cost``: none that costs as much or less is evaded less; ``over the budget``.
        signals: of an ablation, which ones.
        under: what was done to the photos; ``adaptive`` by an attacker who knows the detector, ``adaptive to all
            signals`` in an ablation.
        effort: of the adaptive attacker.
        interpreters: how many are watched.
        passes: forward and backward passes of the detector for an image.
        n: photos.
        failed: those whose label the attack did not reach. They are in ``reached`` and ``evaded`` alone.
        evaded: share of the photos whose label was reached and that are not flagged.
        reached: share of the photos whose label was reached.
        confidence: mean probability of the target, where the label was reached.
        auroc: of benign against attacked images.
        auroc_pgd: that under PGD.
        auroc_adv2: the lowest one under ADV² on a single interpreter.
        flags: how many images are flagged.
        false_positives: share of benign photos flagged.
        attack_passes: mean number of passes that the attacker took for a photo, in all attempts together.
        clean: photos that the detector was fitted on.
    """

    kind: Kind
    detector: DetectorName = field(metadata={TEXT: True})
    verdict: Choice | None = None
    signals: SignalPart | None = field(default=None, metadata={TEXT: True})
    under: ObliviousAttack | BenignCorruption | AdaptiveAttack = field(metadata={TEXT: True})
    effort: EffortColumns | None = None
    interpreters: int
    passes: int
    n: int
    failed: int
    evaded: Estimate = NO_ESTIMATE
    reached: Estimate = NO_ESTIMATE
    confidence: Estimate = NO_ESTIMATE
    auroc: Estimate = NO_ESTIMATE
    auroc_pgd: Estimate = NO_ESTIMATE
    auroc_adv2: Estimate = NO_ESTIMATE
    flags: FlagRates
    false_positives: Estimate = NO_ESTIMATE
    attack_passes: float | None = None
    clean: int

    @property
    def adaptive(self) -> AdaptiveEffort | None:
        """The effort of the attacker, where it knew the detector."""
        return self.under.effort if isinstance(self.under, AdaptiveAttack) else None


def summaries(results: Iterable[DetectorResult], *, budget: int | None) -> list[DetectorRecord]:
    """One record for each set, the cheapest first, then one for each baseline, with the verdicts."""
    return _judged([_summary(result) for result in _ordered(results)], budget)


def details(results: Iterable[DetectorResult], parts: Iterable[DetectorResult]) -> list[DetectorRecord]:
    """The records of all oblivious attacks, of benign corruptions, and of ``parts`` of the signals."""
    ordered = _ordered(results)
    attacks = [_oblivious("attack", result, attack) for result in ordered for attack in result.attacked]
    corruptions = [_corrupted(result, name) for result in ordered for name in result.corrupted]
    return [*attacks, *corruptions, *(record for result in parts for record in _ablation(result))]


def adaptive_record(kind: Literal["resources", "sharing", "search"], result: DetectorResult) -> DetectorRecord:
    """The record of a set against the adaptive attacker with its budget, its weighting, or its score-based attack."""
    effort = result.effort
    how = {
        "resources": f", {effort.budget}",
        "sharing": f", {'+'.join(effort.weightings)} sharing",
        "search": f", then a search of {effort.search_passes} passes",
    }
    return DetectorRecord(kind=kind, **_common(result), **_adaptive(result, f"adaptive{how[kind]}"))


def sets(records: Iterable[DetectorRecord]) -> list[DetectorRecord]:
    """The summaries of sets."""
    return [record for record in records if record.kind == "set"]


def best(records: Iterable[DetectorRecord]) -> DetectorRecord:
    """The set to deploy."""
    return next(record for record in records if record.verdict == "best")


def _ordered(results: Iterable[DetectorResult]) -> list[DetectorResult]:
    """Sets before baselines, the cheapest first."""
    return sorted(results, key=lambda result: (result.name.baseline is not None, result.passes))


def _judged(records: Sequence[DetectorRecord], budget: int | None) -> list[DetectorRecord]:
    """``records``, the cheapest first, with the verdicts of the sets."""
    within = [record for record in sets(records) if budget is None or record.passes <= budget]
    chosen = min(within, key=_rank)
    found = []
    for record in records:
        verdict: Choice | None = None
        if record is chosen:
            verdict = "best"
        elif record.kind == "set" and record not in within:
            verdict = "over the budget"
        elif record.kind == "set" and record is min((o for o in within if o.passes <= record.passes), key=_rank):
            verdict = "best at its cost"
        found.append(replace(record, verdict=verdict))
    return found


def _rank(record: DetectorRecord) -> tuple[float, int]:
    return (1.0 if record.evaded.value is None else record.evaded.value, record.passes)


def _common(result: DetectorResult) -> dict[str, Any]:
    return {
        "detector": result.name,
        "interpreters": len(result.name.interpreters),
        "passes": result.passes,
        "clean": result.clean,
        "signals": result.signals,
    }


def _summary(result: DetectorResult) -> DetectorRecord:
    pgd = next((outcomes for attack, outcomes in result.attacked.items() if attack.is_pgd), {})
    areas = [_area(result, outcomes) for attack, outcomes in result.attacked.items() if attack.is_adv2]
    known = [area for area in areas if area.value is not None]
    return DetectorRecord(
        kind="set" if result.name.baseline is None else "baseline",
        **_common(result),
        **_adaptive(result, "adaptive"),
        auroc_pgd=_area(result, pgd),
        auroc_adv2=min(known, key=lambda area: area.value or 0.0, default=NO_ESTIMATE),
        false_positives=_share([output.flagged for output in result.benign.values()]),
    )


def _adaptive(result: DetectorResult, text: str) -> dict[str, Any]:
    """The columns of a row about the adaptive attacker; a score-based attack adds to what a photo may cost."""
    outcomes, effort = result.adaptive, result.effort
    reached = [outcome for outcome in outcomes.values() if outcome.reached]
    return {
        **_outcomes(result, outcomes),
        "under": AdaptiveAttack(text, effort),
        "effort": EffortColumns(
            eps=effort.budget.perturbation.eps,
            most_passes=effort.budget.passes + (effort.search_passes or 0),
            steps=effort.steps,
            finalists=effort.finalists,
            sharing="+".join(effort.weightings) if len(result.name.interpreters) > 1 else None,
        ),
        "confidence": bootstrap_mean([outcome.confidence for outcome in reached]),
        "attack_passes": sum(o.passes for o in outcomes.values()) / len(outcomes) if outcomes else None,
    }


def _outcomes(result: DetectorResult, outcomes: Mapping[str, AttackOutcome]) -> dict[str, Any]:
    """The columns of attacked images."""
    reached = [outcome.output for outcome in outcomes.values() if outcome.reached]
    return {
        "n": len(outcomes),
        "failed": len(outcomes) - len(reached),
        "evaded": _share([outcome.evaded for outcome in outcomes.values()]),
        "reached": _share([outcome.reached for outcome in outcomes.values()]),
        "auroc": _area(result, outcomes),
        "flags": _flags(reached),
    }


def _flags(outputs: Sequence[DetectorOutput]) -> FlagRates:
    strictly = [output.flagged_strictly for output in outputs if output.flagged_strictly is not None]
    return FlagRates(_share([output.flagged for output in outputs]), _share(strictly))


def _oblivious(kind: Kind, result: DetectorResult, attack: ObliviousAttack) -> DetectorRecord:
    return DetectorRecord(kind=kind, under=attack, **_common(result), **_outcomes(result, result.attacked[attack]))


def _corrupted(result: DetectorResult, name: str) -> DetectorRecord:
    outputs = list(result.corrupted[name].values())
    return DetectorRecord(
        kind="harmless",
        under=BenignCorruption(name),
        n=len(outputs),
        failed=0,
        flags=_flags(outputs),
        **_common(result),
    )


def _ablation(result: DetectorResult) -> list[DetectorRecord]:
    """Under PGD and ADV², and under the attack that was adapted to all signals."""
    plain = [attack for attack in result.attacked if attack.is_pgd or attack.is_adv2]
    adapted = DetectorRecord(kind="ablation", **_common(result), **_adaptive(result, "adaptive to all signals"))
    return [*(_oblivious("ablation", result, attack) for attack in plain), adapted]


def _area(result: DetectorResult, outcomes: Mapping[str, AttackOutcome]) -> Estimate:
    """The AUROC over photos whose label was reached, of their benign against their attacked images."""
    reached = {photo: outcome.output.score for photo, outcome in sorted(outcomes.items()) if outcome.reached}
    return auroc_by_photo([result.benign[photo].score for photo in reached], list(reached.values()))


def _share(flags: Sequence[bool]) -> Share:
    return wilson(sum(flags), len(flags))
