"""What each detector made of every image, counted: the records of the benchmark's table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from underfire.evaluation.attackers import AdaptiveEffort, AdaptiveTrial
from underfire.evaluation.detectors import DetectorName, DetectorOutput, FittedDetector, SignalPart, SignalValues
from underfire.evaluation.extra_attacks import AttackedImage, ObliviousAttack
from underfire.evaluation.measurements import MeasuredImage, Measurements
from underfire.present.tables import TEXT
from underfire.stats import NO_ESTIMATE, Estimate, Share, auroc_by_photo, bootstrap_mean, wilson

Kind = Literal["set", "baseline", "resources", "sharing", "search", "attack", "harmless", "ablation"]

Choice = Literal["best", "best at its cost", "over the budget"]


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
    under: ObliviousAttack | str = field(metadata={TEXT: True})
    effort: AdaptiveEffort | None = None
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


@dataclass(frozen=True)
class AttackOutcome:
    """An attacked image, and what the detector says of it."""

    image: AttackedImage
    output: DetectorOutput

    @property
    def evaded(self) -> bool:
        """Whether the attack succeeded: the label, and no flag."""
        return self.image.reached and not self.output.flagged


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
        adaptive: by photo, the strongest attempt, with the passes of all attempts.
        effort: of the adaptive attacker.
        signals: of an ablation, which of its signals it has.
    """

    name: DetectorName
    passes: int
    clean: int
    benign: Mapping[str, DetectorOutput]
    corrupted: Mapping[str, Mapping[str, DetectorOutput]]
    attacked: Mapping[ObliviousAttack, Mapping[str, AttackOutcome]]
    adaptive: Mapping[str, AttackOutcome]
    effort: AdaptiveEffort
    signals: SignalPart | None = None

    def summary(self) -> DetectorRecord:
        """Its record against the adaptive attacker, with the figures of the rest."""
        pgd = next((outcomes for attack, outcomes in self.attacked.items() if attack.is_pgd), {})
        areas = [self._area(outcomes) for attack, outcomes in self.attacked.items() if attack.is_adv2]
        known = [area for area in areas if area.value is not None]
        return self.under_adaptive(
            "set" if self.name.baseline is None else "baseline",
            auroc_pgd=self._area(pgd),
            auroc_adv2=min(known, key=lambda area: area.value or 0.0, default=NO_ESTIMATE),
            false_positives=_share([output.flagged for output in self.benign.values()]),
        )

    def under_adaptive(self, kind: Kind, how: str = "", **more: Any) -> DetectorRecord:
        """Its record against the adaptive attacker; ``how`` adds to what the table calls that."""
        images = [outcome.image for outcome in self.adaptive.values()]
        more["confidence"] = bootstrap_mean([image.confidence for image in images if image.reached])
        more["attack_passes"] = sum(image.passes for image in images) / len(images) if images else None
        return self._attacked(kind, f"adaptive{how}", self.adaptive, effort=self.effort, **more)

    def under(self, kind: Kind, attack: ObliviousAttack) -> DetectorRecord:
        """Its record against an oblivious ``attack``."""
        return self._attacked(kind, attack, self.attacked[attack])

    def corrupted_by(self, name: str) -> DetectorRecord:
        """Its record on photos under a benign corruption."""
        outputs = list(self.corrupted[name].values())
        return self._record("harmless", name, outputs, n=len(outputs), failed=0)

    def _attacked(
        self, kind: Kind, under: ObliviousAttack | str, outcomes: Mapping[str, AttackOutcome], **more: Any
    ) -> DetectorRecord:
        reached = [outcome.output for outcome in outcomes.values() if outcome.image.reached]
        more["n"], more["failed"] = len(outcomes), len(outcomes) - len(reached)
        more["evaded"] = _share([outcome.evaded for outcome in outcomes.values()])
        more["reached"] = wilson(len(reached), len(outcomes))
        return self._record(kind, under, reached, auroc=self._area(outcomes), **more)

    def _record(
        self, kind: Kind, under: ObliviousAttack | str, outputs: Sequence[DetectorOutput], **more: Any
    ) -> DetectorRecord:
        """A record with the flags of these ``outputs``."""
        strictly = [output.flagged_strictly for output in outputs if output.flagged_strictly is not None]
        return DetectorRecord(
            kind=kind,
            detector=self.name,
            signals=self.signals,
            under=under,
            interpreters=len(self.name.interpreters),
            passes=self.passes,
            flags=FlagRates(_share([output.flagged for output in outputs]), _share(strictly)),
            clean=self.clean,
            **more,
        )

    def _area(self, outcomes: Mapping[str, AttackOutcome]) -> Estimate:
        """The AUROC over photos whose label was reached, of their benign against their attacked images."""
        reached = {photo: outcome.output.score for photo, outcome in sorted(outcomes.items()) if outcome.image.reached}
        return auroc_by_photo([self.benign[photo].score for photo in reached], list(reached.values()))


def result_of(
    fitted: FittedDetector, measurements: Measurements, trial: AdaptiveTrial, *, signals: SignalPart | None = None
) -> DetectorResult:
    """What ``fitted`` makes of all images, and of the ``trial`` of an attacker who knew it, or all of its signals."""

    def outputs(images: Mapping[str, SignalValues]) -> dict[str, DetectorOutput]:
        return {photo: fitted.output(values) for photo, values in images.items()}

    def outcomes(images: Mapping[str, MeasuredImage]) -> dict[str, AttackOutcome]:
        return {photo: AttackOutcome(one.image, fitted.output(one.signals)) for photo, one in images.items()}

    return DetectorResult(
        name=fitted.candidate.name,
        passes=fitted.passes_per_image,
        clean=len(measurements.clean),
        benign=outputs(measurements.benign),
        corrupted={name: outputs(images) for name, images in measurements.corrupted.items()},
        attacked={attack: outcomes(images) for attack, images in measurements.attacked.items()},
        adaptive=_strongest([outcomes(images) for images in trial.attempts.values()]),
        effort=trial.effort,
        signals=signals,
    )


def _strongest(attempts: Sequence[Mapping[str, AttackOutcome]]) -> dict[str, AttackOutcome]:
    """By photo the strongest attempt, with the passes of all.

    One that reached the label comes before one that did not, and then that with the higher score.
    """
    found = {}
    for photo in attempts[0]:
        tries = [outcomes[photo] for outcomes in attempts]
        best = max(tries, key=lambda outcome: (outcome.image.reached, outcome.output.score))
        passes = sum(outcome.image.passes for outcome in tries)
        found[photo] = replace(best, image=replace(best.image, passes=passes))
    return found


def summaries(results: Iterable[DetectorResult], *, budget: int | None) -> list[DetectorRecord]:
    """One record for each set, the cheapest first, then one for each baseline, with the verdicts."""
    return _judged([result.summary() for result in _ordered(results)], budget)


def details(results: Iterable[DetectorResult], parts: Iterable[DetectorResult]) -> list[DetectorRecord]:
    """The records of all oblivious attacks, of benign corruptions, and of ``parts`` of the signals.

    Parts are shown under PGD and ADV², and under the attack that was adapted to all signals.
    """
    ordered = _ordered(results)
    records = [result.under("attack", attack) for result in ordered for attack in result.attacked]
    records += [result.corrupted_by(name) for result in ordered for name in result.corrupted]
    for result in parts:
        records += [result.under("ablation", attack) for attack in result.attacked if attack.is_plain]
        records.append(result.under_adaptive("ablation", " to all signals"))
    return records


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


def _share(flags: Sequence[bool]) -> Share:
    return wilson(sum(flags), len(flags))
