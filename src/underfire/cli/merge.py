"""``underfire merge``: the run directories of shards into one."""

import shlex
from pathlib import Path

import click

from underfire.cli.interrupts import interruptible
from underfire.cli.options import out_folder
from underfire.files import printable, shortened


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@out_folder("The directory of the merged run, new or empty.", required=True)
def merge(directories: tuple[Path, ...], out: Path) -> None:
    """Joins the run directories of shards, made on machines that share nothing, into one run with its report.

    All must be runs of the same settings, model and photos. Parts that two of them have must have equal rows. Studies
    are not joined.
    """
    from underfire.api import rebuild
    from underfire.auditing.merging import merge_runs, shards_of
    from underfire.present.text import plural

    with interruptible(f"Nothing is left of '{printable(out)}' unless it was whole."):
        merge_runs(directories, out)
        run = rebuild(out)
    if not run.finished:
        lacking = [f"--shard {shard}" for shard in shards_of(run.missing, run.parts)]
        named = ", ".join(lacking or [f"part {number}" for number in run.missing])
        click.echo(
            f"Of {plural(run.parts, 'part')} {len(run.missing)} are missing, those of {shortened(named)}: merge again "
            f"with their run, or give the command that began it, with --out {shlex.quote(printable(out))}.",
            err=True,
        )
    click.echo(printable(run.page))
