"""What the benchmark's page says: claims and the figures of its sentences; the template words them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from underfire.evaluation.attackers import AttackBudget
from underfire.evaluation.detectors import DetectorName
from underfire.evaluation.extra_attacks import ObliviousAttack
from underfire.evaluation.results import AdaptiveAttack, DetectorRecord, best, sets
from underfire.present.text import number, percent
from underfire.present.words import written
from underfire.stats import Estimate
from underfire.studies.study import Claim, Verdict

CLAIM = (
    "Several complementary interpreters together show what one alone does not (the paper’s discussion of "
    "countermeasures). It leaves open how to detect an attack by their maps, and what is left of that against an "
    "attacker who knows the detector and attacks all of them at once."
)

_HALF = 0.5  # of the photos


def defense_claims(records: Sequence[DetectorRecord]) -> tuple[Claim, ...]:
    """That the adaptive attacker evades the best set: decided by a single photo, and never refuted by any number."""
    chosen = best(records)
    verdict = Verdict.HOLDS if chosen.evaded.value else Verdict.UNDECIDED
    statement = f"An adaptive attacker evades {chosen.detector.title}."
    return (Claim(f"evaded/{chosen.detector}", statement, verdict, {"evaded": chosen.evaded}, chosen.n),)


def defense_words(records: Sequence[DetectorRecord], **facts: Any) -> str:
    """Which set to deploy, what it costs, what it will not stop, and how sure that is: paragraphs.

    Args:
        records: the table's.
        facts: ``taking_part``: which photos are attacked, in words; ``beyond_limit``: how many are not; ``left_out``:
            clean photos that show the same as others; ``rates``: at which the detectors were fitted, the nominal one
            first; ``passes`` of the adaptive attacker for a photo; ``budget`` of detection for a photo, or None;
            ``all_weightings`` of the attacker.
    """
    chosen = best(records)

    def of_kind(kind: str) -> list[DetectorRecord]:
        return [record for record in records if record.kind == kind]

    attacks = [r for r in of_kind("attack") if r.detector == chosen.detector and r.auroc.value is not None]
    oblivious = [r for r in attacks if _is_plain(r)]
    ablations = [r for r in of_kind("ablation") if r.auroc.value is not None]
    return written(
        "underfire.evaluation",
        "defense.md.jinja",
        best=chosen,
        best_evaded=round((chosen.evaded.value or 0.0) * chosen.n),
        candidates=len(sets(records)),
        per_cost=sorted((r for r in records if r.verdict in ("best", "best at its cost")), key=lambda r: r.passes),
        over_budget=sum(r.verdict == "over the budget" for r in records),
        oblivious=oblivious,
        further=[r for r in attacks if r not in oblivious],
        corruptions=[r for r in of_kind("harmless") if r.detector == chosen.detector],
        growth=_growth(sets(records)),
        needed=_needed(of_kind("resources"), sets(records)[0]),
        first=_first_weighting(records),
        weightings=_by_detector(of_kind("sharing")),
        searched=of_kind("search"),
        extremes=_extremes(sets(records)),
        baselines=of_kind("baseline"),
        parts_of=ablations[0].detector if ablations else None,
        parts=_parts(ablations),
        **facts,
    )


def _is_plain(record: DetectorRecord) -> bool:
    return isinstance(record.under, ObliviousAttack) and (record.under.is_pgd or record.under.is_adv2)


def _by_size(records: Sequence[DetectorRecord]) -> dict[int, list[DetectorRecord]]:
    sizes = sorted({record.interpreters for record in records})
    return {size: [record for record in records if record.interpreters == size] for size in sizes}


def _growth(of_sets: Sequence[DetectorRecord]) -> list[dict[str, Any]]:
    """What the adaptive attacker gets as interpreters are added; nothing where all sets have as many."""
    found = []
    for size, here in _by_size(of_sets).items():
        steps = sorted({record.effort.steps for record in here if record.effort is not None})
        evaded, reached, confidence = (
            _mean([getattr(record, name) for record in here]) for name in ("evaded", "reached", "confidence")
        )
        found.append(
            {
                "interpreters": size,
                "evaded": "–" if evaded is None else percent(evaded),
                "reached": "–" if reached is None else percent(reached),
                "confidence": number(confidence, 2),
                "steps": " to ".join(map(str, dict.fromkeys([steps[0], steps[-1]]))),
            }
        )
    return found if len(found) > 1 else []


def _mean(figures: Sequence[Estimate]) -> float | None:
    known = [figure.value for figure in figures if figure.value is not None]
    return sum(known) / len(known) if known else None


def _needed(tried: Sequence[DetectorRecord], given: DetectorRecord) -> list[dict[str, Any]]:
    """The least ε and the fewest passes that evade half of the photos, by number of interpreters."""
    if given.adaptive is None:
        return []
    spent = given.adaptive.budget
    axes = (
        _Axis(
            f"the least ε, at {spent.passes} passes",
            lambda other: other.passes == spent.passes,
            lambda other: (other.perturbation.eps, other.eps_title),
        ),
        _Axis(
            f"the fewest passes, at {spent.eps_title}",
            lambda other: other.perturbation == spent.perturbation,
            lambda other: (other.passes, f"{other.passes} passes"),
        ),
    )
    by_size = {size: [(r.adaptive.budget, r) for r in here if r.adaptive] for size, here in _by_size(tried).items()}
    found = []
    for axis in axes:
        on_axis = {size: [(axis.place(b), r) for b, r in here if axis.has(b)] for size, here in by_size.items()}
        if len({place for here in on_axis.values() for place, _ in here}) > 1:
            found.append({"what": axis.what, "by_size": [f"{_least(h)} with {size}" for size, h in on_axis.items()]})
    return found


@dataclass(frozen=True)
class _Axis:
    """One of the grids: what is looked for, which budgets are on it, and where, as a number and in words."""

    what: str
    has: Callable[[AttackBudget], bool]
    place: Callable[[AttackBudget], tuple[float, str]]


def _least(here: Sequence[tuple[tuple[float, str], DetectorRecord]]) -> str:
    """The first place at which sets are evaded on half of the photos, on average."""
    shares: dict[tuple[float, str], list[float]] = {}
    for place, record in sorted(here, key=lambda found: found[0]):
        shares.setdefault(place, []).append(record.evaded.value or 0.0)
    enough = [title for (_, title), some in shares.items() if sum(some) / len(some) >= _HALF]
    return enough[0] if enough else f"more than {max(shares)[1]}"


def _first_weighting(records: Sequence[DetectorRecord]) -> str:
    """The weighting with which baselines, grids and searches are tried."""
    return next((r.adaptive.weightings[0] for r in sets(records) if r.interpreters > 1 and r.adaptive), "no")


def _by_detector(records: Sequence[DetectorRecord]) -> Mapping[DetectorName, list[DetectorRecord]]:
    return {name: [r for r in records if r.detector == name] for name in dict.fromkeys(r.detector for r in records)}


def _extremes(of_sets: Sequence[DetectorRecord]) -> list[tuple[DetectorRecord, DetectorRecord]]:
    """Of each size the sets that are evaded least and most; of two alike the cheaper is the better one."""

    def rank(record: DetectorRecord) -> tuple[float, int]:
        return record.evaded.value or 0.0, record.passes

    several = {size: here for size, here in _by_size(of_sets).items() if size > 1 and len(here) > 1}
    return [(min(here, key=rank), max(here, key=lambda r: (rank(r)[0], -r.passes))) for here in several.values()]


def _parts(ablations: Sequence[DetectorRecord]) -> Mapping[str, list[tuple[str, float]]]:
    """By signal, alone, its AUROC under PGD, under the ADV² hardest to detect, and under the adaptive attack."""
    found = {}
    for signals in dict.fromkeys(r.signals for r in ablations if r.signals and r.signals.alone):
        mine = [(r.under, r.auroc.value) for r in ablations if r.signals == signals and r.auroc.value is not None]
        oblivious = [(under, area) for under, area in mine if isinstance(under, ObliviousAttack)]
        adv2 = [area for under, area in oblivious if under.is_adv2]
        found[str(signals)] = [
            *(("PGD", area) for under, area in oblivious if under.is_pgd),
            *([("ADV²", min(adv2))] if adv2 else []),
            *(("attack adapted to all signals", area) for under, area in mine if isinstance(under, AdaptiveAttack)),
        ]
    return found
