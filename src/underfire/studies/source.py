"""What a study works on: a finished audit, or photos of which is decided what an audit would do with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from underfire.auditing.condition import Condition
from underfire.auditing.inspection import Inspection, inspect_photos
from underfire.auditing.plan import AuditPlan, ModelSettings, PlannedPhoto
from underfire.auditing.rows import Row, read_rows
from underfire.auditing.runner import rts_sha256
from underfire.auditing.store import RunDirectory
from underfire.errors import InputError
from underfire.images import PhotoSet
from underfire.images.files import quoted
from underfire.models import load_classifier
from underfire.models.classifier import Classifier

Note = Callable[[str], None]
"""Is told how a study comes along, a line at a time."""


def quiet(_line: str) -> None:
    """A `Note` that nobody reads."""


@dataclass(frozen=True)
class Run:
    """A finished audit.

    Attributes:
        path: the run directory.
        facts: run.json.
        plan: the settings it was made with, as far as they decide its rows.
        photos: all its photos, the excluded ones among them.
        rows: all its rows.
    """

    path: Path
    facts: Mapping[str, Any]
    plan: AuditPlan
    photos: tuple[PlannedPhoto, ...]
    rows: tuple[Row, ...]

    @property
    def skipped(self) -> int:
        """How many files the audit went without, for they could not be used."""
        return len(self.facts["skipped"])

    def picture(self, photo: PlannedPhoto, condition: str) -> Path:
        """The 8-bit PNG of ``photo`` under ``condition`` ("benign", "pgd", "adv2-cam"), at the input size."""
        path = RunDirectory(self.path).artifacts / photo.key / f"{condition}.png"
        if not path.is_file():
            raise InputError(f"{quoted(path)} is missing; put it back, or run the audit again into a new directory")
        return path

    def classifier(self, device: str | torch.device = "cpu") -> Classifier:
        """The audited classifier, loaded anew; raises `InputError` if it, or RTS's weights, are no longer the same."""
        settings = asdict(self.plan.model)
        classifier = load_classifier(settings.pop("spec"), **settings, device=device)
        if classifier.fingerprint() != self.facts["model"]["fingerprint"]:
            raise InputError(
                f"model '{self.plan.model.spec}' has other weights or preprocessing now than in the run "
                f"{quoted(self.path)}; bring back what it was, or run the audit again into a new directory"
            )
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
        return classifier


def is_run(path: Path) -> bool:
    """Whether ``path`` is the directory of an audit."""
    return RunDirectory(path).run_file.is_file()


def read_run(path: Path) -> Run:
    """The audit in the directory ``path``.

    Raises:
        InputError: it is none, it is damaged, or it is unfinished: a verdict on some of its photos would look final.
    """
    facts = RunDirectory(path).read()
    if facts is None:
        raise InputError(
            f"{quoted(path)} holds no run.json, so it is no run; give the directory of an audit, or photos"
        )
    if not facts["finished"]:
        raise InputError(f"the run {quoted(path)} is unfinished; finish it with the command that began it")
    try:
        plan = _plan(facts["config"])
        photos = tuple(PlannedPhoto(**entry) for entry in facts["photos"])
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the run.json of {quoted(path)} is damaged ({error}); run the audit again") from error
    return Run(path, facts, plan, photos, tuple(read_rows(path)))


def decide(plan: AuditPlan, photos: PhotoSet, classifier: Classifier) -> Inspection:
    """``photos`` with the label, target class and exclusion that an audit with ``plan`` gives each of them.

    Beside them are those that cannot be used, with the reasons.
    """
    return inspect_photos(plan, classifier, photos, strict=False)


def attacked(photos: Sequence[PlannedPhoto]) -> tuple[PlannedPhoto, ...]:
    """Those of ``photos`` that an audit attacks; raises `InputError` if there is none."""
    kept = tuple(photo for photo in photos if photo.excluded is None)
    if not kept:
        reasons = sorted({str(photo.excluded) for photo in photos})
        raise InputError(f"none of the {len(photos)} photos can be attacked ({', '.join(reasons)}); give others")
    return kept


def _plan(config: Mapping[str, Any]) -> AuditPlan:
    """The plan that gives this ``config`` of a run.json."""
    own = {field.name for field in fields(ModelSettings)} - {"spec"}
    model = ModelSettings(spec=config["model"], **{name: _frozen(config[name]) for name in own})
    names = {field.name for field in fields(AuditPlan)} - {"model", "steps", "passes"}
    settings: dict[str, Any] = {name: _frozen(config[name]) for name in names}
    # Of steps and passes run.json has what each attack was allowed: either the preset's, or one number for all.
    choices: tuple[dict[str, Any], ...] = ({}, *({name: _largest(config[name])} for name in ("passes", "steps")))
    for efforts in choices:
        plan = AuditPlan(model=model, **settings, **efforts)
        if all(plan.as_config()[name] == config[name] for name in ("steps", "passes")):
            return plan
    raise KeyError("passes")


def _largest(counts: Mapping[str, int] | None) -> int | None:
    return max(counts.values()) if counts else None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def condition_of(row: Row) -> Condition:
    """What was done to the photo of ``row``."""
    return Condition.of_columns(row.attack, row.source)


def conditions_of(run: Run) -> tuple[Condition, ...]:
    """All conditions of ``run``, in the order in which they were run, the benign input first."""
    return tuple(Condition.of_columns(condition.attack, condition.source) for condition in run.plan.conditions)
