"""``underfire report``: a run directory into one HTML file."""

from pathlib import Path

import click

from underfire.audits import rebuild
from underfire.images.files import printable


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """(Re)builds DIR/summary.json and DIR/report.html from the rows of a run."""
    click.echo(printable(rebuild(directory).page))
