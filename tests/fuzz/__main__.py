"""``python -m fuzz``: the campaign, and its table on the standard output."""

import importlib
import pkgutil
import shlex
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click

import underfire
from fuzz.campaign import Campaign, table
from fuzz.case import HELD, Originals, Outcome
from fuzz.kinds import KINDS, prepare


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("kinds", nargs=-1, type=click.Choice(list(KINDS)))
@click.option("--seed", default=0, show_default=True, help="Of all inputs.")
@click.option("--n", default=300, show_default=True, type=click.IntRange(1), help="Inputs of each kind.")
@click.option("--only", type=int, multiple=True, help="Only the input of this number; repeatable.")
@click.option("--seconds", default=5.0, show_default=True, help="Of the processor's time that an input may take.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="fuzz-failures",
    show_default=True,
    help="Where inputs that failed stay, each with what was done and said.",
)
def main(kinds: tuple[str, ...], seed: int, n: int, only: tuple[int, ...], seconds: float, out: Path) -> None:
    """Tries hostile inputs of KINDS, all by default, and counts how they end; exits with 1 if any did harm."""
    for module in pkgutil.walk_packages(underfire.__path__, "underfire."):  # once, and not in every child
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, list[Outcome]] = {}
    with TemporaryDirectory(prefix="fuzz-") as scratch:
        shutil.rmtree(out, ignore_errors=True)
        campaign = Campaign(KINDS, seed, seconds, out.absolute(), Originals(Path(scratch) / "originals"), prepare)
        campaign.make_originals()
        for kind in kinds or KINDS:
            found[kind] = []
            for number, outcome in campaign.run(kind, only or range(n)):
                found[kind].append(outcome)
                if outcome.verdict not in HELD:
                    click.echo(f"{kind} {number}: {outcome.verdict}: {outcome.why} [{outcome.told[:200]}]", err=True)
            click.echo(f"{kind}: {len(found[kind])} tried", err=True)
    command = shlex.join(["python", "-m", "fuzz", *sys.argv[1:]])
    click.echo(f"underfire {underfire.__version__}, {datetime.now(UTC):%Y-%m-%d}, `{command}`, seed {seed}:\n")
    click.echo(table(found))
    sys.exit(any(outcome.verdict not in HELD for outcomes in found.values() for outcome in outcomes))


if __name__ == "__main__":
    main()
