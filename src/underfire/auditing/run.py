"""A run directory as it is read: what was planned, what was found, and the figures of it.

What is read may have been written by somebody else, so names, keys and counts are checked before they are used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from underfire.auditing.condition import Condition
from underfire.auditing.plan import AuditPlan, ModelSettings, PlannedPhoto, planned_photos, units
from underfire.auditing.rows import Row, read_rows, table_of
from underfire.auditing.runner import rts_sha256
from underfire.auditing.store import RunDirectory, picture_name
from underfire.auditing.summary import Summary, summarise
from underfire.errors import InputError
from underfire.files import quoted, shortened
from underfire.models import load_classifier
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Run:
    """An audit in its directory, finished or not.

    Attributes:
        path: the run directory.
        facts: run.json.
        records: every row of every finished part.
    """

    path: Path
    facts: Mapping[str, Any]
    records: tuple[Row, ...]

    @property
    def finished(self) -> bool:
        """Whether the audit came to its end."""
        return bool(self.facts.get("finished", False))

    @cached_property
    def plan(self) -> AuditPlan:
        """The settings it was made with; raises `InputError` if run.json is damaged."""
        try:
            if "plan" in self.facts:
                return AuditPlan.from_json(self.facts["plan"])
            return plan_of_config(self.facts["config"])
        except (TypeError, KeyError, AttributeError) as error:
            raise self._damaged(error) from error

    @cached_property
    def photos(self) -> tuple[PlannedPhoto, ...]:
        """All its photos, the excluded ones among them; raises `InputError` if run.json is damaged."""
        try:
            return planned_photos(self.facts["photos"])
        except (TypeError, KeyError, ValueError) as error:
            raise self._damaged(error) from error

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input and so of every picture; raises `InputError` if run.json is damaged."""
        size = self.section("model").get("input_size")
        if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
            raise self._damaged(ValueError(f"its model has the input size {shortened(str(size))}"))
        height, width = size
        return height, width

    @cached_property
    def rows(self) -> pa.Table:
        """The ``records`` as a pyarrow.Table."""
        return table_of(self.records)

    @cached_property
    def summary(self) -> Summary:
        """The figures of its rows; raises `InputError` if two of them are of the same map."""
        return summarise(self.records)

    @property
    def skipped(self) -> int:
        """How many files the audit went without, for they could not be used."""
        return len(self.entries("skipped"))

    @property
    def parts(self) -> int:
        """Of how many parts its rows are, those of all shards together."""
        return len(list(units(self.photos, batch_size=self.plan.batch_size)))

    @property
    def finished_parts(self) -> int:
        """How many of the parts are there."""
        directory = RunDirectory(self.path)
        return sum(directory.has_part(unit.number) for unit in units(self.photos, batch_size=self.plan.batch_size))

    @property
    def class_names(self) -> Mapping[str, str]:
        """The names of the classes, by index as text."""
        names = self.section("class_names") or self.section("model").get("class_names")
        return {str(index): str(name) for index, name in names.items()} if isinstance(names, dict) else {}

    def section(self, name: str) -> Mapping[str, Any]:
        """The object ``name`` of run.json, empty where there is none."""
        value = self.facts.get(name)
        return value if isinstance(value, dict) else {}

    def entries(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The objects in the list ``name`` of run.json, none where there is no list."""
        value = self.facts.get(name)
        return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []

    def picture(self, photo: PlannedPhoto, condition: Condition) -> Path:
        """The 8-bit PNG of ``photo`` under ``condition``, at the input size; raises `InputError` if it is missing."""
        path = RunDirectory(self.path).artifacts / photo.key / picture_name(condition)
        if not path.is_file():
            raise InputError(f"{quoted(path)} is missing; put it back, or run the audit again into a new directory")
        return path

    def classifier(self, device: str | torch.device = "cpu") -> Classifier:
        """The audited classifier, loaded again; raises `InputError` if it, or RTS's weights, are no longer the same."""
        settings = asdict(self.plan.model)
        classifier = load_classifier(settings.pop("spec"), **settings, device=device)
        if classifier.fingerprint() != self.facts["model"]["fingerprint"]:
            raise InputError(
                f"model '{self.plan.model.spec}' has other weights or preprocessing now than in the run "
                f"{quoted(self.path)}; bring back what it was, or run the audit again into a new directory"
            )
        self._check_rts(classifier)
        return classifier

    def _check_rts(self, classifier: Classifier) -> None:
        try:
            weights = rts_sha256(self.plan, classifier)
        except OSError as error:
            raise InputError(
                f"the weights of RTS {quoted(error.filename)} of the run {quoted(self.path)} cannot be read "
                f"({error.strerror}); put them back, or run the audit again into a new directory"
            ) from error
        if weights != self.facts["config"].get("rts_sha256"):
            raise InputError(
                f"the weights of RTS are other ones now than in the run {quoted(self.path)}; "
                "bring back what they were, or run the audit again into a new directory"
            )

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"the run.json of {quoted(self.path)} is damaged ({error}); run the audit again")


def is_run(path: Path) -> bool:
    """Whether ``path`` is the directory of an audit."""
    return RunDirectory(path).run_file.is_file()


def open_run(path: Path) -> Run:
    """The run in the directory ``path``, as far as it got and as far as run.json describes it: for a report of it.

    Raises:
        InputError: ``path`` is no run directory, or run.json or a part cannot be read.
    """
    file = RunDirectory(path).run_file
    if not file.is_file():
        raise InputError(
            f"{quoted(path)} holds no run.json, so it is no run; give the directory that `underfire audit --out` wrote"
        )
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{quoted(file)} cannot be read ({error}); run the same audit again to mend it") from error
    if not isinstance(facts, dict):
        raise InputError(f"{quoted(file)} does not describe a run; run the same audit again to mend it")
    return Run(path, facts, tuple(read_rows(path)) if (path / "rows").is_dir() else ())


def read_run(path: Path, *, unfinished: bool = False) -> Run:
    """The audit in the directory ``path``, whose run.json is whole.

    Raises:
        InputError: it is none, it is damaged, or it is not finished: a verdict on some of its photos would look final.
            With ``unfinished`` that is no reason.
    """
    facts = RunDirectory(path).read()
    if facts is None:
        raise InputError(
            f"{quoted(path)} holds no run.json, so it is no run; give the directory of an audit, or photos"
        )
    if not facts["finished"] and not unfinished:
        raise InputError(f"the run {quoted(path)} is unfinished; finish it with the command that began it")
    found = Run(path, facts, ())
    if not (found.plan and found.photos):
        raise InputError(f"the run.json of {quoted(path)} names no photo; run the audit again")
    return replace(found, records=tuple(read_rows(path)))


def plan_of_config(config: Mapping[str, Any]) -> AuditPlan:
    """The plan that gives this ``config`` of a run.json, for runs of version 0.1.0, which did not save their plan.

    Of steps and passes ``config`` has what each attack was allowed: either the preset's, or one number for all. The
    plan has the budget that the perturbation gave where none was named.

    Raises:
        KeyError: a setting is missing, or no plan gives these steps and passes.
    """
    own = {field.name for field in fields(ModelSettings)} - {"spec"}
    model = {"spec": config["model"], **{name: config[name] for name in own}}
    names = {field.name for field in fields(AuditPlan)} - {"model", "steps", "passes"}
    settings = {"model": model, **{name: config[name] for name in names}}
    choices = ({}, *({name: _largest(config[name])} for name in ("passes", "steps")))
    for effort in choices:
        plan = AuditPlan.from_json(settings | effort)
        if all(plan.as_config()[name] == config[name] for name in ("steps", "passes")):
            return plan
    raise KeyError("passes")


def _largest(counts: Mapping[str, int] | None) -> int | None:
    return max(counts.values()) if counts else None
