"""Attacks of a study's own, resumable: audits of its photos, and ADV² on an audit's photos towards another map.

An audit always aims at the benign map and asks for one confidence. A `Rerun` differs from it in that; it begins from
what the audit left of each photo, so that label, target, exclusion and benign map are the audit's.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from underfire.attacks.joint import JointAttack
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import NONE, PGD, Condition
from underfire.auditing.distances import distances_at, map_distances
from underfire.auditing.locks import holding
from underfire.auditing.look import ModelView, calling, look
from underfire.auditing.maps import read_maps
from underfire.auditing.measured import Treated, rows_of
from underfire.auditing.plan import AuditPlan, PlannedPhoto, Unit, units
from underfire.auditing.rows import Row, write_part
from underfire.auditing.run import Run, read_run
from underfire.auditing.runner import run_audit
from underfire.auditing.store import MAPS_FILE, RunDirectory, map_name, picture_name
from underfire.auditing.targets import NO_TARGET
from underfire.auditing.unit import Event, save_and_read
from underfire.auditing.verification import OwnRows, verified_rows
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import Photo, PhotoSet
from underfire.images.png import read_pngs
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.text import plural
from underfire.studies.source import Note

_TARGET_MAP = "aim/{}"
"""The name among a photo's maps of the target map, by interpreter."""


@dataclass(frozen=True)
class Rerun:
    """ADV² on one interpreter, towards another map or with another setting than in an audit.

    Attributes:
        folder: where its rows and artifacts go. The rows' ``l1`` and ``iou_*`` are distances to the target map.
        interpreter: under attack.
        attack: on it.
        target_map: from a photo to the map (h, w) in [0, 1] to reach; None leaves the photo out.
        controls: whether the maps of the benign photos and of those under PGD are compared with the target map too.
    """

    folder: Path
    interpreter: Interpreter
    attack: JointAttack
    target_map: Callable[[PlannedPhoto], Tensor | None]
    controls: bool = False

    @property
    def condition(self) -> Condition:
        """The condition of its rows."""
        return _adv2_on(self.interpreter)

    @property
    def rows(self) -> OwnRows:
        """What its rows are."""
        return OwnRows((self.condition, *((NONE, PGD) if self.controls else ())), self.interpreter.name)

    def picture(self, photo: PlannedPhoto) -> Path:
        """The 8-bit PNG of ``photo`` as attacked."""
        return RunDirectory(self.folder).artifact(photo, picture_name(self.condition))

    def maps(self, photo: PlannedPhoto, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The map (h, w) of `picture` for the target class, and the target map; at most of ``size``."""
        name = self.interpreter.name
        keys = map_name(self.condition, name), _TARGET_MAP.format(name)
        own, target = (_map(self.folder, photo, key, size) for key in keys)
        return own, target


class _PartReporter:
    """A listener of the runner that reports finished parts."""

    def __init__(self, what: str, note: Note) -> None:
        self._what, self._note = what, note
        self._parts = self._finished = 0

    def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:  # noqa: ARG002 - a listener's
        self._parts, self._finished = len(todo) + finished, finished

    def advanced(self, event: Event) -> None:
        if event.condition is None:
            self._finished += 1
            self._note(f"{self._what}: part {self._finished}/{self._parts}")


def audit_of(
    plan: AuditPlan, photos: Sequence[PlannedPhoto], classifier: Classifier, path: Path, *, what: str, note: Note
) -> Run:
    """The audit of ``photos`` with ``plan`` in the directory ``path``, made or resumed.

    Raises:
        InputError: ``path`` holds an audit with another plan, model or set of photos; a photo is no longer what it was.
    """
    found = PhotoSet(tuple(map(_as_found, photos)), ())
    run_audit(replace(plan, limit=None), found, classifier, path, listener=_PartReporter(what, note))
    run = read_run(path)
    here = {photo.image_id: photo.sha256 for photo in run.photos}
    lost = next((photo for photo in photos if here.get(photo.image_id) != photo.sha256), None)
    if lost is not None:
        raise InputError(f"photo {quoted(lost.file)} is damaged, or another one than before; put it back")
    return run


def adv2_of(plan: AuditPlan, interpreter: Interpreter) -> JointAttack:
    """The attack on ``interpreter`` that ``plan`` means by ADV²; raises `InputError` if it cannot be made."""
    return attack_of(plan, _adv2_on(interpreter), interpreter.classifier, [interpreter])


def rerun_rows(run: Run, rerun: Rerun, *, what: str, note: Note) -> list[Row]:
    """The rows of ``rerun`` on the photos of ``run`` that are attacked and have a target map.

    Units that are finished are left as they are; one that was interrupted is done again, with the same numbers.
    """
    directory = RunDirectory(rerun.folder)
    share = list(units(run.photos, batch_size=run.plan.batch_size))
    with holding(RunDirectory(run.path).lock_file, (unit.number for unit in share)):
        finished = verified_rows(directory, run.facts, rerun.rows)
        todo = [unit for unit in share if unit.number not in finished]
        for place, unit in enumerate(todo, start=len(share) - len(todo) + 1):
            directory.sweep(unit)
            goals = {p: goal for p in unit.photos if p.excluded is None and (goal := rerun.target_map(p)) is not None}
            rows = _attack(run, rerun, directory, goals) if goals else []
            # Written after the artifacts: a part that is there is a unit that is finished.
            write_part(directory.part(unit.number), rows)
            note(f"{what}: part {place}/{len(share)}")
        made = verified_rows(directory, run.facts, rerun.rows)
    return [row for number in sorted(made) for row in made[number]]


def taking_part(photos: Sequence[PlannedPhoto], skipped: int = 0) -> str:
    """How many of ``photos`` are attacked, and why the others are not; ``skipped`` files could not be used at all."""
    reasons = Counter(photo.excluded for photo in photos if photo.excluded is not None)
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    left_out = f" (not attacked: {why})" if why else ""
    attacked = f"{len(photos) - reasons.total()} of {plural(len(photos), 'photo')} attacked{left_out}."
    return f"{attacked} {plural(skipped, 'file')} could not be used." if skipped else attacked


def benign_map(run: Run, photo: PlannedPhoto, *, interpreter: str) -> Tensor:
    """The map (h, w) of the benign ``photo`` for its label, as the audit ``run`` took it."""
    return _map(run.path, photo, map_name(NONE, interpreter), run.input_size)


def _attack(run: Run, rerun: Rerun, directory: RunDirectory, goals: Mapping[PlannedPhoto, Tensor]) -> list[Row]:
    """Attacks photos towards their target maps ``goals`` (h, w), and leaves their artifacts.

    The target maps stand where an audit has the benign ones, so that the rows have the distances to them.
    """
    interpreter, condition, photos = rerun.interpreter, rerun.condition, tuple(goals)
    classifier, name = interpreter.classifier, interpreter.name
    device, names = classifier.device, [photo.image_id for photo in photos]
    x = read_pngs([run.picture(photo, NONE) for photo in photos], run.picture_shape, classifier.dtype)
    labels, targets = (torch.tensor([getattr(photo, kind) for photo in photos]) for kind in ("label", "target"))
    known = torch.stack([benign_map(run, photo, interpreter=name) for photo in photos]).to(x.dtype)
    benign = look(classifier, (interpreter,), x, labels, names=names, known={name: known})
    goal = torch.stack(list(goals.values())).to(x.dtype)
    with calling(names):
        result = rerun.attack(x.to(device), targets.to(device), target_map=goal.to(device), keys=names)
    x_adv = result.x_adv.detach().cpu()
    with ExitStack() as stack:
        folders = [stack.enter_context(directory.new_artifacts(photo)) for photo in photos]
        paths = [folder / picture_name(condition) for folder in folders]
        saved = save_and_read(x_adv, x, result.perturbation, paths)
        view = look(classifier, (interpreter,), x_adv, targets, names=names, known=result.maps)
        saved_view = look(classifier, (interpreter,), saved, targets, names=names)
        for folder, own, wanted in zip(folders, saved_view.maps[name], goal, strict=True):
            maps = {map_name(condition, name): own, _TARGET_MAP.format(name): wanted}
            directory.save_maps(folder, maps)
    treated = Treated(
        condition,
        benign_x=x,
        x=x_adv,
        benign=ModelView(benign.probabilities, {name: goal}),
        view=view,
        saved=saved_view,
        classes=targets,
        perturbation=result.perturbation,
        used=result.used.cpu(),
        steps=result.steps,
        passes=result.passes.tolist(),
        seconds=result.seconds / len(photos),
        trace=result.trace,
    )
    rows = [row for rows in rows_of(photos, treated, seed=run.plan.seed) for row in rows]
    return rows + (_controls(run, rerun, goals) if rerun.controls else [])


def _controls(run: Run, rerun: Rerun, goals: Mapping[PlannedPhoto, Tensor]) -> list[Row]:
    """The audit's own rows of no attack and of PGD, the distances of their maps being those to the target maps."""
    interpreter, name, photos = rerun.interpreter, rerun.interpreter.name, tuple(goals)
    x = read_pngs([run.picture(photo, PGD) for photo in photos], run.picture_shape, interpreter.classifier.dtype)
    targets = torch.tensor([photo.target for photo in photos])
    attacked = look(interpreter.classifier, (interpreter,), x, targets, names=[p.image_id for p in photos])
    base = {(row.image_id, row.condition): row for row in run.records if row.interpreter == name}
    found = []
    for photo, saved in zip(photos, attacked.maps[name], strict=True):
        benign, goal = benign_map(run, photo, interpreter=name), goals[photo]
        computed = _map(run.path, photo, map_name(PGD, name), run.input_size)
        found.append(_measured_against(base[photo.image_id, NONE], benign, benign, goal))
        found.append(_measured_against(base[photo.image_id, PGD], computed, saved, goal))
    return found


def _measured_against(row: Row, computed: Tensor, saved: Tensor, goal: Tensor) -> Row:
    """``row`` with the distances of its map (h, w), as ``computed`` and of the image as ``saved``, from ``goal``."""
    here, there = (distances_at(map_distances(maps[None], goal[None].to(maps.dtype)), 0) for maps in (computed, saved))
    return replace(row, distances=here, saved=replace(row.saved, distances=there))


def _map(folder: Path, photo: PlannedPhoto, key: str, size: tuple[int, int]) -> Tensor:
    """The map ``key``, at most of ``size``, of ``photo`` in the directory ``folder``, of an audit or of a rerun."""
    path = RunDirectory(folder).artifact(photo, MAPS_FILE)
    try:
        return torch.from_numpy(read_maps(path, size)[key])
    except (InputError, KeyError) as error:
        raise InputError(
            f"{quoted(path)} is damaged or lacks the map '{key}'; delete {quoted(folder)} and run the study again"
        ) from error


def _as_found(photo: PlannedPhoto) -> Photo:
    """``photo`` as a source would have named it."""
    label = photo.label if photo.label_given else None
    target = None if photo.excluded == NO_TARGET else photo.target
    return Photo(photo.image_id, Path(photo.file).absolute(), label, target)


def _adv2_on(interpreter: Interpreter) -> Condition:
    return Condition.on("adv2", interpreter.name)
