"""``underfire models``, ``interpreters`` and ``attacks``: what is available."""

from collections.abc import Iterator
from typing import TypeVar

import click

from underfire.attacks.registry import ATTACKS, AUTHORS, AttackEntry
from underfire.auditing.names import known_perturbations
from underfire.auditing.plan import PASSES, Preset
from underfire.cli.console import notes, print_table
from underfire.errors import InputError
from underfire.interpreters.registry import INTERPRETERS
from underfire.models import available
from underfire.plugins import Parts
from underfire.present.text import budget

T = TypeVar("T")


@click.command()
def models() -> None:
    """Lists the models that --model takes."""
    print_table(
        ("model", "what it is", "installed"),
        [(source.name, source.description, "yes" if source.installed else "no") for source in available()],
    )


@click.command()
def interpreters() -> None:
    """Lists the interpreters that --interpreters takes, with what they cost and need.

    A pass is one forward and backward pass of the model, per photo. A step is one of ADV².
    """
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
