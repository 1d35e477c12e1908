"""``underfire audit``: every photo, every attack, every interpreter; then the report. ``underfire plan``: before it."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from underfire.auditing.condition import NOISE, PGD
from underfire.auditing.plan import AuditPlan, RaySettings, Shard, units
from underfire.choices import EngineName, Keep
from underfire.cli.console import notes, print_table, results
from underfire.cli.interrupts import interruptible
from underfire.cli.options import (
    Command,
    Parsed,
    completed,
    engine_options,
    gate_options,
    load_model,
    out_folder,
    photos_argument,
    photos_of,
    plan_options,
    quiet_option,
)
from underfire.errors import InputError
from underfire.files import printable, quoted, write_whole
from underfire.parsing import count

if TYPE_CHECKING:
    from underfire.api import AuditRun
    from underfire.auditing.cost import ConditionCost
    from underfire.auditing.gates import Gate, GateCheck
    from underfire.auditing.probe import Speed
    from underfire.auditing.summary import Summary

_FROM_PLAN = tuple(field.name for field in fields(AuditPlan) if field.name not in ("interpreters", "left_out"))
"""What `underfire.api.audit` takes as the plan has it."""


def _shard(text: str) -> Shard:
    """``2/8``: the second of eight processes."""
    index, _, number = text.partition("/")
    try:
        return Shard(count(index), count(number))
    except InputError as error:
        raise InputError(f"{quoted(text)} is not a shard; write it as i/N, i from 1 to N, such as 1/4") from error


Shards = Parsed("shard", _shard)


def _file(text: str) -> Path:
    out = Path(text)
    if out.is_dir():
        raise InputError(f"{quoted(text)} is a folder; give a file")
    return out


Written = Parsed("file", _file)


_OPTIONS = (
    photos_argument(),
    plan_options,
    out_folder(
        "The run directory; the same command with the same DIR goes on where it was stopped.",
        default="underfire-run",
        show_default=True,
    ),
    engine_options,
    click.option("--shard", type=Shards, default="1/1", metavar="i/N", help="Do every N-th part only."),
    click.option(
        "--keep",
        type=click.Choice(get_args(Keep)),
        default="all",
        show_default=True,
        help="Which images and maps stay in DIR; studies and the pictures of the report need all.",
    ),
    click.option("--strict", is_flag=True, help="Refuse a photo that cannot be used, rather than skip it."),
    gate_options,
    click.option("--junit", type=Written, metavar="FILE", help="Write the gates as test cases: JUnit's XML."),
    click.option("--sarif", type=Written, metavar="FILE", help="Write the gates as findings: SARIF 2.1.0."),
    quiet_option,
)


def _with_arguments(command: Command) -> Command:
    """Adds the arguments of an audit."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_with_arguments
def audit(
    photos: tuple[str, ...],
    interpreters: tuple[str, ...] | None,
    plan: AuditPlan,
    out: Path,
    engine: EngineName,
    ray: RaySettings,
    shard: Shard,
    strict: bool,
    keep: Keep,
    gates: tuple[Gate, ...],
    min_photos: int | None,
    junit: Path | None,
    sarif: Path | None,
) -> int:
    """Attacks photos and their explanations, and reports how far the explanations can be trusted.

    Photos are files, folders (sub-folders are classes) or manifests (CSV or JSONL: file_name,label[,target]);
    without any, the built-in ones.
    """
    from underfire import api
    from underfire.auditing.gates import failures as failures_of
    from underfire.auditing.locks import describing
    from underfire.auditing.store import RunDirectory
    from underfire.cli.progress import ProgressDisplay
    from underfire.report.soundness import warnings

    if not (gates or min_photos):
        _check_gateless(junit or sarif)
    with interruptible(f"The finished parts in '{out}' are kept; the same command goes on from there."):
        classifier = load_model(plan.model, plan.device)
        with ProgressDisplay(notes()) as display:
            api.audit(
                classifier,
                photos or None,
                interpreters=interpreters,
                out=out,
                shard=shard,
                engine=engine,
                ray=ray,
                strict=strict,
                keep=keep,
                command=shlex.join(["underfire", *sys.argv[1:]]),
                listener=display,
                **{name: getattr(plan, name) for name in _FROM_PLAN},
            )
        with describing(RunDirectory(out).lock_file):  # of two shards the later one sees what the other did
            run = api.rebuild(out)
    lost = any(shard.has(number) for number in run.missing)
    checks = run.gates(gates, min_photos=min_photos) if run.finished or lost else ()
    failures = failures_of(checks)
    _write_checks(run, checks, junit, sarif)
    _print_run(run, lost=lost)
    for warning in warnings(run.facts.model_checks, run.summary):
        click.echo(f"Warning: {warning}", err=True)
    for failure in failures:
        click.echo(f"Gate failed: {failure}", err=True)
    if (gates or min_photos) and not checks:
        click.echo("The gates were not checked: other shards have parts to do.", err=True)
    return 1 if failures else 2 if lost else 0


def _check_gateless(written: Path | None) -> None:
    """Refuses a file for gates where there is none."""
    if written is not None:
        raise InputError(f"{quoted(written)} is for gates, and there is none; give one, as --fail-if 'iou>0.5'")


def _write_checks(run: AuditRun, checks: tuple[GateCheck, ...], junit: Path | None, sarif: Path | None) -> None:
    """Writes what became of the gates; nothing where they were not checked."""
    from underfire.evidence.junit import junit as junit_of
    from underfire.evidence.sarif import sarif as sarif_of

    if checks and junit is not None:
        write_whole(junit, junit_of(run, checks))
    if checks and sarif is not None:
        write_whole(sarif, sarif_of(run, checks, run.page))


@click.command("plan")
@_with_arguments
@click.option(
    "--probe/--no-probe", "probed", default=True, show_default=True, help="Time the beginning of every attack."
)
def plan_command(
    photos: tuple[str, ...],
    interpreters: tuple[str, ...] | None,
    plan: AuditPlan,
    shard: Shard,
    strict: bool,
    keep: Keep,
    probed: bool,
    **_: Any,
) -> None:
    """Says what an audit with the same arguments would do, and what it would take: passes, hours, disk.

    A pass is one forward and backward pass of one image; attacks may end sooner. Hours come from a probe of half a
    minute at most: the beginning of every attack on the first photos. They are those of one process on this machine.
    """
    from underfire.auditing.attackers import attack_of
    from underfire.auditing.cost import costs_of
    from underfire.auditing.inspection import inspect_photos
    from underfire.auditing.names import make_interpreters
    from underfire.diagnostics.map_checks import PHOTOS, further_passes
    from underfire.present.text import plural

    classifier = load_model(plan.model, plan.device)
    plan = completed(plan, interpreters, classifier)
    parts = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
    attacks = {c: attack_of(plan, c, classifier, parts) for c in plan.conditions if not c.is_control}
    began = time.perf_counter()
    found = inspect_photos(plan, classifier, photos_of(photos, classifier), strict=strict)
    inspected = time.perf_counter() - began
    share = list(units(found.photos, batch_size=plan.batch_size, shard=shard))
    seen = [photo for unit in share for photo in unit.photos]
    costs = costs_of(attacks, plan.conditions, parts, seen)
    checks = further_passes(parts, min(PHOTOS, sum(photo.excluded is None for photo in found.photos)))
    for reason in plan.left_out:
        click.echo(f"Left out: {reason}")
    click.echo(f"{plural(len(seen), 'photo')} in {plural(len(share), 'part')}, of each at most:")
    print_table(
        ("condition", "photos", "passes of the attack", "passes of maps", "in all"),
        [
            (str(c.condition), str(c.photos), "?" if c.attack is None else str(c.attack), str(c.maps), str(c.total))
            for c in costs
        ],
    )
    click.echo(f"Once for the run, whether its maps depend on the model: {checks} passes.")
    click.echo(f"{sum(c.total for c in costs) + checks} passes in all.")
    if probed and any(photo.excluded is None for photo in seen):
        from underfire.auditing.probe import probe

        speed = probe(plan, classifier, parts, attacks, seen)
        once = inspected + checks * speed.look / speed.look_passes
        _print_speed(speed, costs, plan, once=once, parts=len(share), keep=keep)


def _print_speed(
    speed: Speed, costs: tuple[ConditionCost, ...], plan: AuditPlan, *, once: float, parts: int, keep: Keep
) -> None:
    """What a probe says of the hours and of the disk; ``once`` are the seconds before the first part."""
    from underfire.auditing.condition import attack_title, interpreters_title
    from underfire.cli.progress import clock
    from underfire.report.build import MOST_BYTES

    print_table(
        ("attack", "on", "seconds of a pass"),
        [
            (attack_title(attack), interpreters_title(sources) or "-", f"{seconds:.3g}")
            for (attack, sources), seconds in speed.passes.items()
        ],
    )
    unknown = sorted({c.condition.attack for c in costs if c.attack is None})
    if unknown:
        click.echo(f"Without {', '.join(unknown)}, which does not say how many passes it takes:")
    seconds = once + sum(speed.seconds(cost, batch_size=plan.batch_size) for cost in costs)
    size = speed.bytes_of(costs, interpreters=len(plan.interpreters), parts=parts, keep=keep)
    click.echo(
        f"About {clock(seconds)} (h:mm:ss or m:ss) in one process on this machine, and {size / 1e6:.1f} MB on the disk "
        f"besides the report, which has {MOST_BYTES / 1e6:.0f} MB at most."
    )


def _print_run(run: AuditRun, *, lost: bool) -> None:
    from underfire.present.text import plural
    from underfire.report.findings import sentences

    console = results()
    if run.skipped:
        console.print(f"{plural(run.skipped, 'file')} skipped; run.json and the report say why.")
    if lost:
        click.echo(
            f"Error: of {run.parts} parts {run.finished_parts} are there, and others that were finished are gone; run "
            "the same command again to redo their photos.",
            err=True,
        )
    elif not run.finished:
        console.print(
            f"This shard is done: {run.finished_parts} of {run.parts} parts are there, and the figures "
            "below are of these. When the others are done too, run: "
            f"underfire report {shlex.quote(printable(run.path))}"
        )
    for sentence in sentences(run):
        console.print(sentence)
    if run.summary.headlines:
        console.print()
        _print_headlines(run.summary)
        console.print()
    console.print(f"Report: {printable(run.page)}")


def _print_headlines(summary: Summary) -> None:
    """Per interpreter the figures that matter, all on images as saved."""
    rows = []
    for headline in summary.headlines:
        name = headline.interpreter
        attack = summary.attack(headline.condition)
        own, pgd = summary.cell(headline.condition, name), summary.cell(PGD, name)
        noise = summary.cell(NOISE, name)
        rows.append(
            (
                name,
                f"{headline.kept.k} of {headline.kept.n}",
                _number(attack.asr_8bit.value if attack else None),
                *(_number(cell.mean("l1").value if cell else None) for cell in (own, pgd, noise)),
                headline.faithfulness.verdict if headline.faithfulness else "-",
            )
        )
    jsr = f"JSR@{summary.kept_iou:g}"
    print_table(("interpreter", jsr, "ASR of ADV²", "L1 ADV²", "L1 PGD", "L1 noise", "faithfulness"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
