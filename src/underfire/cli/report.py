"""``underfire report``: a run directory into one HTML file."""

from pathlib import Path

import click

from underfire.cli.options import with_room
from underfire.files import printable


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path), callback=with_room)
@click.option(
    "--certificates",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of the run's photos, from `underfire certify`; the report has a chapter of them until it is built again.",
)
def report(directory: Path, certificates: Path | None) -> None:
    """(Re)builds DIR/summary.json and DIR/report.html from the rows of a run."""
    from underfire.api import rebuild
    from underfire.present.text import plural

    run = rebuild(directory, certificates=certificates)
    if not run.finished:
        photos = plural(len(run.photos), "photo")
        click.echo(f"This run is unfinished: the report is of {run.summary.photos.total} of its {photos}.", err=True)
    click.echo(printable(run.page))
