"""``underfire study``: the claims of the paper's discussion, each tested on the user's own model.

Every command is made from the study's entry in `underfire.studies.registry` and from its options; what it needs is
imported when it is called.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from underfire.auditing.plan import ModelSettings
from underfire.auditing.store import STUDIES as STUDIES_FOLDER
from underfire.cli.console import notes, results
from underfire.cli.interrupts import interruptible
from underfire.cli.options import (
    Command,
    Option,
    Parsed,
    completed,
    load_model,
    out_folder,
    photos_argument,
    photos_of,
    plan_options,
    quiet_option,
)
from underfire.errors import InputError
from underfire.files import check_tree, printable, quoted
from underfire.present.text import plural
from underfire.studies.options import Declared, Planned, declared_options
from underfire.studies.registry import STUDIES, StudyEntry

if TYPE_CHECKING:
    from underfire.auditing.inspection import Inspection
    from underfire.auditing.plan import AuditPlan
    from underfire.auditing.run import Named, Run
    from underfire.images.dataset import Photos
    from underfire.models.classifier import Classifier
    from underfire.studies.study import Study

_MODEL = tuple(field.name for field in fields(ModelSettings))
_NAMED = (*_MODEL, "rts", "interpreters", "attacks")
"""What a run cannot name, as others may have written it: the user does, where it is code or a file."""

_FREE = ("photos", "out", "device", "quiet", *_NAMED)
"""What may be given beside the directory of an audit, whichever study it is."""


class _Studies(click.Group):
    """A command per entry of `STUDIES`; help imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """The names of the studies."""
        return list(STUDIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command of a study by its name, or by an old one; None where there is none."""
        known = ((name, entry) for name, entry in STUDIES.items() if cmd_name in (name, *entry.old_names))
        found = next(known, None)
        return None if found is None else _command_of(*found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Lists the studies with their questions."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.question) for name, entry in STUDIES.items()])


@click.group(cls=_Studies)
def study() -> None:
    """Tests the claims of the paper's discussion on your model.

    Each study leaves a table, a figure and a page of words. On the directory of an audit it becomes a chapter of that
    audit's report.
    """


@dataclass(frozen=True)
class _Source:
    """What a study is to work on, as the user named it; see `underfire.studies.options.StudySource`."""

    name: str
    photos: tuple[str, ...]
    plan: AuditPlan
    interpreters: tuple[str, ...] | None
    out: Path

    @property
    def run(self) -> Path | None:
        """The directory of an audit, if that is what was named."""
        from underfire.auditing.run import is_run

        return Path(self.photos[0]) if len(self.photos) == 1 and is_run(Path(self.photos[0])) else None

    @property
    def named(self) -> Named:
        """What the user names of the audit: for one that is made here, all of it."""
        from underfire.auditing.run import Named

        context = click.get_current_context()
        again = self.run is None or any(_given(context, name) for name in _MODEL)
        return Named(self.plan.model if again else None, self.plan.rts)

    def read(self, path: Path) -> Run:
        """The finished audit in the directory ``path``; refuses parts that the user names and it does not have."""
        from underfire.auditing.run import read_run
        from underfire.models.decisions import check_exclusive

        run = read_run(path, self.named)
        check_exclusive("studies", exclusive=run.facts.model.exclusive)
        context = click.get_current_context()
        for kind, given, own in (
            ("interpreters", self.interpreters or (), run.facts.settings.interpreters),
            ("attacks", self.plan.attacks, run.facts.settings.attacks),
        ):
            strange = next((name for name in given if name not in own), None)
            if self.run is not None and strange is not None and _given(context, kind):
                raise InputError(
                    f"{quoted(path)} is an audit with {kind} of its own; {quoted(strange)} is none of them"
                )
        return run

    @property
    def work(self) -> Path:
        """The study's folder for what it measures; one of its old name is used on."""
        folders = [self.out / "work" / name for name in (self.name, *STUDIES[self.name].old_names)]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    @property
    def limit(self) -> int | None:
        """At most so many of a run's photos; of photos it is the audit's own."""
        return None if self.run is None else self.plan.limit

    @property
    def note(self) -> Callable[[str], None]:
        """Prints a line on stderr."""
        return notes().print

    def audited(
        self, check: Callable[[AuditPlan, Classifier], None] = lambda _plan, _: None, *, beside_pgd: bool = False
    ) -> Run:
        """The audit that was named, or that of the photos, which is made, or resumed, in DIR/run."""
        from underfire.api import rebuild
        from underfire.auditing.runner import run_audit
        from underfire.cli.progress import ProgressDisplay

        if self.run is not None:
            return self.read(self.run)
        _check_attacks(self.plan, beside_pgd=beside_pgd)
        classifier = self.load(self.plan.model)
        plan = completed(self.plan, self.interpreters, classifier)
        check(plan, classifier)
        path = self.out / "run"
        with ProgressDisplay(notes()) as display:
            photos = photos_of(self.photos, classifier)
            outcome = run_audit(plan, photos, classifier, path, command=_command_line(), listener=display)
        rebuild(path)
        if outcome.skipped:
            results().print(f"{plural(outcome.skipped, 'file')} skipped; run.json and the report say why.")
        return self.read(path)

    def planned(self) -> Planned:
        """What an audit would do: that of the run that was named, or of the photos."""
        from underfire.studies.source import decide

        if self.run is not None:
            run = self.read(self.run)
            classifier = run.classifier(self.plan.device)
            plan = replace(run.plan, device=str(classifier.device))
            return Planned(plan, run.photos[: self.plan.limit], run.skipped, classifier)
        classifier = self.load(self.plan.model)
        plan = completed(self.plan, self.interpreters, classifier)
        inspection = decide(plan, photos_of(self.photos, classifier), classifier)
        return Planned(plan, inspection.photos, _tell_skipped(inspection), classifier)

    def refuse(self, name: str, why: str) -> None:
        """Refuses an option that would count for nothing."""
        context = click.get_current_context()
        if _given(context, name):
            (option,) = (parameter.opts[0] for parameter in context.command.params if parameter.name == name)
            raise InputError(f"{option} cannot be given: this study {why}; leave it out")

    def usable(self, named: tuple[str, ...], classifier: Classifier) -> Photos:
        """The photos ``named`` that can be decoded."""
        from underfire.cli.usable import usable

        return usable(named, classifier)

    def load(self, settings: ModelSettings) -> Classifier:
        """A classifier, on the audit's device."""
        from underfire.models.decisions import check_exclusive

        classifier = load_model(settings, self.plan.device)
        check_exclusive("studies", exclusive=classifier.decision.exclusive)
        return classifier


def _command_of(name: str, entry: StudyEntry) -> click.Command:
    """The command of a study: its own options, then those of an audit."""
    module, function = entry.run.split(":")
    run: Callable[[_Source, Any], Study] = getattr(import_module(module), function)
    kind = get_type_hints(run)["options"]
    declared = declared_options(kind)

    def call(
        photos: tuple[str, ...],
        plan: AuditPlan,
        interpreters: tuple[str, ...] | None,
        out: Path | None,
        **values: Any,
    ) -> None:
        source = _Source(name, photos, plan, interpreters, out or Path("underfire-study"))
        _check_alone(photos)
        if source.run is not None:
            _check_unset(source.run, (*_FREE, *entry.beside_run, *declared))
            source = replace(source, out=out or source.run / STUDIES_FOLDER)
        check_tree(source.out)
        with interruptible(f"What is finished in {quoted(source.out)} is kept; the same command goes on from there."):
            _finish(source, run(source, kind(**values)))

    where = out_folder(
        "Where the study goes; the same command with the same DIR goes on where it was stopped.",
        show_default="RUN/studies, or underfire-study for photos",
    )
    command: Command = plan_options(where(quiet_option(call)))
    for field, (default, option) in reversed(declared.items()):
        command = _option(field, default, option)(command)
    argument = photos_argument("[RUN | PHOTO_OR_FOLDER...]")
    made: click.Command = click.command(name, help=entry.help)(argument(command))
    return made


def _option(field: str, default: Any, declared: Declared) -> Callable[[Command], Command]:
    kind: Any = declared.parse if declared.parse is str else Parsed("value", declared.parse)
    return click.option(
        f"--{(declared.name or field).replace('_', '-')}",
        field,
        cls=Option,
        old_names=[f"--{old}" for old in declared.old_names],
        old_values=declared.old_values,
        type=click.Choice(declared.choices) if declared.choices else kind,
        default=None if declared.required else default,
        show_default=declared.shown_default or default not in (None, ()),
        multiple=declared.multiple,
        required=declared.required,
        metavar=declared.metavar,
        help=declared.help,
    )


def _finish(source: _Source, found: Study) -> None:
    """Saves the study, tells what it found, and brings the report up to date."""
    from underfire.api import rebuild
    from underfire.studies.study import save

    seed = source.plan.seed if source.run is None else source.read(source.run).plan.seed
    save(found, source.out, command=_command_line(), seed=seed)
    click.echo(found.words)
    click.echo(f"Table, figure and words: {printable(source.out / found.name)}.parquet, .svg, .md")
    if source.run is not None and source.out.resolve() == (source.run / STUDIES_FOLDER).resolve():
        click.echo(f"Report: {printable(rebuild(source.run).page)}")


def _command_line() -> str:
    return shlex.join(["underfire", *sys.argv[1:]])


def _check_alone(photos: Sequence[str]) -> None:
    from underfire.auditing.run import is_run

    run = next((name for name in photos if is_run(Path(name))), None)
    if run is not None and len(photos) > 1:
        raise InputError(f"{quoted(run)} is the directory of an audit; give it alone, or photos without it")


def _check_attacks(plan: AuditPlan, *, beside_pgd: bool) -> None:
    """Refuses attacks that leave a study of their audit nothing to compare."""
    from underfire.attacks.registry import entry_of

    given, instead = f"attacks '{','.join(plan.attacks)}' have", "give for instance --attacks pgd,adv2"
    if not any(entry_of(name).attack.joint for name in plan.attacks):
        raise InputError(f"{given} no attack on an interpreter among them; {instead}")
    if beside_pgd and "pgd" not in plan.attacks:
        raise InputError(f"{given} no pgd among them to compare with; {instead}")


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)


def _tell_skipped(inspection: Inspection) -> int:
    """Prints which files cannot be used and why; returns how many."""
    skipped = (*inspection.skipped, *inspection.unusable)
    for skip in skipped:
        notes().print(f"Skipped {quoted(skip.name)}: {skip.reason}")
    return len(skipped)


def _check_unset(run: Path, free: Sequence[str]) -> None:
    """Refuses settings but the ``free`` ones beside a run, which was made with its own."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if _given(context, name) and name not in free:
            raise InputError(
                f"{quoted(run)} is an audit with settings of its own; leave {parameter.opts[0]} out, or give photos"
            )
