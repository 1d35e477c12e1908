"""``underfire models``, ``interpreters`` and ``attacks``: what is available."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from underfire.auditing.plan import PASSES, Preset
from underfire.cli.console import notes, print_json, print_table
from underfire.cli.options import json_option
from underfire.errors import InputError

if TYPE_CHECKING:
    from underfire.attacks.registry import AttackEntry
    from underfire.plugins import Parts

T = TypeVar("T")


@click.command()
@json_option
def models(as_json: bool) -> None:
    """Lists the models that --model takes."""
    from underfire.models import available

    if as_json:
        return print_json([asdict(source) for source in available()])
    return print_table(
        ("model", "what it is", "installed"),
        [(source.name, source.description, "yes" if source.installed else "no") for source in available()],
    )


@click.command()
@json_option
def interpreters(as_json: bool) -> None:
    """Lists the interpreters that --interpreters takes, with what they cost and need.

    A pass is one forward and backward pass of the model, per photo. A step is one of ADV².
    """
    from underfire.interpreters.registry import INTERPRETERS

    told = ("family", "summary", "passes_per_map", "passes_per_step", "needs")
    listed = [{"name": name, **{key: getattr(cls, key) for key in told}} for name, cls in _installed(INTERPRETERS)]
    if as_json:
        return print_json(listed)
    return print_table(
        ("interpreter", "family", "what its map shows", "passes a map", "passes a step", "needs"),
        [tuple(str(value or "-") for value in one.values()) for one in listed],
    )


@click.command()
@json_option
def attacks(as_json: bool) -> None:
    """Lists the attacks that --attacks takes, with the passes of each preset, and what --perturbation takes."""
    from underfire.attacks.registry import ATTACKS, AttackEntry
    from underfire.auditing.names import known_perturbations
    from underfire.present.text import budget

    entries = [AttackEntry.of(cls) for _, cls in _installed(ATTACKS)]
    if as_json:
        perturbations = [
            {"name": name, "summary": cls.summary, "eps": cls.eps, "unit": cls.unit}
            for name, cls in known_perturbations().items()
        ]
        return print_json({"attacks": [_described(entry) for entry in entries], "perturbations": perturbations})
    print_table(
        ("attack", "what it aims at", *(f"passes, {preset}" for preset in PASSES)),
        [(e.name, e.attack.summary or "-", *(_passes(preset, e) for preset in PASSES)) for e in entries],
    )
    click.echo()
    return print_table(
        ("perturbation", "what may change", "default eps", "unit"),
        [(name, cls.summary, budget(cls.eps, name), cls.unit) for name, cls in known_perturbations().items()],
    )


def _described(entry: AttackEntry) -> dict[str, object]:
    granted = {preset: _granted(preset, entry) for preset in PASSES}
    return {"name": entry.name, "summary": entry.attack.summary, "unit": entry.attack.unit, "granted": granted}


def _granted(preset: Preset, entry: AttackEntry) -> int | None:
    """How many passes, or whatever the attack counts in, a preset grants; None for a published schedule."""
    from underfire.attacks.registry import AUTHORS

    if preset == AUTHORS and entry.authors is not None:
        return None
    return PASSES[preset] * entry.attack.per_pass


def _passes(preset: Preset, entry: AttackEntry) -> str:
    granted = _granted(preset, entry)
    if granted is None:
        return "as published"
    return str(granted) if entry.attack.unit == "passes" else f"{granted} {entry.attack.unit}"


def _installed(parts: Parts[T]) -> Iterator[tuple[str, type[T]]]:
    """The parts that can be loaded, by name; of others of installed packages a line on stderr says why not."""
    for name in parts.installed():
        try:
            yield name, parts.find(name)
        except InputError as error:
            notes().print(f"Left out: {error}", highlight=False)
