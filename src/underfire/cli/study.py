"""``underfire study``: the claims of the paper's discussion, each tested on the user's own model."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import click

from underfire.attacks.control import EVEN
from underfire.auditing.inspection import Inspection
from underfire.auditing.plan import JOINT_ATTACKS, AuditPlan, ModelSettings, PlannedPhoto
from underfire.auditing.runner import run_audit
from underfire.auditing.store import STUDIES
from underfire.audits import rebuild
from underfire.cli.console import notes, results
from underfire.cli.interrupts import interruptible
from underfire.cli.options import (
    INTERPRETERS,
    Command,
    Names,
    completed,
    load_model,
    photos_of,
    plan_options,
)
from underfire.cli.progress import ProgressDisplay
from underfire.cli.study_types import Also, Counts, Grid, Other
from underfire.cli.usable import usable
from underfire.defenses.adaptive import PASSES
from underfire.defenses.calibration import check_rate
from underfire.errors import InputError
from underfire.evaluation.adaptive import SHARINGS
from underfire.evaluation.sets import FPR, check_enough, check_sets
from underfire.evaluation.study import defence_study
from underfire.evaluation.trials import Resources, further
from underfire.images.dataset import Photos
from underfire.images.files import printable, quoted
from underfire.models.classifier import Classifier
from underfire.present.text import plural
from underfire.studies.bound import LOGIT_TOLERANCE, TOLERANCE, bound_study
from underfire.studies.frontier import Along, frontier_study
from underfire.studies.gap import Aim, gap_study
from underfire.studies.others import check_other
from underfire.studies.source import Run, decide, is_run, read_run
from underfire.studies.study import Study, save
from underfire.studies.transfer import transfer_study

_FREE = frozenset({"photos", "out", "device", "limit", "onto", "tolerance", "logit_tolerance", "along", "grid", "aims"})
"""What may be given beside the directory of an audit, which has settings of its own."""

_OF_DEFENCE = ("clean", "sets", "fpr", "budget", "sharing", "eps_grid", "passes_grid", "search", "also", "passes")
_FREE_OF_DEFENCE = _FREE.union(_OF_DEFENCE)
"""The same for the study of defences, whose attack has passes of its own."""

_GROWN: Mapping[Along, tuple[str, ...]] = MappingProxyType(
    {"eps": ("eps",), "passes": ("passes", "steps"), "weight": ()}
)
"""The options that say how much there is of what grows along a frontier."""


@click.group()
def study() -> None:
    """Tests the claims of the paper's discussion on your model.

    Each study leaves a table, a figure and a page of words. On the directory of an audit it becomes a chapter of that
    audit's report.
    """


@dataclass(frozen=True)
class _Source:
    """What a study is to work on, as the user named it; ``out`` is where it leaves what it finds."""

    photos: tuple[str, ...]
    plan: AuditPlan
    interpreters: tuple[str, ...] | None
    out: Path

    @property
    def run(self) -> Path | None:
        """The directory of an audit, if that is what was named."""
        return Path(self.photos[0]) if len(self.photos) == 1 and is_run(Path(self.photos[0])) else None

    def audited(self, check: Callable[[Classifier], None] = lambda _: None, *, beside_pgd: bool = False) -> Run:
        """The audit that was named, or that of the photos, which is made, or gone on with, in DIR/run.

        Before an audit is made, which may take hours, its attacks are refused if none is on an interpreter, or there is
        no PGD ``beside_pgd``; and ``check`` may refuse its classifier.
        """
        if self.run is not None:
            return read_run(self.run)
        _check_attacks(self.plan, beside_pgd=beside_pgd)
        classifier = load_model(self.plan.model, self.plan.device)
        check(classifier)
        path, command = self.out / "run", _command()
        with ProgressDisplay(notes()) as display:
            plan = completed(self.plan, self.interpreters, classifier)
            photos = photos_of(self.photos, classifier)
            outcome = run_audit(plan, photos, classifier, path, command=command, listener=display)
        rebuild(path)
        if outcome.skipped:
            results().print(f"{plural(outcome.skipped, 'file')} skipped; run.json and the report say why.")
        return read_run(path)

    def planned(self) -> tuple[AuditPlan, tuple[PlannedPhoto, ...], int, Classifier]:
        """What an audit would do: that of the run that was named, or of the photos; and how many files it skips."""
        if self.run is not None:
            run = read_run(self.run)
            plan = replace(run.plan, device=self.plan.device)
            return plan, run.photos[: self.plan.limit], run.skipped, run.classifier(self.plan.device)
        classifier = load_model(self.plan.model, self.plan.device)
        plan = completed(self.plan, self.interpreters, classifier)
        inspection = decide(plan, photos_of(self.photos, classifier), classifier)
        return plan, inspection.photos, _tell_skipped(inspection), classifier


def _on_run_or_photos(command: Command) -> Command:
    """Adds the argument RUN_OR_PHOTOS and an audit's options; they arrive as ``source: _Source``."""

    @wraps(command)
    def call(
        photos: tuple[str, ...],
        plan: AuditPlan,
        interpreters: tuple[str, ...] | None,
        out: Path | None,
        **values: Any,
    ) -> Any:
        source = _Source(photos, plan, interpreters, out or Path("underfire-study"))
        _check_alone(photos)
        if source.run is not None:
            _check_unset(source.run)
            source = replace(source, out=out or source.run / STUDIES)
        with interruptible(f"What is finished in {quoted(source.out)} is kept; the same command goes on from there."):
            return command(source=source, **values)

    where = click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        show_default="RUN/studies, or underfire-study for photos",
        metavar="DIR",
        help="Where the study goes; the same command with the same DIR goes on where it was stopped.",
    )
    argument = click.argument("photos", nargs=-1, metavar="[RUN | PHOTO_OR_FOLDER...]")
    return argument(plan_options(where(call)))


@study.command()
@_on_run_or_photos
@click.option(
    "--onto",
    type=Other(),
    multiple=True,
    metavar="MODEL",
    help="Also show the images to this classifier; repeatable. What it needs follows its name, as in "
    "'nets:resnet20 checkpoint=FILE mean=R,G,B std=R,G,B input-size=32'.",
)
def transfer(source: _Source, onto: tuple[ModelSettings, ...]) -> None:
    """Does an attack on one interpreter fool another? And another classifier?

    RUN is the directory of an audit. Photos are audited first, into DIR/run, with the options of an audit.
    """
    device = source.plan.device
    others = [load_model(settings, device) for settings in onto]

    def check(classifier: Classifier) -> None:
        for other in others:
            check_other(other, classifier.name, classifier.class_names, classifier.fingerprint())

    run = source.audited(check, beside_pgd=True)
    _finish(source, transfer_study(run, others, work=source.out / "work" / "transfer", note=_note), run.plan.seed)


@study.command()
@_on_run_or_photos
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=TOLERANCE,
    show_default=True,
    help="How far an integral of a probability may be from complete.",
)
@click.option(
    "--logit-tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=LOGIT_TOLERANCE,
    show_default=True,
    help="The same of a logit.",
)
def bound(source: _Source, tolerance: float, logit_tolerance: float) -> None:
    """Does a change of the prediction force a change of the explanation (Proposition 1)?

    RUN is the directory of an audit. Photos are audited first, into DIR/run, with the options of an audit.
    """
    run = source.audited()
    classifier = run.classifier(source.plan.device)
    found = bound_study(
        run,
        classifier,
        work=source.out / "work" / "bound",
        limit=None if source.run is None else source.plan.limit,  # of photos, the audit's own
        tolerance=tolerance,
        logit_tolerance=logit_tolerance,
        note=_note,
    )
    _finish(source, found, run.plan.seed)


@study.command()
@_on_run_or_photos
@click.option(
    "--along",
    type=click.Choice(get_args(Along)),
    default="eps",
    show_default=True,
    help="What grows: the budget, the passes, or the confidence that is demanded of an image.",
)
@click.option(
    "--grid",
    type=Grid(),
    show_default="five around the defaults",
    metavar="VALUES",
    help="The values of what grows, rising, comma-separated, as 2/255,4/255,8/255.",
)
def frontier(source: _Source, along: Along, grid: tuple[float, ...] | None) -> None:
    """How much of the prediction must be given up to keep the explanation?

    RUN is the directory of an audit, whose photos and settings are taken; the attacks are the study's own.
    """
    for option in _GROWN[along]:
        _check_not_given(option, f"grows along {along}, over the values of --grid")
    _check_not_given("attacks", "runs PGD and ADV²")
    _attack_anew(source, "frontier", partial(frontier_study, along=along, grid=grid))


@study.command()
@_on_run_or_photos
@click.option(
    "--aims",
    type=Names("aim", get_args(Aim)),
    default=",".join(get_args(Aim)),
    show_default=True,
    help="The maps to show, comma-separated: another photo's, of another class, or a random patch.",
)
def gap(source: _Source, aims: tuple[Aim, ...]) -> None:
    """Can the explanation be led anywhere, whatever the prediction?

    RUN is the directory of an audit, whose photos and settings are taken; the attacks are the study's own.
    """
    _check_not_given("attacks", "runs PGD and ADV²")
    _attack_anew(source, "gap", partial(gap_study, aims=aims))


@study.command()
@_on_run_or_photos
@click.option(
    "--clean",
    type=click.Path(),
    multiple=True,
    required=True,
    metavar="PHOTO_OR_FOLDER",
    help="Clean photos to fit the detectors on; repeatable. Those that are in RUN too are left out.",
)
@click.option(
    "--set",
    "sets",
    type=INTERPRETERS,
    multiple=True,
    show_default="all of the run's interpreters but MASK, in all combinations",
    metavar="NAMES",
    help="A set of interpreters to watch, comma-separated; repeatable.",
)
@click.option(
    "--fpr",
    type=float,
    default=FPR,
    show_default=True,
    metavar="RATE",
    help="The share of clean photos that may be flagged.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="PASSES",
    help="What detection may cost for a photo; sets that cost more are shown, and not recommended.",
)
@click.option(
    "--sharing",
    type=click.Choice(list(SHARINGS)),
    multiple=True,
    default=(EVEN.name,),
    show_default=True,
    help="How the maps share a step of the adaptive attack; repeatable: the one counts that evades best on a photo.",
)
@click.option(
    "--eps-grid",
    type=Grid(),
    default=(),
    show_default="the run's alone",
    metavar="VALUES",
    help="Further ε of the adaptive attack on every set, comma-separated, as 2/255,4/255.",
)
@click.option(
    "--passes-grid",
    type=Counts(),
    default=(),
    show_default="those of --passes alone",
    metavar="COUNTS",
    help="Further numbers of its passes, comma-separated, as 50,100.",
)
@click.option(
    "--search",
    type=click.IntRange(min=1),
    metavar="PASSES",
    help="Passes more, for a photo that is still flagged, of a search by the detector's score alone.",
)
@click.option(
    "--also",
    type=Also(),
    multiple=True,
    metavar="NAME=DIR",
    help="Further attacks on the same photos, in the directory of another audit or of a study's attacks; repeatable.",
)
def defence(
    source: _Source,
    clean: tuple[str, ...],
    sets: tuple[tuple[str, ...], ...],
    fpr: float,
    budget: int | None,
    sharing: tuple[str, ...],
    eps_grid: tuple[float, ...],
    passes_grid: tuple[int, ...],
    search: int | None,
    also: tuple[tuple[str, Path], ...],
) -> None:
    """Which interpreters detect best within a budget of passes, against an attacker who knows the detector?

    RUN is the directory of an audit. Photos are audited first, into DIR/run, with the options of an audit. --passes is
    for the adaptive attack, 300 if it is not given; where photos are audited first, for the audit's attacks too.
    """
    check_rate(fpr)
    twice = next((name for name, _ in also if [other for other, _ in also].count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--also '{twice}' is given twice; give every folder a name of its own")
    lost = next((folder for _, folder in also if not folder.is_dir()), None)
    if lost is not None:
        raise InputError(f"--also {quoted(lost)} is no folder; give the directory of an audit, or of a study's attacks")
    passes = source.plan.passes or PASSES
    known: list[Photos] = []

    def check(plan: AuditPlan, classifier: Classifier) -> None:
        further(Resources.of(plan, passes), eps_grid, passes_grid)
        check_sets(plan, classifier, sets, budget, [passes, *passes_grid], search)
        known.append(usable(clean, classifier))
        check_enough(len(known[0]), fpr)

    run = source.audited(lambda classifier: check(completed(source.plan, source.interpreters, classifier), classifier))
    classifier = run.classifier(source.plan.device)
    if not known:
        check(run.plan, classifier)
    found = defence_study(
        run,
        known[0],
        classifier,
        work=source.out / "work" / "defence",
        sets=sets,
        fpr=fpr,
        budget=budget,
        passes=passes,
        sharings=[SHARINGS[name] for name in dict.fromkeys(sharing)],
        eps_grid=eps_grid,
        passes_grid=passes_grid,
        search=search,
        also=dict(also),
        limit=None if source.run is None else source.plan.limit,  # of photos, the audit's own
        note=_note,
    )
    _finish(source, found, run.plan.seed)


def _attack_anew(source: _Source, name: str, make: Callable[..., Study]) -> None:
    plan, photos, skipped, classifier = source.planned()
    found = make(plan, photos, classifier, work=source.out / "work" / name, note=_note, skipped=skipped)
    _finish(source, found, plan.seed)


def _finish(source: _Source, found: Study, seed: int) -> None:
    """Saves the study, tells what it found, and brings the report up to date."""
    save(found, source.out, command=_command(), seed=seed)
    click.echo(found.words)
    click.echo(f"Table, figure and words: {printable(source.out / found.name)}.parquet, .svg, .md")
    if source.run is not None and source.out.resolve() == (source.run / STUDIES).resolve():
        page = rebuild(source.run).page
        click.echo(f"Report: {printable(page)}")


def _note(line: str) -> None:
    notes().print(line)


def _command() -> str:
    return shlex.join(["underfire", *sys.argv[1:]])


def _check_alone(photos: Sequence[str]) -> None:
    run = next((name for name in photos if is_run(Path(name))), None)
    if run is not None and len(photos) > 1:
        raise InputError(f"{quoted(run)} is the directory of an audit; give it alone, or photos without it")


def _check_attacks(plan: AuditPlan, *, beside_pgd: bool) -> None:
    """Refuses attacks that leave a study of their audit nothing to look at."""
    given, instead = f"attacks '{','.join(plan.attacks)}' have", "give for instance --attacks pgd,adv2"
    if not any(attack in plan.attacks for attack in JOINT_ATTACKS):
        raise InputError(f"{given} no attack on an interpreter among them; {instead}")
    if beside_pgd and "pgd" not in plan.attacks:
        raise InputError(f"{given} no pgd among them to compare with; {instead}")


def _check_not_given(name: str, why: str) -> None:
    """Refuses an option that would count for nothing."""
    context = click.get_current_context()
    if _given(context, name):
        (option,) = (parameter.opts[0] for parameter in context.command.params if parameter.name == name)
        raise InputError(f"{option} cannot be given: this study {why}; leave it out")


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)


def _tell_skipped(inspection: Inspection) -> int:
    """Prints which files cannot be used and why; returns how many."""
    skipped = (*inspection.skipped, *inspection.unusable)
    for skip in skipped:
        _note(f"Skipped {quoted(skip.name)}: {skip.reason}")
    return len(skipped)


def _check_unset(run: Path) -> None:
    """Refuses settings beside a run, which was made with its own."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        # A verdict on the first photos of a finished audit would hide the others, and saves nothing.
        free = _FREE_OF_DEFENCE if context.command.name == "defence" else _FREE
        if _given(context, name) and (name not in free or (name, context.command.name) == ("limit", "transfer")):
            raise InputError(
                f"{quoted(run)} is an audit with settings of its own; leave {parameter.opts[0]} out, or give photos"
            )
