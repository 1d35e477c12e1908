"""``underfire models``, ``interpreters`` and ``attacks``: what is available."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import click

from underfire.auditing.plan import PASSES, Preset
from underfire.cli.console import notes, print_table
from underfire.errors import InputError

if TYPE_CHECKING:
    from underfire.attacks.registry import AttackEntry
    from underfire.plugins import Parts

T = TypeVar("T")


@click.command()
def models() -> None:
    """Lists the models that --model takes."""
    from underfire.models import available

    print_table(
        ("model", "what it is", "installed"),
        [(source.name, source.description, "yes" if source.installed else "no") for source in available()],
    )


@click.command()
def interpreters() -> None:
    """Lists the interpreters that --interpreters takes, with what they cost and need.

    A pass is one forward and backward pass of the model, per photo. A step is one of ADV².
    """
    from underfire.interpreters.registry import INTERPRETERS

    print_table(
        ("interpreter", "family", "what its map shows", "passes a map", "passes a step", "needs"),
        [
            (name, cls.family, cls.summary or "-", str(cls.passes_per_map), str(cls.passes_per_step), cls.needs or "-")
            for name, cls in _installed(INTERPRETERS)
        ],
    )


@click.command()
def attacks() -> None:
    """Lists the attacks that --attacks takes, with the passes of each preset, and what --perturbation takes."""
    from underfire.attacks.registry import ATTACKS, AttackEntry
    from underfire.auditing.names import known_perturbations
    from underfire.present.text import budget

    entries = [AttackEntry.of(cls) for _, cls in _installed(ATTACKS)]
    print_table(
        ("attack", "what it aims at", *(f"passes, {preset}" for preset in PASSES)),
        [(e.name, e.attack.summary or "-", *(_passes(preset, e) for preset in PASSES)) for e in entries],
    )
    click.echo()
    print_table(
        ("perturbation", "what may change", "default eps", "unit"),
        [(name, cls.summary, budget(cls.eps, name), cls.unit) for name, cls in known_perturbations().items()],
    )


def _passes(preset: Preset, entry: AttackEntry) -> str:
    from underfire.attacks.registry import AUTHORS

    if preset == AUTHORS and entry.authors is not None:
        return "as published"
    granted = str(PASSES[preset] * entry.attack.per_pass)
    return granted if entry.attack.unit == "passes" else f"{granted} {entry.attack.unit}"


def _installed(parts: Parts[T]) -> Iterator[tuple[str, type[T]]]:
    """The parts that can be loaded, by name; of others of installed packages a line on stderr says why not."""
    for name in parts.installed():
        try:
            yield name, parts.find(name)
        except InputError as error:
            notes().print(f"Left out: {error}", highlight=False)
