"""The table of the study of defences: what is counted of a detector, and which set is the one to deploy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from underfire.evaluation.findings import Findings, Seen, Shot
from underfire.stats import Estimate, Share, auroc_by_photo, bootstrap_mean, wilson
from underfire.studies.columns import fields_of_line, three

Kind = Literal["set", "baseline", "resources", "sharing", "search", "attack", "harmless", "ablation"]

ADAPTIVE = "adaptive"
ADAPTED = "adaptive to all signals"
PGD = "pgd"
BEST, AT_ITS_COST, OVER = "best", "best at its cost", "over the budget"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table; all on images as saved in 8 bit.

    Attributes:
        kind: ``set`` and ``baseline``: a detector against the adaptive attack, with a summary of the rest;
            ``resources``: a set against that attack with one sharing, by what it may spend; ``sharing``: by one sharing
            alone; ``search``: by the first sharing, and a search by the score after it; ``attack``: against one other
            attack; ``harmless``: on photos that were changed harmlessly; ``ablation``: with a part of its signals.
        detector: the set as ``grad+cam``, or the baseline.
        verdict: of a set; ``best``: lowest ``evaded`` within the budget, the cheaper of two alike; ``best at its
            cost``: none that costs as much or less is evaded less; ``over the budget``.
        signals: of an ablation, which ones.
        under: what was done to the photos; ``adaptive`` by one who knows the detector, ``adaptive to all signals`` in
            an ablation.
        eps: of the adaptive attack, in the perturbation's unit; ``most_passes``: that an attempt at a photo may take;
            ``steps``: that these pay for; ``finalists``: late iterates, of which the detector chooses; ``sharing``: how
            several maps share a step, ``even+worst`` where the stronger attempt counts.
        interpreters: how many are watched.
        passes: forward and backward passes of the detector for an image.
        n: photos; ``failed``: those whose label the attack did not reach. They are in ``reached`` and ``evaded`` alone.
        evaded: share of the photos whose label was reached and that are not flagged.
        reached: share of the photos whose label was reached.
        confidence: mean probability of the target, where the label was reached.
        auroc: of benign against attacked images; ``auroc_pgd``: that under PGD; ``auroc_adv2``: the lowest one under
            ADV² on a single interpreter.
        flagged: share flagged: of attacked images whose label was reached, or of harmless ones.
        flagged_strictly: the same by the threshold of the stricter rate.
        false_positives: share of benign photos flagged.
        attack_passes: mean number of passes that the attacker took for a photo, in all attempts together.
        clean: photos that the detector was fitted on.
    """

    kind: Kind
    detector: str
    verdict: str | None = None
    signals: str | None = None
    under: str
    eps: float | None = None
    most_passes: int | None = None
    steps: int | None = None
    finalists: int | None = None
    sharing: str | None = None
    interpreters: int
    passes: int
    n: int
    failed: int
    evaded: float | None = None
    evaded_low: float | None = None
    evaded_high: float | None = None
    reached: float | None = None
    reached_low: float | None = None
    reached_high: float | None = None
    confidence: float | None = None
    confidence_low: float | None = None
    confidence_high: float | None = None
    auroc: float | None = None
    auroc_low: float | None = None
    auroc_high: float | None = None
    auroc_pgd: float | None = None
    auroc_pgd_low: float | None = None
    auroc_pgd_high: float | None = None
    auroc_adv2: float | None = None
    auroc_adv2_low: float | None = None
    auroc_adv2_high: float | None = None
    flagged: float | None = None
    flagged_low: float | None = None
    flagged_high: float | None = None
    flagged_strictly: float | None = None
    flagged_strictly_low: float | None = None
    flagged_strictly_high: float | None = None
    false_positives: float | None = None
    false_positives_low: float | None = None
    false_positives_high: float | None = None
    attack_passes: float | None = None
    clean: int


def summaries(findings: Iterable[Findings], *, budget: int | None) -> list[Line]:
    """One row for each set, the cheapest first, then one for each baseline, with the verdicts."""
    return _judged([_summary(found) for found in _ordered(findings)], budget)


def details(findings: Iterable[Findings], ablations: Iterable[Findings]) -> list[Line]:
    """The rows of all other attacks, of harmless changes, and of ``ablations``."""
    ordered = _ordered(findings)
    attacks = [_attack("attack", found, under) for found in ordered for under in found.attacks]
    harmless = [_harmless(found, change) for found in ordered for change in found.harmless]
    return [*attacks, *harmless, *(line for found in ablations for line in _ablation(found))]


def resources_line(found: Findings) -> Line:
    """The row of a set against the adaptive attack with its resources."""
    return Line(kind="resources", under=f"{ADAPTIVE}, {found.resources}", **(_common(found) | _adaptive(found)))


def sharing_line(found: Findings) -> Line:
    """The row of a set against the adaptive attack with its sharing."""
    under = f"{ADAPTIVE}, {'+'.join(found.sharings)} sharing"
    return Line(kind="sharing", under=under, **(_common(found) | _adaptive(found)))


def search_line(found: Findings, passes: int) -> Line:
    """The row of a set against the adaptive attack and a search of so many ``passes`` after it."""
    under = f"{ADAPTIVE}, then a search of {passes} passes"
    line = Line(kind="search", under=under, **(_common(found) | _adaptive(found)))
    return replace(line, most_passes=found.resources.passes + passes)


def spent(line: Line) -> tuple[str, str]:
    """The ε and the passes of a row of ``resources``, in words."""
    eps, passes = line.under.removeprefix(f"{ADAPTIVE}, ").split(", ")
    return eps, passes


def table(lines: Sequence[Line]) -> Any:
    """``lines`` as a pyarrow.Table."""
    return pa.Table.from_pylist([asdict(line) for line in lines], schema=pa.schema(fields_of_line(Line)))


def sets(lines: Iterable[Line]) -> list[Line]:
    """The summaries of sets."""
    return [line for line in lines if line.kind == "set"]


def best(lines: Iterable[Line]) -> Line:
    """The set to deploy."""
    return next(line for line in lines if line.verdict == BEST)


def is_adv2(condition: str) -> bool:
    """Whether it is ADV² on a single interpreter, by the run itself."""
    return condition.startswith("adv2-") and "+" not in condition and ": " not in condition


def _ordered(findings: Iterable[Findings]) -> list[Findings]:
    """Sets before baselines, the cheapest first."""
    return sorted(findings, key=lambda found: (not found.is_set, found.passes))


def _judged(lines: Sequence[Line], budget: int | None) -> list[Line]:
    """``lines``, the cheapest first, with the verdicts of the sets."""
    within = [line for line in sets(lines) if budget is None or line.passes <= budget]
    chosen = min(within, key=_rank)
    found = []
    for line in lines:
        verdict = None
        if line is chosen:
            verdict = BEST
        elif line.kind == "set" and line not in within:
            verdict = OVER
        elif line.kind == "set" and line is min((o for o in within if o.passes <= line.passes), key=_rank):
            verdict = AT_ITS_COST
        found.append(replace(line, verdict=verdict))
    return found


def _rank(line: Line) -> tuple[float, int]:
    return (1.0 if line.evaded is None else line.evaded, line.passes)


def _common(found: Findings) -> dict[str, Any]:
    return {
        "detector": found.key,
        "interpreters": len(found.interpreters),
        "passes": found.passes,
        "clean": found.clean,
    }


def _summary(found: Findings) -> Line:
    benign = list(found.benign.values())
    areas = [_area(found, shots) for name, shots in found.attacks.items() if is_adv2(name)]
    lowest = min((area for area in areas if area.value is not None), key=lambda area: area.value or 0.0, default=_NONE)
    columns: dict[str, Any] = {
        **_common(found),
        **_adaptive(found),
        **three("auroc_pgd", _area(found, found.attacks.get(PGD, {}))),
        **three("auroc_adv2", lowest),
        **three("false_positives", _share([seen.flagged for seen in benign])),
    }
    return Line(kind="set" if found.is_set else "baseline", under=ADAPTIVE, **columns)


def _adaptive(found: Findings) -> dict[str, Any]:
    shots = found.adaptive
    reached = [shot for shot in shots.values() if shot.reached]
    return {
        **_shots(found, shots),
        "eps": found.resources.perturbation.eps,
        "most_passes": found.resources.passes,
        "steps": found.steps,
        "finalists": found.finalists,
        "sharing": "+".join(found.sharings) if len(found.interpreters) > 1 else None,
        **three("reached", _share([shot.reached for shot in shots.values()])),
        **three("confidence", bootstrap_mean([shot.confidence for shot in reached])),
        "attack_passes": sum(shot.passes for shot in shots.values()) / len(shots) if shots else None,
    }


def _shots(found: Findings, shots: Mapping[str, Shot]) -> dict[str, Any]:
    """The columns of attacked images that every kind of row has."""
    reached = [shot.seen for shot in shots.values() if shot.reached]
    return {
        "n": len(shots),
        "failed": len(shots) - len(reached),
        **three("evaded", _share([shot.evaded for shot in shots.values()])),
        **three("auroc", _area(found, shots)),
        **_flags(reached),
    }


def _flags(seen: Sequence[Seen]) -> dict[str, Any]:
    strictly = [one.strictly for one in seen if one.strictly is not None]
    return {**three("flagged", _share([one.flagged for one in seen])), **three("flagged_strictly", _share(strictly))}


def _attack(kind: Kind, found: Findings, under: str, signals: str | None = None) -> Line:
    shots = found.attacks[under]
    columns = _common(found) | _shots(found, shots)
    reached = three("reached", _share([shot.reached for shot in shots.values()]))
    return Line(kind=kind, under=under, signals=signals, **columns, **reached)


def _harmless(found: Findings, change: str) -> Line:
    seen = list(found.harmless[change].values())
    columns = _common(found) | _flags(seen)
    return Line(kind="harmless", under=change, n=len(seen), failed=0, **columns)


def _ablation(found: Findings) -> list[Line]:
    """Under PGD and ADV², and under the attack that was adapted to all signals."""
    adapted = _common(found) | _adaptive(found)
    return [
        *(_attack("ablation", found, name, found.signals) for name in found.attacks if name == PGD or is_adv2(name)),
        Line(kind="ablation", under=ADAPTED, signals=found.signals, **adapted),
    ]


_NONE = Estimate(None, None, None, 0)


def _area(found: Findings, shots: Mapping[str, Shot]) -> Estimate:
    """The AUROC over photos whose label was reached, of their benign against their attacked images."""
    reached = {photo: shot.seen.score for photo, shot in sorted(shots.items()) if shot.reached}
    return auroc_by_photo([found.benign[photo].score for photo in reached], list(reached.values()))


def _share(flags: Sequence[bool]) -> Share:
    return wilson(sum(flags), len(flags))
