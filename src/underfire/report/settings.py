"""What the run was: threat model, settings, cost, exclusions, versions; enough to repeat it."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from underfire.auditing.condition import Condition
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


def allowed(run: Run) -> tuple[str, float | None]:
    """The perturbation of a run and its budget, None where neither run.json nor a row tells it."""
    facts = run.section("threat_model")
    first = next(iter(run.records), None)
    norm, eps = facts.get("norm", first and first.allowed.perturbation), facts.get("eps", first and first.allowed.eps)
    return str(norm), float(eps) if isinstance(eps, int | float) else None


def threat_model(run: Run) -> list[Fact]:
    """What the attacker may do."""
    norm, eps = allowed(run)
    found = []
    for name, value in run.section("threat_model").items():
        if name == "eps" and eps is not None:
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
    config = run.section("config")
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
    model = run.section("model")
    facts = [Fact(f"model, {_words(name)}", _plain(v)) for name, v in model.items() if name != "class_names"]
    facts += [Fact(_words(n), _plain(run.facts[n])) for n in ("created", "device", "platform") if n in run.facts]
    if "underfire_version" in run.facts:
        facts.append(Fact("underfire", _plain(run.facts["underfire_version"])))
    facts += [Fact(name, _plain(value)) for name, value in run.section("versions").items()]
    return facts


def costs(run: Run, summary: Summary) -> list[Cost]:
    """One line per attack."""
    steps = {row.condition: row.spent.steps for row in run.records}
    return [
        Cost(
            title=attack.condition.title,
            n=attack.n,
            asr=of(attack.asr_8bit),
            asr_interval=interval(attack.asr_8bit),
            asr_float=of(attack.asr),
            confidence=_share(attack.confidence_8bit.value),
            linf=number(None if attack.linf.value is None else attack.linf.value * 255, 1),
            steps=str(steps[attack.condition]),
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
