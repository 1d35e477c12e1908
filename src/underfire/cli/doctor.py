"""``underfire doctor``: what is installed, on which machine, and what of it will hurt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from underfire import __version__
from underfire.cli.console import print_json, print_table
from underfire.cli.options import json_option
from underfire.errors import InputError

if TYPE_CHECKING:
    from underfire.installation import Installation


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Says what is installed, which devices there are, and what will hurt.

    Ends with exit code 2 if a package that underfire needs is missing or too old.
    """
    from underfire.installation import inspect

    found = inspect(__version__, _broken())
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)
    return 2 if any(trouble.fatal for trouble in found.troubles) else 0


def _broken() -> Iterator[str]:
    """A sentence for each interpreter or attack of an installed package that cannot be loaded."""
    try:
        from underfire.attacks.registry import ATTACKS
        from underfire.interpreters.registry import INTERPRETERS
    except ImportError:  # torch is missing, and is reported among the missing packages
        return
    for parts in (INTERPRETERS, ATTACKS):
        for name in parts.installed():
            try:
                parts.find(name)
            except InputError as error:
                yield str(error).rstrip(".")


def _print(found: Installation) -> None:
    from underfire.installation import GIB

    machine = found.machine
    click.echo(f"underfire {found.underfire}, Python {found.python}, {found.system}\n")
    print_table(
        ("package", "version", "needed"), [(p.name, p.version or "missing", p.wanted or "any") for p in found.packages]
    )
    click.echo()
    print_table(
        ("extra", "what it is for", "here", "install with"),
        [
            (e.name or "-", e.purpose, "yes" if e.complete else "no", "-" if e.complete else e.install)
            for e in found.extras
        ],
    )
    threads = "torch cannot be imported" if machine.threads is None else f"{machine.threads} threads"
    memory = "" if machine.memory is None else f", {machine.memory / GIB:.1f} GiB of memory"
    click.echo(f"\ncpu: {machine.cores:g} cores, {threads}{memory}; {machine.disk / GIB:.1f} GiB free on this disk")
    for gpu in machine.gpus:
        size = "" if gpu.memory is None else f", {gpu.memory / GIB:.1f} GiB"
        click.echo(f"{gpu.device}: {gpu.name}{size}")
    if not machine.gpus:
        click.echo("no GPU that torch can use")
    click.echo()
    for trouble in found.troubles:
        click.echo(f"{'Broken' if trouble.fatal else 'Hurts'}: {trouble.what}. {trouble.advice}")
    if not found.troubles:
        click.echo("Nothing hurts.")
