"""Running a plan into a run directory, from the beginning or from where it was left."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from underfire.auditing.checks import check_maps_on_photos, check_on_photos
from underfire.auditing.engines import Engine, LocalEngine, RayEngine
from underfire.auditing.facts import RunFacts, flat_settings, run_facts
from underfire.auditing.given import NOTHING_GIVEN, GivenParts
from underfire.auditing.inspection import Inspection, check_unchanged, inspect_photos
from underfire.auditing.locks import describing, holding
from underfire.auditing.names import make_perturbation
from underfire.auditing.plan import (
    ANY_RAY,
    WHOLE,
    AuditPlan,
    PlannedPhoto,
    RaySettings,
    Shard,
    Unit,
    first_difference,
    shown_setting,
    units,
)
from underfire.auditing.ray_pool import pool_of
from underfire.auditing.rows import OLDEST_SCHEMA, SCHEMA_VERSION
from underfire.auditing.store import RunDirectory
from underfire.auditing.targets import NO_TARGET
from underfire.auditing.unit import Auditor, Event
from underfire.auditing.verification import verified_tables
from underfire.choices import EngineName, Keep
from underfire.defenses.ensemble import settings_of
from underfire.diagnostics.map_checks import MapCheck
from underfire.diagnostics.model_checks import Checked
from underfire.errors import InputError
from underfire.files import printable, quoted
from underfire.images import PhotoSet
from underfire.interpreters.registry import INTERPRETERS
from underfire.interpreters.rts import RTS, shipped_weights
from underfire.models.classifier import Classifier
from underfire.weights import file_sha256

_LIBRARIES = ("torch", "numpy", "pillow", "safetensors", "pyarrow")


class AuditListener(Protocol):
    """Is told how a run comes along."""

    def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:
        """The run begins with the units ``todo``; ``finished`` of the shard's were there already."""
        ...

    def advanced(self, event: Event) -> None:
        """A piece of work is done."""
        ...


@dataclass(frozen=True)
class AuditOutcome:
    """What a run left in its directory."""

    path: Path
    photos: int
    skipped: int
    parts: int
    """Of all shards together."""
    finished_parts: int

    @property
    def finished(self) -> bool:
        """Whether every part is there, those of other shards included."""
        return self.finished_parts == self.parts


def run_audit(
    plan: AuditPlan,
    photos: PhotoSet,
    classifier: Classifier,
    out: Path,
    *,
    shard: Shard = WHOLE,
    engine: EngineName = "local",
    ray: RaySettings = ANY_RAY,
    strict: bool = False,
    command: str | None = None,
    listener: AuditListener | None = None,
    given: GivenParts = NOTHING_GIVEN,
    keep: Keep = "all",
) -> AuditOutcome:
    """Runs this shard's share of ``plan`` on ``photos`` and leaves parts, artifacts and run.json in ``out``.

    Parts that are there already are left as they are, so the same call goes on where another was stopped, and
    yields the rows of an undisturbed run in all but ``seconds``. Nothing in ``out`` is touched before
    everything that can be refused has been checked. ``given`` are parts of the user's own, ``keep`` says which of the
    artifacts stay, ``ray`` how the engine "ray" uses its cluster.

    Raises:
        InputError: a photo, an interpreter or the directory cannot be used; the directory is that of another
            configuration, or another process works on the same share of it.
    """
    directory = RunDirectory(out, keep)
    directory.check_usable()
    auditor = Auditor(plan, classifier, directory, given=given)
    worker = _engine(engine, ray, auditor, partial(RayEngine, plan, classifier, directory, given=given))

    facts = _facts(plan, auditor, given, command, threads=1 if engine == "ray" else torch.get_num_threads())
    run, begun = directory.read(), None
    if run is None:
        inspection = inspect_photos(plan, classifier, photos, strict=strict, loader=auditor.loader)
        seen = (inspection.photos, auditor.loader)
        facts |= _photo_facts(
            inspection,
            check_on_photos(classifier, *seen),
            check_maps_on_photos(classifier, auditor.interpreters, *seen),
        )
        begun = run_facts(facts)
        run = _begin(directory, begun)
    planned = run.photos
    if run is not begun:  # by this process
        now = run.to_json() | facts | {"map_checks": None}  # which are no settings
        _check_same(directory, run, run_facts(now), strict=strict)
        planned = check_unchanged(run, photos, plan.limit)

    share = list(units(planned, batch_size=plan.batch_size, shard=shard))
    with holding(directory.lock_file, (unit.number for unit in share)):
        todo = _left_to_do(directory, run, share)
        if listener:
            listener.started(plan, todo, len(share) - len(todo))
        for event in worker.run(todo):
            if listener:
                listener.advanced(event)
    return _finish(directory, planned, plan)


def _engine(name: EngineName, ray: RaySettings, auditor: Auditor, on_ray: Callable[..., Engine]) -> Engine:
    pool = pool_of(name, ray)
    return LocalEngine(auditor) if pool is None else on_ray(pool=pool)


def _left_to_do(directory: RunDirectory, run: RunFacts, share: Sequence[Unit]) -> list[Unit]:
    """The units of ``share`` that are not finished, what a killed process left of them swept away."""
    finished = {number for number, _ in verified_tables(directory, run)}
    todo = [unit for unit in share if unit.number not in finished]
    for unit in todo:
        directory.sweep(unit)
    return todo


def _begin(directory: RunDirectory, facts: RunFacts) -> RunFacts:
    """Writes run.json, unless another shard was quicker, and returns the one that holds."""
    directory.path.mkdir(parents=True, exist_ok=True)
    with describing(directory.lock_file):
        run = directory.read()
        if run is None:
            directory.write(facts)
    return run or facts


def _finish(directory: RunDirectory, photos: Sequence[PlannedPhoto], plan: AuditPlan) -> AuditOutcome:
    everything = list(units(photos, batch_size=plan.batch_size))
    finished = sum(directory.has_part(unit.number) for unit in everything)
    with describing(directory.lock_file):
        directory.sweep_descriptions()
        run = directory.read()
        if run is None:
            raise InputError(f"{quoted(directory.run_file)} was removed while the run went on; run the audit again")
        if finished == len(everything) and not run.finished:
            directory.write(replace(run, finished=True))
    return AuditOutcome(directory.path, len(photos), len(run.skipped), len(everything), finished)


def _check_same(directory: RunDirectory, old: RunFacts, new: RunFacts, *, strict: bool) -> None:
    """Refuses to add rows to a run that was made otherwise."""
    run, advice = quoted(directory.path), "give the same settings to go on, or a new directory"
    goes_on = OLDEST_SCHEMA <= old.schema <= new.schema  # newer rows have more columns, and the old ones as they were
    for name, same in (("schema", goes_on), ("underfire_version", old.underfire_version == new.underfire_version)):
        if not same:
            before, now = printable(str(getattr(old, name))), getattr(new, name)
            raise InputError(f"{run} was begun with {name} {before}, and this is {now}; give a new directory")
    difference = first_difference(old.config, new.config)
    if difference is not None:
        name, was, given = difference
        raise InputError(
            f"{run} is a run with {name} {shown_setting(was)}, but {shown_setting(given)} is given now; {advice}"
        )
    if (old.attacked_under, old.seen_by) != (new.attacked_under, new.seen_by):
        raise InputError(f"{run} has rows of other attacks or interpreters than its settings give; {advice}")
    if old.model.fingerprint != new.model.fingerprint:
        raise InputError(
            f"{run} is a run of a model {quoted(old.model.name)} with other weights or preprocessing "
            f"(fingerprint {quoted(old.model.fingerprint[:12])}, now '{new.model.fingerprint[:12]}'); {advice}"
        )
    # The fingerprint tells of the preprocessing, which old runs don't.
    if replace(old.model, preprocessing=None) != replace(new.model, preprocessing=None):
        raise InputError(f"{run} is a run of a model with other names of classes, or another input size; {advice}")
    torch_before, torch_now = old.versions.get("torch"), new.versions["torch"]
    if torch_before != torch_now:
        raise InputError(
            f"{run} was begun with torch {shown_setting(torch_before)}, and this is '{torch_now}'; {advice}"
        )
    on_cpu = torch.device(new.device).type == "cpu"
    if on_cpu and old.threads != new.threads:  # they decide the order of sums
        raise InputError(
            f"{run} was begun with {old.threads} threads, and this has {new.threads}; "
            f"set OMP_NUM_THREADS={old.threads} to go on (engine 'ray' always has one), or give a new directory"
        )
    if strict and old.skipped:
        first = old.skipped[0]
        raise InputError(f"{run} is a run without {quoted(first.name)} ({first.reason}); drop --strict")
    untargeted = next((photo for photo in old.photos if photo.excluded == NO_TARGET), None)
    if strict and untargeted is not None:
        raise InputError(f"{run} has {quoted(untargeted.image_id)} without a target; drop --strict")


def library_versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what comes out."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def _facts(
    plan: AuditPlan, auditor: Auditor, given: GivenParts, command: str | None, *, threads: int
) -> dict[str, Any]:
    """Everything in run.json but the photos."""
    classifier, own = auditor.classifier, given.settings()
    plan = replace(plan, device=plan.device or str(classifier.device))
    return {
        "schema": SCHEMA_VERSION,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "underfire_version": version("underfire"),
        "versions": library_versions(),
        "device": str(classifier.device),
        "threads": threads,
        "platform": f"{platform.system()} {platform.machine()}",
        "model": {
            "name": classifier.name,
            "fingerprint": classifier.fingerprint(),
            "num_classes": classifier.num_classes,
            "input_size": list(classifier.input_size),
            "resize": classifier.preprocessing.resize,
            "preprocessing": asdict(classifier.preprocessing),
            "exclusive": classifier.decision.exclusive,
            # All of them: which classes failed attacks end in is not known yet.
            "class_names": {str(index): name for index, name in enumerate(classifier.class_names)},
        },
        "threat_model": _threat_model(plan),
        "plan": asdict(plan),
        "config": plan.as_config() | {"rts_sha256": rts_sha256(plan, classifier)} | ({"given": own} if own else {}),
        "conditions": [str(condition) for condition in plan.conditions],
        "interpreters": [INTERPRETERS.name_of(name) for name in plan.interpreters],
        "interpreter_settings": {g.name: flat_settings(settings_of(g)) for g in auditor.interpreters},
    }


def rts_sha256(plan: AuditPlan, classifier: Classifier) -> str | None:
    """Of the weights that RTS works with, given or from the package; None if it takes no part."""
    if RTS.name not in plan.interpreters:
        return None
    path = shipped_weights(classifier) if plan.rts is None else Path(plan.rts)
    return None if path is None else file_sha256(path)


def _threat_model(plan: AuditPlan) -> dict[str, Any]:
    model = make_perturbation(plan.perturbation, plan.eps)
    facts = {"norm": model.name, "eps": model.eps, "unit": model.unit, "bounds": [0.0, 1.0]}
    for name, own in {c.attack: plan.perturbation_of(c) for c in plan.conditions}.items():
        if own.name != model.name:
            facts[f"{name}_eps"], facts[f"{name}_unit"] = own.eps, own.unit
    return facts


def _photo_facts(inspection: Inspection, checked: Sequence[Checked], maps: Sequence[MapCheck]) -> dict[str, Any]:
    return {
        "model_checks": [asdict(check) for check in checked],
        "map_checks": [asdict(check) for check in maps],
        "photos": [asdict(photo) for photo in inspection.photos],
        "skipped": [
            *({"name": skip.name, "reason": skip.reason, "image_id": None} for skip in inspection.skipped),
            *({"name": skip.name, "reason": skip.reason, "image_id": skip.name} for skip in inspection.unusable),
        ],
        "finished": False,
    }
