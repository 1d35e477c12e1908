"""Another classifier and its interpreters look at the images of an audit, as they were saved.

The other classifier is shown the whole 8-bit image that the audited one saw, brought to its own input size: resized,
bicubic, and cut only where the shapes differ. Benign, noisy and attacked images take the same way, so that what
resizing alone does to a map is in none of the differences.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire import metrics
from underfire.auditing.condition import NONE
from underfire.auditing.look import calling, predict
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import REFITTED, PlannedPhoto
from underfire.errors import InputError
from underfire.images import load_photo
from underfire.images.levels import from_8bit
from underfire.interpreters import RTS, Interpreter
from underfire.models.classifier import Classifier
from underfire.studies.cells import Distance
from underfire.studies.kept import identity, kept
from underfire.studies.source import Note, Run, attacked


@dataclass(frozen=True)
class MapMoves:
    """What an image did to one interpreter's maps of the other classifier, against those of the benign image.

    ``label``: the map of the label, before and after; ``target``: that of the target class, before and after;
    ``seen``: the map of the target class against the benign one of the label, which is what a person sees who is shown
    the explanation of a prediction that has become the target.
    """

    label: Distance
    target: Distance
    seen: Distance


@dataclass(frozen=True)
class Sight:
    """One photo under one condition: what the other classifier predicts, and how its maps moved, by interpreter."""

    image_id: str
    condition: str
    prediction: int
    moves: dict[str, MapMoves]


@dataclass(frozen=True)
class Onlooker:
    """Another classifier with those of the audit's interpreters that it can have.

    Attributes:
        name: what the table calls it, and no other classifier.
        left_out: in words, the others and why.
    """

    name: str
    classifier: Classifier
    interpreters: tuple[Interpreter, ...]
    left_out: tuple[str, ...]


def check_other(other: Classifier, name: str, class_names: Sequence[str], fingerprint: str) -> None:
    """Refuses ``other`` for images made against the classifier of this name, these classes and this fingerprint.

    Raises:
        InputError: ``other`` is that classifier, or has other classes.
    """
    if other.fingerprint() == fingerprint:
        raise InputError(f"model '{other.name}' is the audited one; give another to show its images to")
    if other.class_names != tuple(class_names):
        raise InputError(
            f"model '{other.name}' has {len(other.class_names)} classes that are not the {len(class_names)} of the "
            f"audited model '{name}', so that no label can transfer; give a model of the same classes, with "
            "class-names=FILE where only the names differ"
        )


def onlookers(run: Run, classifiers: Sequence[Classifier]) -> list[Onlooker]:
    """Each of ``classifiers`` as `onlooker` has it, numbered where a name comes again."""
    names = [str(run.facts["model"]["name"])]
    found = []
    for classifier in classifiers:
        before = names.count(classifier.name)
        names.append(classifier.name)
        found.append(onlooker(run, classifier, f"{classifier.name} ({before + 1})" if before else classifier.name))
    return found


def onlooker(run: Run, classifier: Classifier, name: str) -> Onlooker:
    """``classifier`` with the interpreters of ``run``.

    MASK is left out: it fits every map anew, at hundreds of passes for each. RTS takes part where there are weights for
    ``classifier`` in the package.

    Raises:
        InputError: as `check_other`, or ``classifier`` can have none of the interpreters.
    """
    model = run.facts["model"]
    check_other(classifier, model["name"], tuple(model["class_names"].values()), model["fingerprint"])
    found: list[Interpreter] = []
    left_out = []
    for wanted in run.plan.interpreters:
        if wanted in REFITTED:
            left_out.append(f"{wanted} (it fits every map anew)")
            continue
        try:
            found.extend(make_interpreters((wanted,), classifier))
        except InputError as error:
            left_out.append(f"{wanted} ({str(error).removesuffix('.')})")
    if not found:
        raise InputError(f"model '{classifier.name}' can have none of the run's interpreters: {', '.join(left_out)}")
    return Onlooker(name, classifier, tuple(found), tuple(left_out))


def sights(run: Run, other: Onlooker, work: Path, *, note: Note) -> list[Sight]:
    """What ``other`` sees in every attacked photo of ``run``, under every condition.

    Each photo is kept in ``work`` when it is done, under a name that nothing else has, and not looked at again.

    Raises:
        InputError: an image of the run is missing or damaged, or a number is not finite.
    """
    interpreters = [(interpreter.name, _weights(interpreter)) for interpreter in other.interpreters]
    pieces = kept(
        attacked(run.photos),
        work / identity(run, other.classifier.fingerprint(), interpreters),
        measure=lambda photo: {"sights": [asdict(sight) for sight in _look(run, other, photo)]},
        read=lambda content: [_sight(entry) for entry in content["sights"]],
        what=other.name,
        note=note,
    )
    return [sight for _, some in pieces for sight in some]


def _look(run: Run, other: Onlooker, photo: PlannedPhoto) -> list[Sight]:
    classifier = other.classifier
    names = [str(c) for c in run.plan.conditions if c != NONE]
    paths = [run.picture(photo, condition) for condition in run.plan.conditions]
    side = min(classifier.input_size)
    pixels = [load_photo(path, resize=side, input_size=classifier.input_size).pixels for path in paths]
    x = from_8bit(torch.stack(pixels), classifier.dtype).to(classifier.device)
    ids = [photo.image_id] * len(x)
    predictions = predict(classifier, x, names=ids).argmax(dim=1).tolist()
    moves: list[dict[str, MapMoves]] = [{} for _ in names]
    for interpreter in other.interpreters:
        with calling(ids):
            label, target = (
                interpreter(x, torch.full((len(x),), c, device=x.device), keys=ids).cpu()
                for c in (photo.label, photo.target)
            )
        gaps = (_gaps(label[1:], label[:1]), _gaps(target[1:], target[:1]), _gaps(target[1:], label[:1]))
        for i in range(len(names)):
            moves[i][interpreter.name] = MapMoves(*(gap[i] for gap in gaps))
    benign = Sight(photo.image_id, str(NONE), predictions[0], {})
    attacks = [Sight(photo.image_id, n, p, m) for n, p, m in zip(names, predictions[1:], moves, strict=True)]
    return [benign, *attacks]


def _gaps(maps: Tensor, benign: Tensor) -> list[Distance]:
    same = benign.expand_as(maps)
    pairs = zip(metrics.l1(maps, same).tolist(), metrics.iou(maps, same, threshold=0.5).tolist(), strict=True)
    return [Distance(l1, iou) for l1, iou in pairs]


def _weights(interpreter: Interpreter) -> str | None:
    """SHA-256 of the weights of an interpreter that has some beside the classifier's, None for others."""
    if not isinstance(interpreter, RTS):
        return None
    digest = hashlib.sha256()
    for name, value in sorted(interpreter.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _sight(entry: dict[str, Any]) -> Sight:
    moves = {
        name: MapMoves(**{kind: Distance(**gap) for kind, gap in gaps.items()}) for name, gaps in entry["moves"].items()
    }
    return Sight(entry["image_id"], entry["condition"], entry["prediction"], moves)


def sizes(run: Run, classifier: Classifier) -> str:
    """What was done to the images' size, in words."""
    (h, w), (height, width) = run.facts["model"]["input_size"], classifier.input_size
    if (h, w) == (height, width):
        return f"as they are, {h} × {w}"
    cut = "" if h * width == w * height else " and cut to its shape"
    return f"resized from {h} × {w} to {height} × {width} pixels{cut}"
