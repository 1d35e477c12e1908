"""``underfire report``: a run directory into one HTML file."""

from pathlib import Path

import click

from underfire.auditing.rows import read_rows
from underfire.auditing.store import write_json
from underfire.auditing.summary import Summary, summarise
from underfire.images.files import printable
from underfire.report import build_report


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """(Re)builds DIR/summary.json and DIR/report.html from the rows of a run."""
    _, page = rebuild(directory)
    click.echo(printable(page))


def rebuild(directory: Path) -> tuple[Summary, Path]:
    """Writes the summary and the report of a run; returns the summary and the report's path."""
    page = build_report(directory)
    summary = summarise(read_rows(directory))
    write_json(directory / "summary.json", summary.to_json())
    return summary, page
