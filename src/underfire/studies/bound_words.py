"""The words of the study of the bound, made from its numbers."""

from collections.abc import Collection, Mapping, Sequence
from statistics import median

from underfire.auditing.condition import PGD, Condition
from underfire.auditing.names import known_interpreters
from underfire.images.files import shortened
from underfire.present.text import estimate, interpreter_title, plural, title
from underfire.stats import Estimate, bootstrap_paired
from underfire.studies.bound_cells import (
    ATTRIBUTIONS,
    DISTANCES,
    FALSE_ALARMS,
    GAINS,
    NOISE,
    Image,
    Line,
    attribution_count,
    distance_count,
)
from underfire.studies.bound_sides import Tolerances
from underfire.studies.frontier_statistics import Finding, below_zero

CLAIM = (
    "Section 5, Proposition 1: what an attack adds to the probability of the target class is at most the L1 norm of "
    "the attribution of that change (ℓ_prd ≤ ‖Δm‖₁). From it the paper explains that prediction and map conflict in "
    "attacks on back-propagation interpreters, and adds that the bound may be loose."
)

_BACK_PROPAGATION = "back-propagation"
_NAMED = 5  # unresolved photos

Images = Mapping[tuple[str, str], Sequence[Image]]


def bound_words(
    images: Images,
    lines: Sequence[Line],
    tolerances: Tolerances,
    *,
    unresolved: Mapping[tuple[str, str], Sequence[str]],
    left_out: int,
    alike: Collection[str],
) -> str:
    """One paragraph: the bound, how loose it is, what a person sees, the conflict, and the measure over two classes.

    Args:
        images: by condition and interpreter, none of them empty.
        lines: their rows, and those of conditions of which every image is unresolved.
        tolerances: of the integrals.
        unresolved: by condition and interpreter, the names of the photos that are left out for it.
        left_out: how many photos were attacked and not measured at all.
        alike: the conditions that may be compared with PGD.
    """
    sentences = [
        _holds(images, tolerances, left_out),
        _unresolved(unresolved),
        _loose(lines),
        _seen(lines),
        _conflict(images, lines, alike),
        _two_classes(images, lines),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def correlations(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The attacks on a back-propagation interpreter, and those on others."""
    own = [line for line in lines if line.condition != str(PGD) and not _control(line)]
    families = {name: cls.family for name, cls in known_interpreters().items()}
    first = [line for line in own if families.get(line.map) == _BACK_PROPAGATION]
    return first, [line for line in own if line not in first]


def related(figures: Sequence[Estimate]) -> Finding:
    """Whether every one of ``figures``, rank correlations, is above zero, by their intervals."""
    return below_zero([_turned(figure) for figure in figures])


def _turned(figure: Estimate) -> Estimate:
    """``figure`` with its sign turned."""
    value, low, high = (None if end is None else -end for end in (figure.value, figure.high, figure.low))
    return Estimate(value, low, high, figure.n)


def _holds(images: Images, tolerances: Tolerances, left_out: int) -> str:
    every = _each(images)
    photos = len({image.image_id for image in every})
    residual = max(image.sides.proposition.residual for image in every)
    points = median(image.sides.proposition.points for image in every)
    unsettled = max(
        (abs(p.coarse / p.interpretation - 1) for p in (i.sides.proposition for i in every) if p.interpretation > 0),
        default=0.0,
    )
    rest = f" ({left_out} more were attacked and not measured)" if left_out else ""
    return (
        f"Proposition 1 holds, as it must: on all {plural(len(every), 'image')} of {plural(photos, 'photo')}{rest} "
        "ℓ_prd is at most ‖Δm‖₁ up to the tolerance, f being the probability of the target among label and target. "
        "What is tested is completeness, from which this follows: the integrals miss it by at most "
        f"{residual:.1g} (tolerance {tolerances.probability:g}; {points:.0f} points in the median), and half the "
        f"points change ‖Δm‖₁ by at most {unsettled:.1%}."
    )


def _unresolved(unresolved: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """How many images are left out, and the first of their photos by name; the table has all."""
    conditions: dict[str, list[str]] = {}
    for condition, photo in dict.fromkeys((key[0], photo) for key, names in unresolved.items() for photo in names):
        conditions.setdefault(photo, []).append(title(condition))
    if not conditions:
        return ""
    named = [f"{shortened(photo)} ({', '.join(some)})" for photo, some in sorted(conditions.items())[:_NAMED]]
    rest = len(conditions) - len(named)
    more = f" and {plural(rest, 'more photo')}, see the table" if rest else ""
    return (
        f"{plural(sum(map(len, conditions.values())), 'image')} left out as unresolved, for an integral there, on the "
        f"benign photo or under noise does not come within its tolerance: {'; '.join(named)}{more}."
    )


def _loose(lines: Sequence[Line]) -> str:
    high, reached = max(GAINS), [line for line in _by_condition(lines) if line.n]
    if not reached:
        return "No attack reached its label, so how loose it is cannot be told."
    counts = [sum(line.effective[attribution_count(high, most)] for line in reached) for most in ATTRIBUTIONS]
    least, most = _ends(reached, "attribution")
    between = f"lowest in the mean under {_named(least, 'attribution')}"
    if most is not least:
        between += f" and highest under {_named(most, 'attribution')}"
    return (
        f"How loose it is: of {sum(line.n for line in reached)} attacked images with the label, "
        f"{' / '.join(map(str, counts))} have ℓ_prd ≥ {high:g} with ‖Δm‖₁ ≤ "
        f"{' / '.join(f'{limit:g}' for limit in ATTRIBUTIONS)}; ‖Δm‖₁ is {between}."
    )


def _seen(lines: Sequence[Line]) -> str:
    high, limits = max(GAINS), " / ".join(f"{limit:g}" for limit in DISTANCES)
    parts = []
    for who, some in (
        ("of the maps that were attacked", [line for line in lines if line.condition not in (NOISE, str(PGD))]),
        ("of those under PGD", [line for line in lines if line.condition == str(PGD)]),
    ):
        counts = [sum(line.effective[distance_count(high, limit)] for line in some) for limit in DISTANCES]
        if some:
            parts.append(f"{' / '.join(map(str, counts))} {who} ({sum(line.n for line in some)})")
    return (
        "The proposition says nothing of what a person sees: ‖Δm‖₁ is probability summed over all values of the image, "
        "with the benign image as its baseline, while a person compares the scaled map of the label with that of the "
        f"target, which may be equal at any ℓ_prd. With the label and ℓ_prd ≥ {high:g}, within L1 {limits} of the "
        f"benign map: {', '.join(parts)}."
    )


def _conflict(images: Images, lines: Sequence[Line], alike: Collection[str]) -> str:
    back, others = correlations(lines)
    pgd = {image.image_id: image for key, some in images.items() if key[0] == str(PGD) for image in some}

    def told(line: Line) -> str:
        pairs = [
            (i.sides.proposition.interpretation, pgd[i.image_id].sides.proposition.interpretation)
            for i in images.get((line.condition, line.map), ())
            if line.condition in alike and i.success and i.image_id in pgd and pgd[i.image_id].success
        ]
        against = bootstrap_paired([a for a, _ in pairs], [b for _, b in pairs])
        beside = f", and ‖Δm‖₁ minus that of PGD {estimate(against, 2)}" if pairs else ""
        several = f" seen by {interpreter_title(line.map)}" if "+" in line.condition else ""
        return f"{title(line.condition)}{several} {_figure(line, 'rho')}{beside}"

    if not back:
        return "No back-propagation interpreter was attacked, so the conflict that the paper explains is not tested."
    finding = related([_mean(line, "rho") for line in back])
    compared = f"; under attacks on others: {'; '.join(map(told, others))}" if others else ""
    return (
        "If ‖Δm‖₁ is what stands between prediction and map for back-propagation interpreters, images with a larger "
        f"‖Δm‖₁ have maps further from the benign ones there. That {finding.value}: rank correlation of ‖Δm‖₁ with L1 "
        f"under {'; '.join(map(told, back))}{compared}."
    )


def _two_classes(images: Images, lines: Sequence[Line]) -> str:
    noise = next((line for line in lines if line.condition == NOISE), None)
    residual = max(image.sides.classes.residual for image in _each(images))
    told = [line for line in _by_condition(lines) if line.above_noise is not None and line.times is not None]
    measured = ""
    if told:
        times = [line.times for line in told if line.times is not None]
        worst, _ = _ends(told, "above_noise")
        least, most = _ends(told, "two_class")
        measured = (
            f" Under attack D is {min(times):.0f} to {max(times):.0f} times its bound in the median of an attack, "
            f"lowest under {title(least.condition)} ({_both(least)}) and highest under {title(most.condition)} "
            f"({_both(most)}); above the D of noise on the same photo on {_share(worst, 'above_noise')} at worst "
            f"({title(worst.condition)})."
        )
    floor = "" if noise is None else f" Under harmless noise: {_both(noise)}."
    return (
        "A measure that cannot be evaded is D, half the L1 distances of the signed, unscaled attributions for label "
        "and target together: it is at least half the change of the margin between their logits (after Boopathy et al. "
        f"2020). This holds on every image, up to residuals of at most {residual:.2g}.{measured}{floor} "
        f"{_verdict(lines)} D needs the benign image, so it measures attacks and detects none."
    )


def _verdict(lines: Sequence[Line]) -> str:
    """What D is worth for telling attacks from noise; the share of the worst attack decides."""
    shares = [line for line in _by_condition(lines) if line.caught is not None]
    if not shares:
        return "No attack reached its label, so whether D tells attacks from noise is not decided."
    if all(line.caught_low is not None and line.caught_low > 1 - 2 * FALSE_ALARMS for line in shares):
        return "One threshold on D tells these attacks from noise."
    if any(line.caught_high is not None and line.caught_high < 1 - 2 * FALSE_ALARMS for line in shares):
        return "One threshold on D does not tell these attacks from noise."
    return "Whether one threshold on D tells these attacks from noise is not decided at this n."


def _each(images: Images) -> list[Image]:
    """One entry per image, whoever shows it."""
    seen = {(condition, i.image_id): i for (condition, _), some in images.items() for i in some}
    return list(seen.values())


def _by_condition(lines: Sequence[Line]) -> list[Line]:
    """One line per attack: what is taken from it does not depend on the interpreter."""
    return list({line.condition: line for line in reversed(lines) if not _control(line)}.values())[::-1]


def _ends(lines: Sequence[Line], name: str) -> tuple[Line, Line]:
    """The lines with the lowest and the highest value of ``name``; the first of equals."""
    return min(lines, key=lambda line: getattr(line, name)), max(lines, key=lambda line: getattr(line, name))


def _named(line: Line, name: str) -> str:
    return f"{title(line.condition)} ({_figure(line, name)})"


def _mean(line: Line, name: str) -> Estimate:
    return Estimate(getattr(line, name), getattr(line, f"{name}_low"), getattr(line, f"{name}_high"), line.n)


def _figure(line: Line, name: str, digits: int = 2) -> str:
    return estimate(_mean(line, name), digits)


def _both(line: Line) -> str:
    return f"D {_figure(line, 'two_class', 0)} against a bound of {_figure(line, 'half_margin', 1)}"


def _share(line: Line, name: str) -> str:
    value, low, high = (getattr(line, f"{name}{end}") for end in ("", "_low", "_high"))
    return f"{round(value * line.n)} of {line.n} ({low:.0%} to {high:.0%})"


def _control(line: Line) -> bool:
    return Condition.parse(line.condition).is_control
