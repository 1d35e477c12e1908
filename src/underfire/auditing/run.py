"""A run directory as it is read: what was planned, what was found, and the figures of it.

What is read may have been written by somebody else, so all of it is verified when the run is opened, before anything
of it is used, and nothing in it names code that is run.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from underfire import display
from underfire.attacks.registry import ATTACKS
from underfire.auditing.condition import Condition
from underfire.auditing.facts import RunFacts
from underfire.auditing.found import FoundRows
from underfire.auditing.plan import AuditPlan, ModelSettings, PlannedPhoto
from underfire.auditing.rows import Row, rows_of_table, table_of
from underfire.auditing.runner import rts_sha256
from underfire.auditing.store import RunDirectory, picture_name
from underfire.auditing.summary import Summary
from underfire.auditing.tally import summarise_tables
from underfire.auditing.verification import units_of
from underfire.errors import InputError
from underfire.files import check_tree, quoted
from underfire.images.png import Shape
from underfire.interpreters.registry import INTERPRETERS
from underfire.models import load_classifier
from underfire.models.classifier import Classifier
from underfire.models.sources import is_built_in
from underfire.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FILES = ("checkpoint", "class_names")
"""Settings of a model that name a file."""

PLAIN = tuple(field.name for field in fields(ModelSettings) if field.name not in ("spec", *_FILES))
"""Settings of a model that name neither code nor a file."""


def _interval(share: Estimate) -> str:
    return "" if share.low is None or share.high is None else f"{100 * share.low:.0f} to {100 * share.high:.0f} %"


@dataclass(frozen=True)
class Named:
    """What the user names, again, of a run that others may have written: code and files, which a run cannot name.

    Attributes:
        model: how the classifier is loaded; what it leaves open and names no file is taken from the run.
        rts: the file of RTS's weights.
    """

    model: ModelSettings | None = None
    rts: str | None = None


NOTHING_NAMED = Named()


@dataclass(frozen=True)
class Run:
    """An audit in its directory, finished or not.

    Attributes:
        path: the run directory.
        facts: run.json.
        found: the rows of every finished part.
        named: what the user names of it.
    """

    path: Path
    facts: RunFacts = field(repr=False)
    found: FoundRows = field(repr=False)
    named: Named = field(default=NOTHING_NAMED, repr=False)

    @property
    def finished(self) -> bool:
        """Whether every part is there."""
        return self.finished_parts == self.parts

    @cached_property
    def plan(self) -> AuditPlan:
        """The settings it was made with, with what the user names of them."""
        settings, named = self.facts.settings, self.named
        model = settings.model
        if named.model is not None:
            left = [name for name in PLAIN if getattr(named.model, name) is None]
            model = replace(named.model, **{name: getattr(model, name) for name in left})
        return replace(settings, model=model, rts=settings.rts if named.rts is None else named.rts)

    @property
    def photos(self) -> tuple[PlannedPhoto, ...]:
        """All its photos, the excluded ones among them."""
        return self.facts.photos

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input and so of every picture."""
        return self.facts.model.input_size

    @property
    def picture_shape(self) -> Shape:
        """(channels, height, width) of every picture."""
        told = self.facts.model.preprocessing
        return (3 if told is None else told.channels, *self.input_size)

    @cached_property
    def records(self) -> tuple[Row, ...]:
        """Every row of every finished part; for some thousands of photos, and more fit into ``found`` alone."""
        return tuple(row for table in self.found.tables() for row in rows_of_table(table))

    @cached_property
    def rows(self) -> pa.Table:
        """The ``records`` as a pyarrow.Table."""
        return pa.concat_tables([table_of([]), *self.found.tables()])

    @cached_property
    def summary(self) -> Summary:
        """The figures of its rows; raises `InputError` if two of them are of the same map."""
        return summarise_tables(self.found.tables(), self.facts.map_checks or ())

    @cached_property
    def attacked(self) -> tuple[PlannedPhoto, ...]:
        """The photos that are not excluded and whose rows are there, in the order of the run."""
        units = (unit for unit in units_of(self.facts) if unit.number in self.found.parts)
        return tuple(photo for unit in units for photo in unit.photos if photo.excluded is None)

    @property
    def skipped(self) -> int:
        """How many files the audit went without, for they could not be used."""
        return len(self.facts.skipped)

    @property
    def parts(self) -> int:
        """Of how many parts its rows are, those of all shards together."""
        return len(units_of(self.facts))

    def plot(self) -> "Figure":
        """For each attacked interpreter the share of photos with the label chosen and the map kept, and its interval.

        ADV² on that interpreter beside PGD, which ignores the map; on the image as saved.
        """
        headlines = self.summary.headlines
        drawn = display.figure(5, 1.2 + 0.5 * max(1, len(headlines)))
        axes = drawn.subplots()
        for label, colour, shift in (("PGD", "tab:blue", 0.12), ("ADV²", "tab:red", -0.12)):
            for k, line in enumerate(headlines):
                share = line.kept if label == "ADV²" else line.kept_pgd
                if share.value is None or share.low is None or share.high is None:
                    continue
                axes.plot([share.low, share.high], [k + shift] * 2, color=colour)
                axes.plot([share.value], [k + shift], "o", color=colour, label=None if k else label)
        axes.set_yticks(range(len(headlines)), [line.interpreter for line in headlines])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(headlines) - 0.5, -0.5))
        axes.set_xlabel(f"share of photos: label chosen, map kept (IoU ≥ {self.summary.kept_iou:g})")
        if headlines:
            axes.legend(loc="best")
        return drawn

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline of each attacked interpreter, with intervals and the number of photos."""
        rows = [
            {
                "interpreter": line.interpreter,
                "label chosen, map kept": f"{line.kept.k} of {line.kept.n}",
                "95 % interval": _interval(line.kept),
                "PGD, of the same": f"{line.kept_pgd.k} of {line.kept_pgd.n}",
                "faithfulness": "not looked at" if line.faithfulness is None else line.faithfulness.verdict.value,
            }
            for line in self.summary.headlines
        ]
        unfinished = "" if self.finished else f", unfinished: {self.finished_parts} of {self.parts} parts"
        title = f"Audit of {self.facts.model.name} in {self.path}{unfinished}"
        photos, files = display.plural(len(self.photos), "photo"), display.plural(self.skipped, "file")
        were = display.agreeing(self.skipped, "was", "were")
        note = f"{photos}; {files} {were} skipped. run.report() writes the report."
        return display.table(title, rows, note=note) + (display.picture(self.plot(), alt="shares") if rows else "")

    @cached_property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the parts that are not there."""
        return tuple(unit.number for unit in units_of(self.facts) if unit.number not in self.found.parts)

    @property
    def finished_parts(self) -> int:
        """How many of the parts are there."""
        return self.parts - len(self.missing)

    @property
    def class_names(self) -> Mapping[str, str]:
        """The names of the classes, by index as text."""
        return self.facts.model.class_names

    def picture(self, photo: PlannedPhoto, condition: Condition) -> Path:
        """The 8-bit PNG of ``photo`` under ``condition``, at the input size; raises `InputError` if it is missing."""
        path = RunDirectory(self.path).artifact(photo, picture_name(condition))
        if not path.is_file():
            raise InputError(f"{quoted(path)} is missing; put it back, or run the audit again into a new directory")
        return path

    def classifier(self, device: str | torch.device | None = None) -> Classifier:
        """The audited classifier, loaded again, onto ``device`` or where it is made.

        A run names no code and no file: what does not come with the package, the user has named (see `named`).

        Raises:
            InputError: the user has not, or the model or RTS's weights are no longer the same.
        """
        self._check_named()
        settings = asdict(self.plan.model)
        classifier = load_classifier(settings.pop("spec"), **settings, device=device)
        if classifier.fingerprint() != self.facts.model.fingerprint:
            raise InputError(
                f"model {quoted(self.plan.model.spec)} has other weights or preprocessing now than in the run "
                f"{quoted(self.path)}; bring back what it was, or run the audit again into a new directory"
            )
        self._check_rts(classifier)
        return classifier

    def _check_named(self) -> None:
        """Before any code or file is touched that run.json alone names."""
        audited, named = self.facts.settings, self.named
        files = [name for name in _FILES if getattr(audited.model, name) is not None]
        missing = [name for name in files if named.model is None or getattr(named.model, name) is None]
        words = [f"--{name.replace('_', '-')} {quoted(getattr(audited.model, name))}" for name in missing]
        if named.model is None and (missing or not is_built_in(audited.model.spec)):
            words.insert(0, f"--model {quoted(audited.model.spec)}")
        if audited.rts is not None and named.rts is None:
            words.append(f"--rts {quoted(audited.rts)}")
        for kind, parts, names in (
            ("interpreters", INTERPRETERS, audited.interpreters),
            ("attacks", ATTACKS, audited.attacks),
        ):
            strange = [name for name in names if ":" in name and not parts.is_loaded(name)]
            words += [f"--{kind} {quoted(','.join(strange))}"] if strange else []
        if words:
            raise InputError(
                f"the run {quoted(self.path)} was made with code or files that do not come with underfire, and a run "
                f"cannot name them; if you trust them, name them yourself: {' '.join(words)}"
            )

    def _check_rts(self, classifier: Classifier) -> None:
        try:
            weights = rts_sha256(self.plan, classifier)
        except OSError as error:
            raise InputError(
                f"the weights of RTS {quoted(error.filename)} of the run {quoted(self.path)} cannot be read "
                f"({error.strerror}); put them back, or run the audit again into a new directory"
            ) from error
        if weights != self.facts.config.get("rts_sha256"):
            raise InputError(
                f"the weights of RTS are other ones now than in the run {quoted(self.path)}; "
                "bring back what they were, or run the audit again into a new directory"
            )


def is_run(path: Path) -> bool:
    """Whether ``path`` is the directory of an audit, damaged or not."""
    return os.path.lexists(RunDirectory(path).run_file)


def open_run(path: Path, named: Named = NOTHING_NAMED) -> Run:
    """The run in the directory ``path``, as far as it got: for a report of it.

    Raises:
        InputError: ``path`` is no run directory, holds links or what is no file, or run.json or a part is damaged, or a
            part does not belong to it.
    """
    directory = RunDirectory(path)
    if not is_run(path):
        raise InputError(
            f"{quoted(path)} holds no run.json, so it is no run; give the directory that `underfire audit --out` wrote"
        )
    check_tree(path)
    facts = directory.read()
    if facts is None:
        raise InputError(f"the run.json of {quoted(path)} was removed just now; put it back")
    return Run(path, facts, FoundRows.of_run(directory, facts), named)


def read_run(path: Path, named: Named = NOTHING_NAMED) -> Run:
    """The audit in the directory ``path``, which came to its end: a verdict on some of its photos would look final.

    Raises:
        InputError: it did not, or as `open_run`.
    """
    run = open_run(path, named)
    if not run.finished:
        done = sum(len(unit.photos) for unit in units_of(run.facts) if unit.number in run.found.parts)
        raise InputError(
            f"the run {quoted(path)} is unfinished: {done} of its {len(run.photos)} photos have rows; finish it with "
            "the command that began it"
        )
    return run
