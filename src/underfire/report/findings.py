"""What a decision-maker needs: one card per interpreter, and what was found in a few sentences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from underfire.auditing.condition import PGD
from underfire.auditing.run import Run
from underfire.auditing.summary import AttackFigures, Cell, Headline, PhotoCounts, Summary
from underfire.diagnostics.map_checks import FaithfulnessFloor, FloorVerdict
from underfire.present.text import (
    interpreter_title,
    interval,
    limit,
    listing,
    number,
    of,
    percent,
    plural,
    signed,
)
from underfire.report.settings import allowed
from underfire.stats import Share


@dataclass(frozen=True)
class Bar:
    """A share with its interval, in per cent of the width of a track."""

    who: str
    style: str
    count: str
    interval: str
    value: float
    low: float
    width: float


@dataclass(frozen=True)
class Card:
    """The answer for one interpreter; ``bars`` are ADV²'s and, where it was run, PGD's.

    ``doubt`` is why the answer says nothing of robustness, empty where it does.
    """

    title: str
    k: int
    n: int
    bars: tuple[Bar, ...]
    sentences: tuple[str, ...]
    doubt: str


def cards(summary: Summary) -> list[Card]:
    """One card per interpreter that was attacked on its own."""
    return [_card(headline) for headline in summary.headlines]


def _card(headline: Headline) -> Card:
    title, kept, pgd, quiet = (
        interpreter_title(headline.interpreter),
        headline.kept,
        headline.kept_pgd,
        headline.within_noise,
    )
    reading = f"An attacker who aims at {title} chose the label and kept the map {_on(kept, 'photo')}"
    if pgd.n:
        reading += f"; PGD, which ignores the map, {_on(pgd)}"
    sentences = [f"{reading}."]
    if quiet.n:
        sentences.append(
            f"{_on(quiet, 'photo').capitalize()} the attacked map strayed no further than harmless noise "
            "of the same size moves it."
        )
    floor = headline.faithfulness
    bars = [_bar(f"ADV² on {title}", "adv2", kept), _bar("PGD", "pgd", pgd)]
    if floor is not None:
        sentences.append(_faithfulness(title, floor))
    doubt = "" if floor is None else _DOUBTS.get(floor.verdict, "")
    return Card(title, kept.k, kept.n, tuple(bar for bar in bars if bar), tuple(sentences), doubt)


_DOUBTS = {
    FloorVerdict.CONSTANT: "A map that shows nothing can neither be kept nor moved: this is no robustness.",
    FloorVerdict.UNCHANGED: "A map that does not depend on the model explains none: that it resists is no robustness.",
    FloorVerdict.WORSE: "A map worse than a random one explains nothing: that it resists is no robustness.",
    FloorVerdict.UNDECIDED: "While it may be no better than a random map, that it resists is no robustness.",
}
"""Why an answer says nothing of robustness."""

_FAITHFUL = {
    FloorVerdict.MET: "maps of {} show more of the model than random maps do",
    FloorVerdict.UNDECIDED: "maps of {} are not shown to be better than random maps on so few photos",
    FloorVerdict.WORSE: "maps of {} are worse than random maps",
    FloorVerdict.UNCHANGED: "maps of {} hardly change when the weights of the model become random",
}
"""What the maps show without an attack, with room for the interpreter."""


def _faithfulness(title: str, floor: FaithfulnessFloor) -> str:
    if floor.verdict is FloorVerdict.CONSTANT:
        return f"Without an attack, the map of {title} is constant {_on(floor.constant, 'photo')}."
    n, left = plural(floor.advantage.n, "photo"), floor.similarity.value
    figures = f"insertion less deletion is {signed(floor.advantage, 2)} against a random map’s on {n}"
    if left is not None:
        figures += f", and with random weights a map keeps a rank correlation of {number(left, 2)}"
    return f"Without an attack, {_FAITHFUL[floor.verdict].format(title)}: {figures}."


def _on(rate: Share, noun: str = "") -> str:
    """``on 9 of 10 photos``, ``on all 10``, ``on no photo``."""
    if rate.k == 0:
        return f"on no {noun}" if noun else "on none"
    everyone = f"all {plural(rate.n, noun) if noun else rate.n}"
    return f"on {everyone if rate.k == rate.n > 1 else of(rate, noun)}"


def _bar(who: str, style: str, rate: Share) -> Bar | None:
    if rate.value is None or rate.low is None or rate.high is None:
        return None
    low, high = 100 * rate.low, 100 * rate.high
    return Bar(who, style, of(rate), interval(rate), round(100 * rate.value, 2), round(low, 2), round(high - low, 2))


def findings(summary: Summary, eps: float | None, norm: str) -> list[str]:
    """What the audit found, in at most six sentences."""
    said = [
        _photos(summary.photos),
        _labels(summary, eps, norm),
        _moved(summary),
        _goals(summary),
        _transfer(summary),
        _own_labels(summary.photos),
    ]
    return [sentence for sentence in said if sentence]


def sentences(run: Run) -> list[str]:
    """What the audit found, and of each interpreter that was attacked by itself whether its map was kept."""
    norm, eps = allowed(run)
    answers = [said for card in cards(run.summary) for said in (*card.sentences, card.doubt) if said]
    return [*findings(run.summary, eps, norm), *answers]


def _photos(photos: PhotoCounts) -> str:
    said = f"{photos.attacked} of {plural(photos.total, 'photo')} could be attacked"
    if photos.reasons:
        named = [f"{excluded.reason} ({excluded.count})" for excluded in photos.reasons]
        said += f"; the others were {listing(named)}"
    return f"{said}."


def _labels(summary: Summary, eps: float | None, norm: str) -> str:
    moving = [a for a in summary.attacks if a.condition.attack == "stadv" and norm != "flow"]  # has a budget of its own
    attacks = [a for a in summary.attacks if a not in moving and a.condition.chases_target]
    said = [_reach(attacks, f"{limit(eps, norm)}, the" if eps else "The"), _reach(moving, "By moving pixels instead,")]
    return " ".join(sentence for sentence in said if sentence)


def _reach(attacks: Sequence[AttackFigures], beginning: str) -> str:
    if not attacks:
        return ""
    reach = listing([f"{attack.condition.title} on {of(attack.asr_8bit)}" for attack in attacks])
    confidences = [a.confidence_8bit.value for a in attacks if a.confidence_8bit.value is not None]
    sure = f", with a mean confidence of {_range(confidences, percent)}" if confidences else ""
    return f"{beginning} attacks made the model say a label chosen beforehand: {reach}{sure}."


def _moved(summary: Summary) -> str:
    parts = []
    for headline in summary.headlines:
        own = _mean_l1(summary.cell(headline.condition, headline.interpreter))
        pgd = _mean_l1(summary.cell(PGD, headline.interpreter))
        if own is not None and pgd is not None:
            parts.append(f"{number(own)} on {interpreter_title(headline.interpreter)} (PGD {number(pgd)})")
    return f"ADV² moved the map it aimed at, by mean L1, by {listing(parts)}." if parts else ""


def _goals(summary: Summary) -> str:
    """Of the goals that lead to no target class, each with the photos on which an attack on each interpreter met it."""
    parts = []
    for goal in dict.fromkeys(figures.goal for figures in summary.goals if not figures.condition.chases_target):
        met = [
            f"{of(rate.jsr)} for {interpreter_title(figures.interpreter)}"
            for figures in summary.goals
            if figures.goal == goal and (rate := figures.headline) is not None
        ]
        if met:
            parts.append(f"{goal} on {listing(met)}")
    return f"Without a class chosen beforehand it reached {'; '.join(parts)}." if parts else ""


def _transfer(summary: Summary) -> str:
    others = [c for c in summary.transfer if c.condition.attack == "adv2" and not c.condition.is_own(c.interpreter)]
    elsewhere = [v for c in others if (v := _mean_l1(c)) is not None]
    pgd = [v for c in summary.transfer if c.condition == PGD and (v := _mean_l1(c)) is not None]
    if not elsewhere or not pgd:
        return ""
    return (
        f"Through interpreters it did not aim at, its images show a mean L1 of {_range(elsewhere, number)}; "
        f"PGD’s show {_range(pgd, number)}."
    )


def _own_labels(photos: PhotoCounts) -> str:
    if not photos.own_labels:
        return ""
    which = (
        "Every photo"
        if photos.own_labels == photos.total
        else f"{photos.own_labels} of {plural(photos.total, 'photo')}"
    )
    return f"{which} came without a label: there the model’s own prediction was taken for the truth."


def _mean_l1(cell: Cell | None) -> float | None:
    return None if cell is None else cell.mean("l1").value


def _range(values: list[float], write: Callable[[float], str]) -> str:
    low, high = write(min(values)), write(max(values))
    return low if low == high else f"{low} to {high}"
