"""Entries of the benchmark joined into tables of what compares, as Markdown or as a page of HTML."""

from collections.abc import Hashable, Sequence
from html import escape

from underfire.evidence.benchmark import HEADLINE_TAU, BenchmarkCertificate, BenchmarkEntry, BenchmarkSettings
from underfire.evidence.signs import cell, xml_text
from underfire.files import shortened
from underfire.present.text import agreeing, budget, number, plural
from underfire.stats import Estimate

CERTIFIED_GOAL = "other/kept"
"""The goal of the table's certificates: any other label under a map that is kept."""

TITLE = "Joint attacks on prediction and explanation"

COLUMNS = (
    "model",
    "interpreter",
    f"JSR@{HEADLINE_TAU:g}",
    "of PGD",
    "of noise",
    "by transfer, at most",
    "accuracy",
    "faithfulness",
    "certified radius (L2)",
    "attacked",
    "to be relied upon",
)

NOTE = (
    f"JSR@{HEADLINE_TAU:g} is the share of attacked photos on which ADV² chose the label and kept the map (an IoU with "
    f"the benign map of at least {HEADLINE_TAU:g}), with its 95 % interval: lower is better, and a lower bound of what "
    "an attacker can reach. Each table is of the same photos under the same budget: its rows compare. An entry that is "
    "not to be relied upon stands last. The certified radius is the median over photos of R(½) against "
    f"{CERTIFIED_GOAL}: within that L2 distance, in pixel values, no attacker reaches another label under a kept map "
    "in more than half of the noisy draws. It is of the model behind noise, which is another system than the attacked "
    "one, at the σ that certifies most; higher is better."
)


def ordered(entries: Sequence[BenchmarkEntry]) -> list[BenchmarkEntry]:
    """``entries`` by joint success rate, those that are not reliable last."""
    return sorted(entries, key=lambda e: (e.unreliable, e.jsr.value is None, e.jsr.value or 0, e.model, e.interpreter))


def comparable(entries: Sequence[BenchmarkEntry]) -> Sequence[Sequence[BenchmarkEntry]]:
    """``entries`` as `ordered`, in groups of the same photos and budget; most photos first."""
    groups: dict[Hashable, list[BenchmarkEntry]] = {}
    for entry in sorted(ordered(entries), key=lambda e: (-e.photos, e.photos_sha256)):  # stable: the order stays
        spent = entry.settings
        conditions = (
            entry.photos,
            entry.photos_sha256,
            spent.perturbation,
            spent.eps,
            spent.preset,
            spent.passes,
            spent.steps,
        )
        groups.setdefault(conditions, []).append(entry)
    return list(groups.values())


def rows(entries: Sequence[BenchmarkEntry]) -> list[tuple[str, ...]]:
    """The cells of every entry, under `COLUMNS`, as plain text: printable, and no longer than a page can show."""
    return [tuple(xml_text(shortened(text)) for text in _row(entry)) for entry in entries]


def as_markdown(entries: Sequence[BenchmarkEntry]) -> str:
    """A page with a table for each group of comparable entries."""
    text = f"# {TITLE}\n\n{NOTE}\n"
    for some in comparable(entries):
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(tuple(map(cell, row)) for row in rows(some))]
        text += f"\n## {cell(_conditions(some[0]))}\n\n" + "\n".join(map(_line, lines)) + "\n"
    return text


def as_html(entries: Sequence[BenchmarkEntry]) -> str:
    """The same as one file that opens from disk, without a script."""
    tables = "\n".join(_table(_conditions(some[0]), some) for some in comparable(entries))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>underfire benchmark</title><style>"
        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;"
        "padding:0 1rem}.wide{overflow-x:auto}table{border-collapse:collapse}th,td{text-align:left;padding:.3rem .7rem;"
        "border-bottom:1px solid #8886;white-space:nowrap}</style></head><body><main>"
        f"<h1>{TITLE}</h1><p>{escape(NOTE)}</p>\n{tables}\n</main></body></html>\n"
    )


def _table(heading: str, entries: Sequence[BenchmarkEntry]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows(entries))
    return (
        f'<h2>{escape(heading)}</h2>\n<div class="wide" tabindex="0" role="region" aria-label="{escape(heading)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _conditions(entry: BenchmarkEntry) -> str:
    """What entries that compare have in common, in words."""
    settings = entry.settings
    size = budget(settings.eps, settings.perturbation)
    photos = plural(entry.photos, "photo")
    return xml_text(
        shortened(f"{photos} ({entry.photos_sha256[:8]}), {settings.perturbation} {size}, {_effort(settings)}")
    )


def _row(entry: BenchmarkEntry) -> tuple[str, ...]:
    reached = [one.jsr.value for one in entry.transfer if one.jsr.value is not None]
    doubts = sorted({doubt.id for doubt in entry.doubts})
    return (
        entry.model,
        entry.interpreter,
        _rate(entry.jsr),
        number(entry.jsr_pgd.value, 2),
        number(entry.noise.value, 2),
        number(max(reached, default=None), 2),
        number(entry.accuracy.value, 2),
        "not looked at" if entry.floor is None else entry.floor.verdict,
        _certified(entry.certificate),
        str(entry.attacked),
        f"{'no' if entry.unreliable else 'bounds' if doubts else 'yes'}{': ' if doubts else ''}{', '.join(doubts)}",
    )


def _certified(certificate: BenchmarkCertificate | None) -> str:
    """The largest radius against `CERTIFIED_GOAL` of all σ, which are certified together, and of what it is."""
    noise = () if certificate is None else certificate.noise
    found = [(goal.radius, one) for one in noise for goal in one.goals if goal.goal == CERTIFIED_GOAL]
    if certificate is None or not found:
        return number(None)
    radius, of = max(found, key=lambda pair: pair[0])
    abstained = f"{of.abstained} of {certificate.photos} {agreeing(of.abstained, 'abstains', 'abstain')}"
    return f"{number(radius)} (σ {of.sigma:g}; {abstained})"


def _effort(settings: BenchmarkSettings) -> str:
    if settings.passes is not None:
        return f"{settings.passes} passes"
    return settings.preset if settings.steps is None else f"{settings.steps} steps"


def _rate(figure: Estimate) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "–"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
