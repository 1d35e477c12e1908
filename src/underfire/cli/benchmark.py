"""``underfire benchmark``: entries of the benchmark from a run, and a table of many."""

from __future__ import annotations

from pathlib import Path

import click

from underfire.cli.options import Parsed, with_room
from underfire.errors import InputError
from underfire.files import printable, quoted, write_whole


class _Benchmark(click.Group):
    """What is no sub-command begins the arguments of ``entries``, so that a run can be named at once."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, or that of entries with all of them."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "entries", _entries, args


@click.group(
    cls=_Benchmark,
    subcommand_metavar="RUN --out DIR | table FILE...",
    context_settings={"ignore_unknown_options": True},
)
def benchmark() -> None:
    """Writes an entry of the benchmark for each interpreter of a run, or joins entries into a table.

    underfire benchmark RUN --out DIR writes DIR/MODEL--INTERPRETER.benchmark.json: joint success rates, noise,
    transfer, the faithfulness floor and signs of a failed attack; with --certificates DIR also what is certified.
    Nothing is measured again.
    """


@click.command("entries")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    callback=with_room,
    help="Where the entries go.",
)
@click.option(
    "--certificates",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of the run's photos, from `underfire certify`; each entry tells of those of its interpreter.",
)
def _entries(run: Path, out: Path, certificates: Path | None) -> None:
    from underfire.api import load_run
    from underfire.auditing.certificate_folder import certificates_of
    from underfire.auditing.store import write_json
    from underfire.evidence.benchmark import entries

    made = load_run(run)
    certified = None if certificates is None else certificates_of(made, certificates)
    for entry in entries(made, certified):
        path = out / entry.file_name
        write_json(path, entry.to_json())
        click.echo(printable(path))


def _page(text: str) -> Path:
    out = Path(text)
    if out.suffix not in (".md", ".html"):
        raise InputError(f"{quoted(text)} is named neither .md nor .html; give a name that is")
    return out


@benchmark.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=Parsed("file", _page),
    metavar="FILE.md|FILE.html",
    callback=with_room,
    help="Where the page goes; by default it is printed as Markdown.",
)
def table(files: tuple[Path, ...], out: Path | None) -> None:
    """Joins entries into tables of what compares, the lowest joint success rate first, unreliable ones last."""
    from underfire.evidence.benchmark import read_entry
    from underfire.evidence.leaderboard import as_html, as_markdown

    found = [read_entry(path) for path in files]
    if out is None:
        click.echo(as_markdown(found), nl=False)
        return
    write_whole(out, (as_html(found) if out.suffix == ".html" else as_markdown(found)).encode())
    click.echo(printable(out))
