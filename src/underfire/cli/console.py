"""Printing for people: results on stdout, how it comes along on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def results() -> Console:
    """Where results go. Made at each call: a test, or a caller, may have replaced the stream."""
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True)


QUIET = f"{__name__}.quiet"
"""Where click's context keeps that ``--quiet`` was given."""


def notes() -> Console:
    """Where progress and remarks go: to stderr, or with ``--quiet`` nowhere."""
    from rich.console import Console

    context = click.get_current_context(silent=True)
    quiet = context is not None and QUIET in context.meta
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet)


def print_json(content: Any) -> None:
    """Prints ``content`` as JSON on stdout, in ASCII."""
    click.echo(json.dumps(content, indent=1, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on stdout. The cells are data: nothing in them is markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    console = results()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width: don't fold
    console.print(table, soft_wrap=False)


def _printable(text: str) -> str:
    """``text`` without control characters, which would act on the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
