"""What the benchmark's page says: claims and the figures of its sentences; the template words them."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from underfire.evaluation.attackers import AdaptiveEffort
from underfire.evaluation.detectors import DetectorName
from underfire.evaluation.extra_attacks import ObliviousAttack
from underfire.evaluation.results import DetectorRecord, best, sets
from underfire.present.text import budget
from underfire.present.words import written
from underfire.stats import Estimate
from underfire.studies.study import Claim, Verdict

CLAIM = (
    "Several complementary interpreters together show what one alone does not (the paper’s discussion of "
    "countermeasures). It leaves open how to detect an attack by their maps, and what is left of that against an "
    "attacker who knows the detector and attacks all of them at once."
)

_HALF = 0.5  # of the photos
_ATTACKS = ("PGD", "ADV²", "attack adapted to all signals")  # on parts of the signals


def defense_claims(records: Sequence[DetectorRecord]) -> tuple[Claim, ...]:
    """That the adaptive attacker evades the best set: decided by a single photo, and never refuted by any number."""
    chosen = best(records)
    verdict = Verdict.HOLDS if chosen.evaded.value else Verdict.UNDECIDED
    statement = f"An adaptive attacker evades {chosen.detector.title}."
    return (Claim(f"evaded/{chosen.detector}", statement, verdict, {"evaded": chosen.evaded}, chosen.n),)


def defense_words(records: Sequence[DetectorRecord], *, norm: str, all_weightings: Sequence[str], **facts: Any) -> str:
    """Which set to deploy, what it costs, what it will not stop, and how sure that is: paragraphs.

    Args:
        records: the table's.
        norm: the name of the attacks' perturbation.
        all_weightings: of the adaptive attacker; baselines, grids and searches are tried with the first.
        facts: ``taking_part``: which photos are attacked, in words; ``beyond_limit``: how many are not; ``left_out``:
            clean photos that show the same as others; ``rates``: at which the detectors were fitted, the nominal one
            first; ``passes`` of the adaptive attacker for a photo; ``budget`` of detection for a photo, or None.
    """
    chosen, of_sets = best(records), sets(records)

    def of_kind(kind: str) -> list[DetectorRecord]:
        return [record for record in records if record.kind == kind]

    attacks = [r for r in of_kind("attack") if r.detector == chosen.detector and r.auroc.value is not None]
    ablations = [r for r in of_kind("ablation") if r.auroc.value is not None]
    return written(
        "underfire.evaluation",
        "defense.md.jinja",
        best=chosen,
        candidates=len(of_sets),
        per_cost=sorted((r for r in records if r.verdict in ("best", "best at its cost")), key=lambda r: r.passes),
        over_budget=sum(r.verdict == "over the budget" for r in records),
        oblivious=[r for r in attacks if isinstance(r.under, ObliviousAttack) and r.under.is_plain],
        further=[r for r in attacks if isinstance(r.under, ObliviousAttack) and not r.under.is_plain],
        corruptions=[r for r in of_kind("harmless") if r.detector == chosen.detector],
        growth=_growth(of_sets),
        needed=_needed(of_kind("resources"), of_sets[0].effort, norm),
        first=all_weightings[0] if any(r.interpreters > 1 for r in of_sets) else "no",
        weightings=_by_detector(of_kind("sharing")),
        searched=of_kind("search"),
        extremes=_extremes(of_sets),
        baselines=of_kind("baseline"),
        parts_of=ablations[0].detector if ablations else None,
        parts=_parts(ablations),
        all_weightings=all_weightings,
        **facts,
    )


def _by_size(records: Sequence[DetectorRecord]) -> dict[int, list[DetectorRecord]]:
    sizes = sorted({record.interpreters for record in records})
    return {size: [record for record in records if record.interpreters == size] for size in sizes}


def _growth(of_sets: Sequence[DetectorRecord]) -> list[dict[str, Any]]:
    """What the adaptive attacker gets as interpreters are added; nothing where all sets have as many."""
    found = [
        {
            "interpreters": size,
            **{name: _mean([getattr(r, name) for r in here]) for name in ("evaded", "reached", "confidence")},
            "steps": sorted({r.effort.steps for r in here if r.effort is not None}),
        }
        for size, here in _by_size(of_sets).items()
    ]
    return found if len(found) > 1 else []


def _mean(figures: Sequence[Estimate]) -> float | None:
    known = [figure.value for figure in figures if figure.value is not None]
    return sum(known) / len(known) if known else None


def _needed(tried: Sequence[DetectorRecord], given: AdaptiveEffort | None, norm: str) -> list[tuple[str, list[str]]]:
    """For ε and for passes, the smallest value with which half of the photos evade, by the number of interpreters."""
    if given is None:
        return []
    efforts = [(record, record.effort) for record in tried if record.effort is not None]
    axes: dict[str, list[tuple[DetectorRecord, float, str]]] = {
        f"the least ε, at {given.most_passes} passes": [
            (r, e.eps, budget(e.eps, norm)) for r, e in efforts if e.most_passes == given.most_passes
        ],
        f"the fewest passes, at {budget(given.eps, norm)}": [
            (r, e.most_passes, f"{e.most_passes} passes") for r, e in efforts if e.eps == given.eps
        ],
    }
    sizes = _by_size(tried)
    return [
        (what, [f"{_least(axis, size)} with {size}" for size in sizes])
        for what, axis in axes.items()
        if len({place for _, place, _ in axis}) > 1
    ]


def _least(axis: Sequence[tuple[DetectorRecord, float, str]], size: int) -> str:
    """The first place on ``axis`` at which sets of ``size`` are evaded on half of the photos, on average."""
    shares: dict[tuple[float, str], list[Estimate]] = {}
    for record, place, called in axis:
        if record.interpreters == size:
            shares.setdefault((place, called), []).append(record.evaded)
    enough = [place for place, figures in shares.items() if (_mean(figures) or 0.0) >= _HALF]
    return min(enough)[1] if enough else f"more than {max(shares)[1]}"


def _by_detector(records: Sequence[DetectorRecord]) -> Mapping[DetectorName, list[DetectorRecord]]:
    return {name: [r for r in records if r.detector == name] for name in dict.fromkeys(r.detector for r in records)}


def _extremes(of_sets: Sequence[DetectorRecord]) -> list[tuple[DetectorRecord, DetectorRecord]]:
    """Of each size the sets that are evaded least and most; of two alike the cheaper is the better one."""

    def rank(record: DetectorRecord) -> tuple[float, int]:
        return record.evaded.value or 0.0, record.passes

    several = {size: here for size, here in _by_size(of_sets).items() if size > 1 and len(here) > 1}
    return [(min(here, key=rank), max(here, key=lambda r: (rank(r)[0], -r.passes))) for here in several.values()]


def _parts(ablations: Sequence[DetectorRecord]) -> dict[str, list[tuple[str, float]]]:
    """By signal, alone, its AUROC under PGD, under the ADV² hardest to detect, and under the adaptive attack."""
    alone = [record for record in ablations if record.signals is not None and record.signals.alone]
    found: dict[str, list[tuple[str, float]]] = {}
    for signals, attack in product(dict.fromkeys(str(record.signals) for record in alone), _ATTACKS):
        mine = [r.auroc.value for r in alone if (str(r.signals), _attack_of(r)) == (signals, attack)]
        known = [area for area in mine if area is not None]
        if known:
            found.setdefault(signals, []).append((attack, min(known)))
    return found


def _attack_of(record: DetectorRecord) -> str:
    """One of `_ATTACKS`."""
    pgd, adv2, adapted = _ATTACKS
    if isinstance(record.under, str):
        return adapted
    return pgd if record.under.is_pgd else adv2
