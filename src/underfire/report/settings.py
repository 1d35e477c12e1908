"""What the run was: threat model, settings, cost, exclusions, versions; enough to repeat it."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from underfire.auditing.condition import NONE, Condition
from underfire.auditing.facts import SkippedFile
from underfire.auditing.run import Run
from underfire.auditing.summary import Summary
from underfire.present.text import budget, interval, listing, number, of, percent


@dataclass(frozen=True)
class Fact:
    """A name and its value, as shown."""

    name: str
    value: str


@dataclass(frozen=True)
class Cost:
    """What one attack reached and what it took, per photo."""

    title: str
    n: int
    asr: str
    asr_interval: str
    asr_float: str
    confidence: str
    linf: str
    steps: str
    passes: str
    seconds: str


_EFFORTS = ("steps", "passes")
"""Settings that say, by condition, how long an attack may work on a photo."""

_NORMS = {
    "linf": "L∞ (the largest change of any pixel)",
    "l2": "L2 (the length of all changes together)",
    "flow": "flow (how far any pixel is moved)",
}


def allowed(run: Run) -> tuple[str, float]:
    """The perturbation of a run and its budget."""
    planned = run.plan.perturbation_of(NONE)
    return planned.name, planned.eps


@dataclass(frozen=True)
class Listed:
    """The files that the audit went without, the first ones by name."""

    files: tuple[SkippedFile, ...]
    others: int


MOST_LISTED = 50
"""So many files that were skipped are listed; run.json has all of them."""

_MOST_CHARACTERS = 4000  # of a command line, which may name every photo


def listed(skipped: Sequence[SkippedFile]) -> Listed:
    """What a page has room for of ``skipped``."""
    return Listed(tuple(skipped[:MOST_LISTED]), max(0, len(skipped) - MOST_LISTED))


def clipped(command: str) -> str:
    """What a page has room for of a command line."""
    if len(command) <= _MOST_CHARACTERS:
        return command
    return f"{command[:_MOST_CHARACTERS]} … ({len(command)} characters, all of them in run.json)"


def threat_model(run: Run) -> list[Fact]:
    """What the attacker may do."""
    norm, eps = allowed(run)
    found = []
    for name, value in run.facts.threat_model.items():
        if name == "eps":
            on_pixels = norm != "flow"
            exact = f" = {eps:.4f}" if on_pixels else ""
            found.append(Fact("ε, on pixels from 0 to 1" if on_pixels else "ε", f"{budget(eps, norm)}{exact}"))
        elif name == "norm":
            found.append(Fact("norm", _NORMS.get(norm, _plain(value))))
        else:
            found.append(Fact(_words(name), _plain(value)))
    return found


def configuration(run: Run) -> list[Fact]:
    """Every setting of the run, in its own order."""
    config = run.facts.config
    attacks = {key for name in _EFFORTS if isinstance(counts := config.get(name), dict) for key in counts}
    facts: list[Fact] = []
    for name, value in config.items():
        if name not in _EFFORTS:
            facts.append(Fact(_words(name), _plain(value)))
        elif isinstance(value, dict):
            facts.append(Fact(name, _effort(value, attacks)))
    return facts


def _effort(counts: Mapping[str, Any], attacks: Set[str]) -> str:
    """``150 per photo, for every attack``, or which of the ``attacks`` have how many."""
    by_count: dict[str, list[str]] = {}
    for key, count in counts.items():
        by_count.setdefault(_plain(count), []).append(key)
    titles = {
        count: "every attack" if set(keys) == attacks else listing([Condition.parse(key).title for key in keys])
        for count, keys in by_count.items()
    }
    return "; ".join(f"{count} per photo, for {title}" for count, title in titles.items())


def origin(run: Run) -> list[Fact]:
    """The model, the machine, the versions and the hashes."""
    said = run.facts
    facts = [Fact(f"model, {_words(n)}", _plain(v)) for n, v in asdict(said.model).items() if n != "class_names"]
    facts += [Fact(name, getattr(said, name)) for name in ("created", "device", "platform")]
    return [*facts, Fact("underfire", said.underfire_version), *(Fact(*pair) for pair in said.versions.items())]


def costs(summary: Summary) -> list[Cost]:
    """One line per attack."""
    return [
        Cost(
            title=attack.condition.title,
            n=attack.n,
            asr=of(attack.asr_8bit),
            asr_interval=interval(attack.asr_8bit),
            asr_float=of(attack.asr),
            confidence=_share(attack.confidence_8bit.value),
            linf=number(None if attack.linf.value is None else attack.linf.value * 255, 1),
            steps=str(attack.steps),
            passes=number(attack.passes.value, 0),
            seconds=number(attack.seconds.value, 1),
        )
        for attack in summary.attacks
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
