"""``underfire report``: a run directory into one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from underfire.files import printable

if TYPE_CHECKING:
    from underfire.auditing.summary import Summary


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """(Re)builds DIR/summary.json and DIR/report.html from the rows of a run."""
    _, page = rebuild(directory)
    click.echo(printable(page))


def rebuild(directory: Path) -> tuple[Summary, Path]:
    """Writes the summary and the report of a run; returns the summary and the report's path."""
    from underfire.auditing.rows import read_rows
    from underfire.auditing.store import write_json
    from underfire.auditing.summary import summarise
    from underfire.report import build_report

    page = build_report(directory)
    summary = summarise(read_rows(directory))
    write_json(directory / "summary.json", summary.to_json())
    return summary, page
