"""Attacks of a study's own, resumable: audits of its photos, and ADV² on an audit's photos with another aim.

An audit always aims at the benign map and asks for one confidence. A `Variant` differs from it in that; it begins from
what the audit left of each photo, so that label, target, exclusion and benign map are the audit's.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from underfire.attacks.joint import JointAttack
from underfire.auditing.condition import NONE, PGD, Condition
from underfire.auditing.distances import distances_at, map_distances
from underfire.auditing.locks import holding
from underfire.auditing.look import View, calling, look
from underfire.auditing.measured import Treated, rows_of
from underfire.auditing.plan import AuditPlan, PlannedPhoto, Unit, units
from underfire.auditing.rows import Row, read_rows, write_part
from underfire.auditing.runner import run_audit
from underfire.auditing.store import MAPS_FILE, RunDirectory, map_name, picture_name
from underfire.auditing.targets import NO_TARGET
from underfire.auditing.unit import Event, save_and_read
from underfire.errors import InputError
from underfire.images import Photo, PhotoSet
from underfire.images.files import quoted
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.text import plural
from underfire.studies.pictures import opened
from underfire.studies.source import Note, Run, read_run


@dataclass(frozen=True)
class Variant:
    """ADV² on one interpreter, aimed otherwise than in an audit.

    Attributes:
        folder: where its rows and artifacts go. The rows' ``l1`` and ``iou_*`` are distances to the map aimed at.
        interpreter: under attack.
        attack: on it.
        aim: from a photo to the map (h, w) in [0, 1] to reach; None leaves the photo out.
        controls: whether the maps of the benign photos and of those under PGD are compared with the aim as well.
    """

    folder: Path
    interpreter: Interpreter
    attack: JointAttack
    aim: Callable[[PlannedPhoto], Tensor | None]
    controls: bool = False

    @property
    def condition(self) -> Condition:
        """The condition of its rows."""
        return Condition.on("adv2", self.interpreter.name)


@dataclass(frozen=True)
class Shown:
    """What a variant left of one photo to look at: 8-bit pictures by path, and maps (h, w) on the native grid."""

    benign: Path
    adversarial: Path
    benign_map: Tensor
    adversarial_map: Tensor
    """Of the image as saved, for the target."""
    aim: Tensor


class _Noting:
    """A listener of the runner that tells of finished parts."""

    def __init__(self, what: str, note: Note) -> None:
        self._what, self._note = what, note
        self._parts = self._finished = 0

    def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:  # noqa: ARG002
        self._parts, self._finished = len(todo) + finished, finished

    def advanced(self, event: Event) -> None:
        if event.condition is None:
            self._finished += 1
            self._note(_progress(self._what, self._finished, self._parts))


def audit_of(
    plan: AuditPlan, photos: Sequence[PlannedPhoto], classifier: Classifier, path: Path, *, what: str, note: Note
) -> Run:
    """The audit of ``photos`` with ``plan`` in the directory ``path``, made or gone on with.

    Raises:
        InputError: ``path`` holds an audit with another plan, model or set of photos; a photo is no longer what it was.
    """
    found = PhotoSet(tuple(map(_as_found, photos)), ())
    run_audit(replace(plan, limit=None), found, classifier, path, listener=_Noting(what, note))
    run = read_run(path)
    here = {photo.image_id: photo.sha256 for photo in run.photos}
    lost = next((photo for photo in photos if here.get(photo.image_id) != photo.sha256), None)
    if lost is not None:
        raise InputError(f"photo {quoted(lost.file)} is damaged, or another one than before; put it back")
    return run


def rows_under(run: Run, variant: Variant, *, what: str, note: Note) -> list[Row]:
    """The rows of ``variant`` on the photos of ``run`` that are attacked and have an aim.

    Units that are finished are left as they are; one that was interrupted is done again, with the same numbers.
    """
    directory = RunDirectory(variant.folder)
    share = list(units(run.photos, batch_size=run.plan.batch_size))
    with holding(RunDirectory(run.path).lock_file, (unit.number for unit in share)):
        todo = [unit for unit in share if not directory.has_part(unit.number)]
        for place, unit in enumerate(todo, start=len(share) - len(todo) + 1):
            directory.sweep(unit)
            _attack(run, variant, directory, unit)
            note(_progress(what, place, len(share)))
    return read_rows(variant.folder)


def taking_part(photos: Sequence[PlannedPhoto], skipped: int = 0) -> str:
    """How many of ``photos`` are attacked, and why the others are not; ``skipped`` files could not be used at all."""
    reasons = Counter(photo.excluded for photo in photos if photo.excluded is not None)
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    left_out = f" (not attacked: {why})" if why else ""
    attacked = f"{len(photos) - reasons.total()} of {plural(len(photos), 'photo')} attacked{left_out}."
    return f"{attacked} {plural(skipped, 'file')} could not be used." if skipped else attacked


def benign_map(run: Run, photo: PlannedPhoto, *, interpreter: str) -> Tensor:
    """The map (h, w) of the benign ``photo`` for its label, as the audit ``run`` took it."""
    return _map(run.path, photo, map_name(NONE, interpreter))


def shown(run: Run, variant: Variant, photo: PlannedPhoto) -> Shown:
    """What ``variant`` left of ``photo``."""
    name, condition = variant.interpreter.name, variant.condition
    folder = RunDirectory(variant.folder).artifacts / photo.key
    return Shown(
        run.picture(photo, NONE),
        folder / picture_name(condition),
        benign_map(run, photo, interpreter=name),
        _map(variant.folder, photo, map_name(condition, name)),
        _map(variant.folder, photo, f"aim/{name}"),
    )


def _attack(run: Run, variant: Variant, directory: RunDirectory, unit: Unit) -> None:
    """Attacks the photos of ``unit`` and leaves their artifacts, then their part."""
    aims = {photo: variant.aim(photo) for photo in unit.photos if photo.excluded is None}
    aimed = {photo: aim for photo, aim in aims.items() if aim is not None}
    rows: list[Row] = []
    if aimed:
        rows = _attack_all(run, variant, directory, aimed)
        if variant.controls:
            rows += _controls(run, variant, aimed)
    write_part(directory.part(unit.number), rows)


def _attack_all(run: Run, variant: Variant, directory: RunDirectory, aimed: dict[PlannedPhoto, Tensor]) -> list[Row]:
    interpreter, condition = variant.interpreter, variant.condition
    classifier, name = interpreter.classifier, interpreter.name
    photos = tuple(aimed)
    names = [photo.image_id for photo in photos]
    x = _pictures(run, photos, NONE, classifier.dtype)
    labels, targets = (torch.tensor([getattr(photo, kind) for photo in photos]) for kind in ("label", "target"))
    known = torch.stack([benign_map(run, photo, interpreter=name) for photo in photos]).to(x.dtype)
    benign = look(classifier, (interpreter,), x, labels, names=names, known={name: known})
    goal = torch.stack(list(aimed.values())).to(x.dtype)
    with calling(names):
        result = variant.attack(
            x.to(classifier.device), targets.to(classifier.device), target_map=goal.to(classifier.device), keys=names
        )
    x_adv = result.x_adv.detach().cpu()
    with ExitStack() as stack:
        folders = [stack.enter_context(directory.new_artifacts(photo.key)) for photo in photos]
        paths = [folder / picture_name(condition) for folder in folders]
        saved = save_and_read(x_adv, x, result.perturbation, paths)
        view = look(classifier, (interpreter,), x_adv, targets, names=names, known=result.maps)
        saved_view = look(classifier, (interpreter,), saved, targets, names=names)
        for folder, own, aim in zip(folders, saved_view.maps[name], goal, strict=True):
            kept = {map_name(condition, name): own, f"aim/{name}": aim}
            save_file({key: m.float().contiguous().clone() for key, m in kept.items()}, folder / MAPS_FILE)
    treated = Treated(
        condition,
        benign_x=x,
        x=x_adv,
        benign=View(benign.probabilities, {name: goal}),
        view=view,
        saved=saved_view,
        targets=targets,
        perturbation=result.perturbation,
        used=result.used.cpu(),
        steps=result.steps,
        passes=result.passes.tolist(),
        seconds=result.seconds / len(photos),
        trace=result.trace,
    )
    return [row for rows in rows_of(photos, treated, seed=run.plan.seed) for row in rows]


def _controls(run: Run, variant: Variant, aimed: dict[PlannedPhoto, Tensor]) -> list[Row]:
    """The audit's own rows of no attack and of PGD, the distances of their maps being those to the aim."""
    interpreter, name = variant.interpreter, variant.interpreter.name
    photos = tuple(aimed)
    x = _pictures(run, photos, PGD, interpreter.classifier.dtype)
    targets = torch.tensor([photo.target for photo in photos])
    attacked = look(interpreter.classifier, (interpreter,), x, targets, names=[p.image_id for p in photos])
    base = {(row.image_id, row.attack): row for row in run.records if row.interpreter == name}
    found = []
    for photo, own in zip(photos, attacked.maps[name], strict=True):
        benign, aim = benign_map(run, photo, interpreter=name), aimed[photo]
        computed = _map(run.path, photo, map_name(PGD, name))
        found.append(_against(base[photo.image_id, "none"], benign, benign, aim))
        found.append(_against(base[photo.image_id, "pgd"], computed, own, aim))
    return found


def _against(row: Row, computed: Tensor, saved: Tensor, aim: Tensor) -> Row:
    """``row`` with the distances of its map (h, w), as ``computed`` and of the image as ``saved``, from ``aim``."""
    here, there = (distances_at(map_distances(maps[None], aim[None].to(maps.dtype)), 0) for maps in (computed, saved))
    return replace(row, distances=here, saved=replace(row.saved, distances=there))


def _pictures(run: Run, photos: Sequence[PlannedPhoto], condition: Condition, dtype: torch.dtype) -> Tensor:
    """The saved images (N, 3, H, W) of ``photos``."""
    return opened([run.picture(photo, condition) for photo in photos], dtype)


def _map(made: Path, photo: PlannedPhoto, key: str) -> Tensor:
    """The map ``key`` of ``photo`` in the directory ``made``, of an audit or of a variant."""
    path = RunDirectory(made).artifacts / photo.key / MAPS_FILE
    try:
        return load_file(path)[key]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{quoted(path)} is damaged or lacks the map '{key}'; delete {quoted(made)} and run the study again"
        ) from error


def _as_found(photo: PlannedPhoto) -> Photo:
    """``photo`` as a source would have named it."""
    return Photo(
        photo.image_id,
        Path(photo.file).absolute(),
        photo.label if photo.label_given else None,
        None if photo.excluded == NO_TARGET else photo.target,
    )


def _progress(what: str, finished: int, parts: int) -> str:
    return f"{what}: part {finished}/{parts}"
