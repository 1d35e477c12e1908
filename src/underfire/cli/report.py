"""``underfire report``: a run directory into one HTML file."""

from pathlib import Path

import click

from underfire.cli.options import with_room
from underfire.files import printable


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path), callback=with_room)
def report(directory: Path) -> None:
    """(Re)builds DIR/summary.json and DIR/report.html from the rows of a run."""
    from underfire.api import rebuild
    from underfire.present.text import plural

    run = rebuild(directory)
    if not run.finished:
        photos = plural(len(run.photos), "photo")
        click.echo(f"This run is unfinished: the report is of {run.summary.photos.total} of its {photos}.", err=True)
    click.echo(printable(run.page))
