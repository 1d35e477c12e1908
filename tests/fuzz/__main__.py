"""``python -m fuzz``: the campaign, and its table on the standard output."""

import importlib
import importlib.util
import pkgutil
import platform
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

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
    _import_everything()
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
    chosen = "".join(f" --only {number}" for number in only) if only else f" --n {n}"
    command = " ".join(("cd tests && python -m fuzz", f"--seed {seed}{chosen}", *kinds))
    click.echo(_page(command, seconds, table(found)))
    sys.exit(any(outcome.verdict not in HELD for outcomes in found.values() for outcome in outcomes))


def _import_everything() -> None:
    """Once, and not in every child, of whose time and memory it would be."""
    names = [module.name for module in pkgutil.walk_packages(underfire.__path__, "underfire.")]
    for name in (*names, "onnx2torch", "transformers.models.resnet.modeling_resnet"):
        if not name.endswith("__main__") and importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)


def _page(command: str, seconds: float, found: str) -> str:
    """The page of docs/measured."""
    versions = f"underfire {underfire.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"""# Hostile inputs

By `{command}` on {datetime.now(UTC):%Y-%m-%d},
{versions}. Each input is a valid file, folder or command line, spoilt at
random by its seed, kind and number, and opened by the commands that read it.

{found}

* refused: one sentence and exit code 2, or a gate that failed. accepted: exit code 0.
* crash: another exit code, or a process that died. hang: more than {seconds:g} seconds of the processor's time, or a
  minute without any.
* silent: a run or a study whose figures are not the original's, though nothing was said; of two gates of which one must
  fail, none did; a stopped audit that went on to other rows than an undisturbed one, or left files behind.
* harm: anything written, deleted or read outside the folder of the input, a process begun, a socket, code imported.
* over 1 GB: of memory, beside what the process had before. The last column is the most that an input took.

Runs whose measured numbers were made up within their ranges, or whose settings were changed wherever they stand, and
pictures, maps and caches of studies that were exchanged, count as accepted whatever they show: [nobody signs a
run](../explanation/threat-model.md#untrusted-files). So do a detector's verdicts. `resumes` are audits that were
killed at any change of a file, in any number of shards."""


if __name__ == "__main__":
    main()
