"""The work on one unit: a few photos, under every condition, seen by every interpreter."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from underfire.attacks.perturbations import Perturbation
from underfire.attacks.trace import Trace
from underfire.auditing.attackers import attack_of, attacked
from underfire.auditing.condition import NOISE, NONE, Condition
from underfire.auditing.given import NOTHING_GIVEN, GivenParts
from underfire.auditing.look import ModelView, calling, look
from underfire.auditing.measured import Treated, rows_of
from underfire.auditing.names import load_parts, make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto, Unit
from underfire.auditing.rows import Row, write_part
from underfire.auditing.store import RunDirectory, map_name, picture_name
from underfire.errors import InputError
from underfire.files import quoted
from underfire.images import PhotoLoader, save_png
from underfire.images.png import from_8bit, read_pngs
from underfire.models.classifier import Classifier
from underfire.models.folded import SharedCopies
from underfire.seeding import generator


@dataclass(frozen=True)
class Event:
    """A piece of work that is done: a condition of a unit, or with ``condition`` None its part file."""

    unit: int
    condition: Condition | None
    photos: int
    seconds: float = 0.0


@dataclass(frozen=True)
class _Batch:
    """Photos as tensors, on the CPU."""

    photos: tuple[PlannedPhoto, ...]
    x: Tensor
    labels: Tensor
    targets: Tensor
    folders: tuple[Path, ...]
    """Where each photo's artifacts go."""

    @property
    def ids(self) -> list[str]:
        return [photo.image_id for photo in self.photos]

    def attackable(self) -> tuple["_Batch", Tensor]:
        """The photos that are not excluded, and their positions."""
        kept = [i for i, photo in enumerate(self.photos) if photo.excluded is None]
        index = torch.tensor(kept, dtype=torch.int64)
        photos, folders = tuple(self.photos[i] for i in kept), tuple(self.folders[i] for i in kept)
        return _Batch(photos, self.x[index], self.labels[index], self.targets[index], folders), index


@dataclass(frozen=True)
class _Perturbed:
    """What a condition made of N images: (N, C, H, W), with how much of its budget, and at what cost."""

    x: Tensor
    perturbation: Perturbation
    used: Tensor
    steps: int = 0
    passes: Sequence[int] = ()
    seconds: float = 0.0
    trace: Trace | None = None
    classes: Tensor | None = None
    """(N,) that the attack left the label for, where that is its goal."""
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """The maps of ``x`` that the attack has taken already, by interpreter; as `look` would."""


@dataclass(frozen=True)
class _Record:
    """What is known about one photo so far."""

    rows: list[Row] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)


class Auditor:
    """Does units of ``plan`` with ``classifier`` and leaves their parts and artifacts in ``directory``.

    Raises `InputError` where an interpreter does not suit the classifier, or an attack cannot be made as planned.
    """

    def __init__(
        self, plan: AuditPlan, classifier: Classifier, directory: RunDirectory, *, given: GivenParts = NOTHING_GIVEN
    ) -> None:
        self.plan = plan
        self.classifier = classifier
        self.directory = directory
        self.loader = PhotoLoader(classifier.preprocessing)
        self._copies = SharedCopies()
        load_parts(
            [name for name in plan.interpreters if name not in given.interpreters],
            [name for name in plan.attacks if name not in given.attacks],
        )
        self.interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts, given=given.interpreters)
        self._attacks = {
            c: attack_of(plan, c, classifier, self.interpreters, given=given.attacks) for c in plan.conditions[2:]
        }

    def run(self, unit: Unit) -> Iterator[Event]:
        """Works on ``unit``, telling each condition when it is done; the last event is its part file.

        The part is written after all artifacts, so a part that exists is a unit that is finished. Raises
        `InputError` with the photo's name where a number is not finite or the file is no longer what it was.
        """
        records = [_Record() for _ in unit.photos]
        with ExitStack() as stack:
            folders = tuple(stack.enter_context(self.directory.new_artifacts(p)) for p in unit.photos)
            everyone = self._load(unit, folders)
            started = time.perf_counter()
            benign = self._look(everyone, everyone.x, everyone.labels)
            unused = everyone.x.new_zeros(len(everyone.photos))
            untouched = _Perturbed(everyone.x, self.plan.perturbation_of(NONE), unused)
            self._record(records, everyone, NONE, untouched, benign, benign)
            yield Event(unit.number, NONE, len(unit.photos), time.perf_counter() - started)

            batch, index = everyone.attackable()
            benign, theirs = benign.part(index), [records[i] for i in index]
            for condition in self.plan.conditions[1:] if batch.photos else ():
                started = time.perf_counter()
                perturbed = self._perturb(condition, batch, benign)
                classes = _explained(condition, batch, perturbed)
                view = self._look(batch, perturbed.x, classes, known=perturbed.maps)
                self._record(theirs, batch, condition, perturbed, view, benign)
                yield Event(unit.number, condition, len(batch.photos), time.perf_counter() - started)

            for folder, record in zip(folders, records, strict=True):
                self.directory.save_maps(folder, record.maps)
        write_part(self.directory.part(unit.number), [row for record in records for row in record.rows])
        yield Event(unit.number, None, len(unit.photos))

    def _load(self, unit: Unit, folders: tuple[Path, ...]) -> _Batch:
        pixels = []
        for photo in unit.photos:
            loaded = self.loader.load(photo.file)
            if loaded.sha256 != photo.sha256:
                raise InputError(
                    f"photo {quoted(photo.file)} has changed since this run began; put it back, or give a new directory"
                )
            pixels.append(loaded.pixels)
        return _Batch(
            unit.photos,
            from_8bit(torch.stack(pixels), self.classifier.dtype),
            torch.tensor([photo.label for photo in unit.photos]),
            torch.tensor([photo.target for photo in unit.photos]),
            folders,
        )

    def _look(
        self, batch: _Batch, x: Tensor, classes: Tensor, *, known: Mapping[str, Tensor] | None = None
    ) -> ModelView:
        return look(self.classifier, self.interpreters, x, classes, names=batch.ids, known=known)

    def _perturb(self, condition: Condition, batch: _Batch, benign: ModelView) -> _Perturbed:
        device = self.classifier.device
        if condition == NOISE:
            model = self.plan.perturbation_of(condition)
            x, used = noise(batch.x, model, seed=self.plan.seed, keys=batch.ids)
            return _Perturbed(x, model, used)
        maps = {name: found.to(device) for name, found in benign.maps.items()}
        with calling(batch.ids), self._copies.used():
            result = attacked(
                self._attacks[condition],
                condition,
                batch.x.to(device),
                batch.labels.to(device),
                batch.targets.to(device),
                benign=maps,
                keys=batch.ids,
            )
        return _Perturbed(
            result.x_adv.detach().cpu(),
            result.perturbation,
            result.used.cpu(),
            result.steps,
            result.passes.tolist(),
            result.seconds / len(batch.photos),
            result.trace,
            result.target.cpu(),
            result.maps,
        )

    def _record(
        self,
        records: Sequence[_Record],
        batch: _Batch,
        condition: Condition,
        perturbed: _Perturbed,
        view: ModelView,
        benign: ModelView,
    ) -> None:
        """Saves the images, looks at what was saved, and adds to each photo's record."""
        paths = [folder / picture_name(condition) for folder in batch.folders]
        saved = save_and_read(perturbed.x, batch.x, perturbed.perturbation, paths)
        classes = _explained(condition, batch, perturbed)
        treated = Treated(
            condition,
            benign_x=batch.x,
            x=perturbed.x,
            benign=benign,
            view=view,
            saved=view if torch.equal(saved, perturbed.x) else self._look(batch, saved, classes),
            classes=batch.targets if condition.is_control else classes,
            perturbation=perturbed.perturbation,
            used=perturbed.used,
            steps=perturbed.steps,
            passes=perturbed.passes,
            seconds=perturbed.seconds,
            trace=perturbed.trace,
        )
        rows = rows_of(batch.photos, treated, seed=self.plan.seed)
        for i, record in enumerate(records):
            record.rows.extend(rows[i])
            for interpreter, maps in view.maps.items():
                record.maps[map_name(condition, interpreter)] = maps[i]


def _explained(condition: Condition, batch: _Batch, perturbed: _Perturbed) -> Tensor:
    """The classes (N,) that maps are taken for: what a person is shown if the attack reaches its goal."""
    goal = condition.wanted
    if goal is None or goal.label == "kept":
        return batch.labels
    if goal.label == "other" and perturbed.classes is not None:
        return perturbed.classes
    return batch.targets


def noise(x: Tensor, model: Perturbation, *, seed: int, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
    """A random change of full size of ``x`` (N, C, H, W), and (N,) how much of the budget of ``model`` it uses."""
    theta = model.harmless(x, [generator(seed, key, "noise") for key in keys])
    return model.image(x, theta), model.size(x, theta)


def save_and_read(x: Tensor, benign: Tensor, model: Perturbation, paths: Sequence[Path]) -> Tensor:
    """The images ``x`` (N, C, H, W) as they come back from 8-bit PNGs at ``paths``, in the type of ``x``.

    Raises RuntimeError if ``x`` or what was saved is beyond the budget of ``model`` around ``benign``: a mistake of
    ours.
    """
    pixels = model.rounded(benign, x)
    for image, path in zip(pixels, paths, strict=True):
        save_png(from_8bit(image), path)
    saved = read_pngs(paths, (x.shape[1], x.shape[2], x.shape[3]), x.dtype)
    for images, what in ((x, "adversarial"), (saved, "saved")):
        beyond = torch.nonzero(~model.contains(benign, images))
        if len(beyond):
            raise RuntimeError(
                f"the {what} image of '{paths[int(beyond[0])]}' is outside the budget of {model.eps:g} ({model.unit})"
            )
    return saved
