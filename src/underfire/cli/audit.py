"""``underfire audit``: every photo, every attack, every interpreter; then the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from underfire.auditing.plan import AuditPlan, Shard
from underfire.choices import EngineName
from underfire.cli.console import counted, notes, print_table, results
from underfire.cli.interrupts import interruptible
from underfire.cli.options import completed, load_model, photos_of, plan_options
from underfire.errors import InputError
from underfire.files import printable

if TYPE_CHECKING:
    from underfire.auditing.runner import Outcome
    from underfire.auditing.summary import Gate, Summary


class _ShardOption(click.ParamType[Shard]):
    """``2/8``: the second of eight processes."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        if isinstance(value, Shard):
            return value
        try:
            index, count = (int(part) for part in str(value).split("/"))
            return Shard(index, count)
        except InputError as error:
            self.fail(str(error), param, ctx)
        except ValueError:
            self.fail(f"'{value}' is not a shard; write it as i/N, such as 1/4", param, ctx)


class _GateOption(click.ParamType["Gate"]):
    """``iou>0.5``."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Gate:
        from underfire.auditing.summary import Gate, parse_gate

        if isinstance(value, Gate):
            return value
        try:
            return parse_gate(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("photos", nargs=-1, metavar="[PHOTO_OR_FOLDER]...")
@plan_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="underfire-run",
    show_default=True,
    metavar="DIR",
    help="The run directory; the same command with the same DIR goes on where it was stopped.",
)
@click.option(
    "--engine",
    type=click.Choice(get_args(EngineName)),
    default="local",
    show_default=True,
    help="Where to work: in this process, or on a Ray cluster.",
)
@click.option("--shard", type=_ShardOption(), default="1/1", metavar="i/N", help="Do every N-th part only.")
@click.option("--strict", is_flag=True, help="Refuse a photo that cannot be used, rather than skip it.")
@click.option(
    "--fail-if",
    "gates",
    type=_GateOption(),
    multiple=True,
    metavar="GATE",
    help="Exit with 1 if this holds of any interpreter, as 'iou>0.5'; repeatable.",
)
@click.pass_context
def audit(
    ctx: click.Context,
    photos: tuple[str, ...],
    interpreters: tuple[str, ...] | None,
    plan: AuditPlan,
    out: Path,
    engine: EngineName,
    shard: Shard,
    strict: bool,
    gates: tuple[Gate, ...],
) -> None:
    """Attacks photos and their explanations, and reports how far the explanations can be trusted.

    Photos are files, folders (sub-folders are classes) or manifests (CSV or JSONL: file_name,label[,target]);
    without any, the built-in ones.
    """
    from underfire.auditing.locks import describing
    from underfire.auditing.runner import run_audit
    from underfire.auditing.store import RunDirectory
    from underfire.auditing.summary import check_gates
    from underfire.cli.progress import ProgressDisplay
    from underfire.cli.report import rebuild
    from underfire.report.soundness import warnings

    command = shlex.join(["underfire", *sys.argv[1:]])
    with interruptible(f"The finished parts in '{out}' are kept; the same command goes on from there."):
        classifier = load_model(plan.model, plan.device)
        plan = completed(plan, interpreters, classifier)
        with ProgressDisplay(notes()) as display:
            outcome = run_audit(
                plan,
                photos_of(photos, classifier),
                classifier,
                out,
                shard=shard,
                engine=engine,
                strict=strict,
                command=command,
                listener=display,
            )
        with describing(RunDirectory(out).lock_file):  # of two shards the later one sees what the other did
            summary, page = rebuild(out)
    _print_outcome(outcome, summary, page)
    for warning in warnings((RunDirectory(out).read() or {}).get("model_checks", ()), summary):
        click.echo(f"Warning: {warning}", err=True)
    if outcome.finished:
        failures = check_gates(summary, gates)
        for failure in failures:
            click.echo(f"Gate failed: {failure}", err=True)
        ctx.exit(1 if failures else 0)
    if gates:
        click.echo("The gates were not checked: other shards have parts to do.", err=True)


def _print_outcome(outcome: Outcome, summary: Summary, page: Path) -> None:
    from underfire.auditing.summary import headline_sentences

    console = results()
    if outcome.skipped:
        console.print(f"{counted(outcome.skipped, 'file')} skipped; run.json and the report say why.")
    if not outcome.finished:
        console.print(
            f"This shard is done: {outcome.finished_parts} of {outcome.parts} parts are there, and the figures "
            "below are of these. When the others are done too, run: "
            f"underfire report {shlex.quote(printable(outcome.path))}"
        )
    for sentence in headline_sentences(summary):
        console.print(sentence)
    if summary.headlines:
        console.print()
        _print_headlines(summary)
        console.print()
    console.print(f"Report: {printable(page)}")


def _print_headlines(summary: Summary) -> None:
    """Per interpreter the figures that matter, all on images as saved."""
    rows = []
    for headline in summary.headlines:
        name = headline.interpreter
        attack = summary.attack(headline.condition)
        own, pgd = summary.cell(headline.condition, name), summary.cell("pgd", name)
        noise = summary.cell("noise", name)
        rows.append(
            (
                name,
                f"{headline.kept.k} of {headline.kept.n}",
                _number(attack.asr_8bit.value if attack else None),
                *(_number(cell.mean("l1").value if cell else None) for cell in (own, pgd, noise)),
            )
        )
    print_table(("interpreter", "label chosen, map kept", "ASR of ADV²", "L1 ADV²", "L1 PGD", "L1 noise"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
