"""Whether the ranking of the interpreters depends on the measure of their maps."""

from dataclasses import dataclass

from underfire.auditing.agreement import MeasureAgreement, Ranking
from underfire.auditing.summary import Summary
from underfire.present.text import interpreter_title, number
from underfire.present.words import written
from underfire.studies.study import Claim, above

ALIKE = 0.9
"""Kendall's W from which on, with its whole interval, rankings are called one."""


@dataclass(frozen=True)
class AgreementPart:
    """The table of the page and what it shows.

    Attributes:
        claim: that every measure ranks the interpreters alike.
        words: made from it.
        columns: titles of the interpreters.
        lines: by measure, of each interpreter its mean and its rank.
    """

    claim: Claim
    words: str
    columns: tuple[str, ...]
    lines: dict[str, tuple[tuple[str, str], ...]]


def agreement_part(summary: Summary) -> AgreementPart | None:
    """None where fewer than two interpreters can be ranked."""
    found = summary.agreement
    if found is None:
        return None
    figure = found.concordance
    claim = Claim(
        "rankings agree", "Every measure ranks the interpreters alike", above(figure, ALIKE), {"w": figure}, figure.n
    )
    words = written(
        "underfire.report",
        "agreement.md.jinja",
        rankings=len(found.rankings),
        concordance=figure,
        most=_most_resistant(found),
    )
    lines = {one.measure: _line(one) for one in found.rankings}
    return AgreementPart(claim, words, tuple(map(interpreter_title, found.interpreters)), lines)


def _line(ranking: Ranking) -> tuple[tuple[str, str], ...]:
    return tuple((number(mean), f"{rank:g}") for mean, rank in zip(ranking.means, ranking.ranks, strict=True))


def _most_resistant(found: MeasureAgreement) -> dict[str, list[str]]:
    """By interpreter, the measures by which none resists more."""
    best = {one.measure: min(one.ranks) for one in found.rankings}
    by = {
        name: [one.measure for one in found.rankings if one.ranks[place] == best[one.measure]]
        for place, name in enumerate(found.interpreters)
    }
    return {name: measures for name, measures in by.items() if measures}
