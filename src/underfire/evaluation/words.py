"""The words of the study of defences, made from its numbers."""

from collections.abc import Sequence

from underfire.auditing.plan import PlannedPhoto
from underfire.evaluation.lines import ADAPTIVE, AT_ITS_COST, OVER, PGD, Line, best, is_adv2, sets, spent
from underfire.evaluation.signals import MEAN_MAP, SQUEEZING
from underfire.present.text import interpreter_title, listing, percent, plural, title
from underfire.studies.reruns import taking_part

CLAIM = (
    "Several complementary interpreters together show what one alone does not (the paper’s discussion of "
    "countermeasures). It leaves open how to detect an attack by their maps, and what is left of that against an "
    "attacker who knows the detector and attacks all of them at once."
)

_HALF = 0.5  # of the photos

_BASELINES = {MEAN_MAP: "the mean map", SQUEEZING: "feature squeezing"}


def detector_title(key: str) -> str:
    """A detector as words and figure call it: ``grad+cam`` is GRAD + CAM."""
    return _BASELINES.get(key) or " + ".join(map(interpreter_title, key.split("+")))


def under_title(under: str) -> str:
    """What was done to photos: ``adv2-cam`` is ADV² on CAM, ``patch: pgd`` PGD (patch)."""
    name, _, condition = under.rpartition(": ")
    return f"{title(condition)} ({name})" if name else title(condition)


def defence_words(
    lines: Sequence[Line],
    *,
    photos: Sequence[PlannedPhoto],
    skipped: int,
    beyond_limit: int,
    left_out: int,
    rates: Sequence[float],
    passes: int,
    budget: int | None,
    sharings: Sequence[str],
) -> str:
    """Which set to deploy, what it costs, what it will not stop, and how sure that is: paragraphs, a line between them.

    Args:
        lines: the table's.
        photos: all of the audit; ``skipped`` files could not be used, and ``beyond_limit`` of them were not asked for.
        left_out: clean photos that showed the same as others.
        rates: at which the detectors were fitted, the named one first.
        passes: of the adaptive attacker, at most, for a photo.
        budget: of detection, for a photo.
        sharings: of the attacker.
    """
    chosen = best(lines)
    left = f"Left out of the fit, as they show the same as others: {plural(left_out, 'clean photo')}."
    beyond = f"Of these, {plural(beyond_limit, 'photo')} beyond the limit were not asked for."
    paragraphs = (
        (_chosen(chosen, budget, among=len(sets(lines))), _not_stopped(chosen, rates[0]), _costs(lines)),
        (_others(chosen, lines), _harmless(chosen, lines, rates[0])),
        (_growth(lines), _resources(lines), _sharings(lines), _searched(lines), _hardest(lines)),
        (_baselines(lines), _parts(lines)),
        (
            _how(chosen, rates, passes, sharings),
            taking_part(photos, skipped),
            beyond if beyond_limit else "",
            left if left_out else "",
        ),
    )
    joined = [" ".join(sentence for sentence in sentences if sentence) for sentences in paragraphs]
    return "\n\n".join(paragraph for paragraph in joined if paragraph)


def _chosen(line: Line, budget: int | None, *, among: int) -> str:
    limit = "" if budget is None else f" within {budget} passes for a photo"
    return (
        f"Against the attacker who knows the detector, {detector_title(line.detector)} detects best{limit}, at "
        f"{line.passes} passes for a photo: {_evaded(line)}."
        + (f" It is the best of {among} on these very photos, which flatters it." if among > 1 else "")
    )


def _evaded(line: Line) -> str:
    """What the attacker who knows the detector gets."""
    return (
        f"that attacker reaches the label unflagged on {_share(line.evaded, line.evaded_low, line.evaded_high)} of "
        f"{plural(line.n, 'photo')}, with {_number(line.confidence, 2)} mean confidence where the label is reached, "
        f"and the AUROC is {_area(line)}"
    )


def _not_stopped(line: Line, rate: float) -> str:
    evaded = round((line.evaded or 0.0) * line.n)
    if not evaded:
        return (
            f"On none of these photos was it evaded; up to {percent(line.evaded_high or 0.0)} remain possible at this "
            "n, and an attacker who has more time, or another loss, may evade it."
        )
    return (
        f"It will not stop this attacker on {evaded} of {line.n} photos; at a rate of {rate:g} it is a reason to look, "
        "and no proof that a photo without a flag is clean."
    )


def _others(chosen: Line, lines: Sequence[Line]) -> str:
    """Attackers who do not know it."""
    here = [line for line in lines if line.kind == "attack" and line.detector == chosen.detector]
    plain = [line for line in here if line.under == PGD or is_adv2(line.under)]
    others = [line for line in here if line not in plain]
    said = "; ".join(f"{under_title(line.under)} {_area(line)}" for line in plain if line.auroc is not None)
    more = "; ".join(f"{under_title(line.under)} {_area(line)}" for line in others if line.auroc is not None)
    return " ".join(
        sentence
        for sentence in (
            f"Attackers who do not know it are told from benign photos with an AUROC of: {said}." if said else "",
            f"And of further attacks: {more}." if more else "",
        )
        if sentence
    )


def _harmless(chosen: Line, lines: Sequence[Line], rate: float) -> str:
    here = [line for line in lines if line.kind == "harmless" and line.detector == chosen.detector]
    said = ", ".join(f"{line.under} {percent(line.flagged)}" for line in here if line.flagged is not None)
    low, high, value = chosen.false_positives_low, chosen.false_positives_high, chosen.false_positives
    return (
        f"At a named rate of {percent(rate)} it flags {_share(value, low, high)} of the benign photos, all of which "
        f"the classifier sees rightly, and of harmless changes: {said}."
    )


def _costs(lines: Sequence[Line]) -> str:
    """The best set for each number of passes."""
    steps = [line for line in sets(lines) if line.verdict in ("best", AT_ITS_COST)]
    said = ", ".join(
        f"{detector_title(line.detector)} at {line.passes} (evaded on {percent(line.evaded or 0.0)})"
        for line in sorted(steps, key=lambda line: line.passes)
    )
    over = sum(line.verdict == OVER for line in lines)
    dearer = f" {plural(over, 'set')} cost more than the budget." if over else ""
    return f"The best for what it costs, by passes for a photo: {said}.{dearer}"


def _growth(lines: Sequence[Line]) -> str:
    """What the attacker pays as interpreters are added."""
    sizes = sorted({line.interpreters for line in sets(lines)})
    if len(sizes) < 2:
        return ""
    parts = []
    for size in sizes:
        here = [line for line in sets(lines) if line.interpreters == size]
        steps = [line.steps for line in here if line.steps is not None]
        parts.append(
            f"with {size}: {_mean([line.evaded for line in here])} evaded, {_mean([line.reached for line in here])} "
            f"reached, confidence {_plain([line.confidence for line in here])}, {_range(steps)} steps"
        )
    return (
        "What the attacker gets as interpreters are added, on average over sets, with as many passes for an attempt "
        f"whatever their number: {'; '.join(parts)}."
    )


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _resources(lines: Sequence[Line]) -> str:
    """What the attacker must spend as interpreters are added."""
    tried = [line for line in lines if line.kind == "resources"]
    if not tried:
        return ""
    given = sets(lines)[0]
    eps, passes = next(spent(line) for line in tried if (line.eps, line.most_passes) == (given.eps, given.most_passes))
    axes = {
        f"the least ε, at {passes}": ("eps", [line for line in tried if line.most_passes == given.most_passes]),
        f"the fewest passes, at {eps}": ("most_passes", [line for line in tried if line.eps == given.eps]),
    }
    sizes = sorted({line.interpreters for line in tried})
    parts = [
        f"{words}: {', '.join(f'{_least(here, size, what)} with {size}' for size in sizes)}"
        for words, (what, here) in axes.items()
        if len({getattr(line, what) for line in here}) > 1
    ]
    return (
        f"What this attacker must spend, with {_first(lines)} sharing, to evade half of the photos (of what was tried; "
        f"mean over sets of as many interpreters), {'; '.join(parts)}."
    )


def _least(lines: Sequence[Line], size: int, what: str) -> str:
    """The least ``what``, eps or most_passes, with which sets of ``size`` are evaded on half of the photos."""
    here = [line for line in lines if line.interpreters == size]
    shares: dict[float, list[float]] = {}
    for line in here:
        shares.setdefault(getattr(line, what), []).append(line.evaded or 0.0)
    words = {getattr(line, what): spent(line)[what == "most_passes"] for line in here}
    enough = [value for value, some in shares.items() if sum(some) / len(some) >= _HALF]
    return words[min(enough)] if enough else f"more than {words[max(shares)]}"


def _first(lines: Sequence[Line]) -> str:
    """The sharing with which baselines, grids and searches are tried."""
    shared = [line.sharing for line in lines if line.kind == "set" and line.sharing is not None]
    return shared[0].partition("+")[0] if shared else "no"


def _sharings(lines: Sequence[Line]) -> str:
    """What each way to share a step does by itself."""
    alone = [line for line in lines if line.kind == "sharing"]
    parts = []
    for detector in dict.fromkeys(line.detector for line in alone):
        said = ", ".join(
            f"{line.sharing} {percent(line.evaded or 0.0)} (AUROC {_number(line.auroc, 2)})"
            for line in alone
            if line.detector == detector
        )
        parts.append(f"{detector_title(detector)} {said}")
    return f"Evaded by each sharing alone: {'; '.join(parts)}." if parts else ""


def _searched(lines: Sequence[Line]) -> str:
    """What a search by the score adds."""
    found = [line for line in lines if line.kind == "search"]
    if not found:
        return ""
    said = "; ".join(f"{detector_title(line.detector)} {percent(line.evaded or 0.0)}" for line in found)
    how = found[0].under.removeprefix(f"{ADAPTIVE}, then ")
    return (
        f"With {how} more for a photo that is still flagged, by the score alone, from what {_first(lines)} sharing "
        f"left, sets are evaded on: {said}."
    )


def _hardest(lines: Sequence[Line]) -> str:
    """Of each size, the set that is evaded least."""
    several = [line for line in sets(lines) if line.interpreters > 1]
    sizes = sorted({line.interpreters for line in several})
    parts = []
    for size in sizes:
        here = [line for line in several if line.interpreters == size]
        if len(here) > 1:
            hardest = min(here, key=lambda line: (line.evaded or 0.0, line.passes))
            easiest = max(here, key=lambda line: (line.evaded or 0.0, -line.passes))
            parts.append(
                f"of {size}, {detector_title(hardest.detector)} (evaded on {percent(hardest.evaded or 0.0)}; easiest "
                f"{detector_title(easiest.detector)}, {percent(easiest.evaded or 0.0)})"
            )
    return f"Hardest to satisfy together: {'; '.join(parts)}." if parts else ""


def _baselines(lines: Sequence[Line]) -> str:
    here = [line for line in lines if line.kind == "baseline"]
    parts = []
    for line in here:
        known = {"PGD": line.auroc_pgd, "the ADV² that is hardest for it": line.auroc_adv2}
        said = ", ".join(f"{name} {value:.2f}" for name, value in known.items() if value is not None)
        parts.append(
            f"{detector_title(line.detector)} ({said}; who knows it {_number(line.auroc, 2)}, evaded on "
            f"{percent(line.evaded or 0.0)})"
        )
    once = f", with {_first(lines)} sharing alone" if any(line.kind == "sharing" for line in lines) else ""
    return f"Baselines, by AUROC{once}: {'; '.join(parts)}." if parts else ""


def _parts(lines: Sequence[Line]) -> str:
    """What the groups of signals are worth."""
    here = [line for line in lines if line.kind == "ablation" and line.auroc is not None]
    names = list(dict.fromkeys(line.signals for line in here if line.signals and line.signals.endswith(" alone")))
    if not names:
        return ""
    parts = []
    for name in names:
        mine = {line.under: line.auroc for line in here if line.signals == name}
        adv2 = [value for under, value in mine.items() if is_adv2(under) and value is not None]
        figures = [("PGD", mine.get(PGD)), ("ADV²", min(adv2, default=None))]
        adapted = [("the attack adapted to all", value) for under, value in mine.items() if under.startswith(ADAPTIVE)]
        said = ", ".join(f"{what} {value:.2f}" for what, value in figures + adapted if value is not None)
        parts.append(f"{name} {said}")
    return f"Groups of signals of {detector_title(here[0].detector)}, by AUROC, of ADV² the lowest: {'; '.join(parts)}."


def _how(chosen: Line, rates: Sequence[float], passes: int, sharings: Sequence[str]) -> str:
    strict = f" and {percent(rates[1])}" if len(rates) > 1 else ""
    several = f" and attempt, the strongest of {listing(list(sharings))} sharing" if len(sharings) > 1 else ""
    return (
        f"Each detector was fitted on {plural(chosen.clean, 'clean photo')} with thresholds at {percent(rates[0])}"
        f"{strict}, never on an attack; each set was attacked anew with at most {passes} passes for a photo{several}. "
        "All is measured on images as saved in 8 bit; every share has its 95 % interval in the table."
    )


def _share(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return percent(value) if low is None or high is None else f"{percent(value)} ({percent(low)} to {percent(high)})"


def _area(line: Line) -> str:
    if line.auroc is None:
        return "–"
    if line.auroc_low is None or line.auroc_high is None:
        return f"{line.auroc:.2f}"
    return f"{line.auroc:.2f} ({line.auroc_low:.2f} to {line.auroc_high:.2f}, n = {line.n - line.failed})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return percent(sum(known) / len(known)) if known else "–"


def _plain(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "–"
