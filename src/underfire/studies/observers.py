"""Observer models: other classifiers, and their interpreters, on the images of an audit as they were saved.

An observer model is shown the whole 8-bit image that the audited one saw, brought to its own input size: resized,
bicubic, and cut only where the shapes differ. Benign, noisy and attacked images take the same way, so that what
resizing alone does to a map is in none of the differences.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from underfire import metrics
from underfire.auditing.cache import Cache, cache_key
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.look import calling, predict
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.run import Run
from underfire.decoding import decoded
from underfire.errors import InputError
from underfire.images import load_photo
from underfire.images.png import from_8bit
from underfire.interpreters import RTS, Interpreter
from underfire.interpreters.registry import INTERPRETERS
from underfire.models.classifier import Classifier
from underfire.studies.source import Note, attacked


@dataclass(frozen=True)
class Distance:
    """How far one photo's map is from the one it is compared with: L1, and IoU at half of full brightness."""

    l1: float
    iou_50: float


Compared = Literal["label", "target", "seen"]
"""Two maps, of the image and of the benign one: of the label, of the target class, or of the target class against the
benign one of the label, which a person compares when the prediction has become the target."""


@dataclass(frozen=True)
class Observation:
    """One photo under one condition: what the observer model predicts, and how its maps moved, by interpreter."""

    image_id: str
    condition: Condition
    prediction: int
    moves: Mapping[str, Mapping[Compared, Distance]]


@dataclass(frozen=True)
class Observer:
    """Another classifier with those of the audit's interpreters that it can have.

    Attributes:
        name: what the table calls it, and no other classifier.
        classifier: the model.
        interpreters: on it; at least one.
        left_out: in words, the audit's other interpreters and why they are missing.
    """

    name: str
    classifier: Classifier
    interpreters: tuple[Interpreter, ...]
    left_out: tuple[str, ...]


def check_observer(other: Classifier, name: str, class_names: Sequence[str], fingerprint: str) -> None:
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


def observers_of(run: Run, classifiers: Sequence[Classifier]) -> list[Observer]:
    """Each of ``classifiers`` with the interpreters of ``run``, numbered where a name comes again.

    Those whose every map takes many passes, as MASK's, are left out. RTS takes part where there are weights for the
    classifier in the package.

    Raises:
        InputError: as `check_observer`, or a classifier can have none of the interpreters.
    """
    names = [run.facts.model.name]
    found = []
    for classifier in classifiers:
        before = names.count(classifier.name)
        names.append(classifier.name)
        found.append(_observer(run, classifier, f"{classifier.name} ({before + 1})" if before else classifier.name))
    return found


def observe(run: Run, observer: Observer, work: Path, *, note: Note) -> list[Observation]:
    """What ``observer`` sees of every attacked photo of ``run``, under every condition, the benign input first.

    Each photo is cached in ``work`` when it is done.

    Raises:
        InputError: an image of the run is missing or damaged, or a number is not finite.
    """
    interpreters = [(interpreter.name, weights_of(interpreter)) for interpreter in observer.interpreters]
    photos = attacked(run.photos)
    cache = Cache(
        work / cache_key(run, observer.classifier.fingerprint(), interpreters), encode=_encoded, decode=_decoded
    )
    pieces = cache.get_or_make(
        photos,
        lambda photo: photo.key,
        lambda some: [_observed(run, observer, photo) for photo in some],
        made=lambda count: note(f"{observer.name}: photo {count} of {len(photos)}"),
    )
    return [observation for _, some in pieces for observation in some]


def resizing(run: Run, classifier: Classifier) -> str:
    """What was done to the images' size for ``classifier``, in words."""
    (h, w), (height, width) = run.input_size, classifier.input_size
    if (h, w) == (height, width):
        return f"as they are, {h} × {w}"
    cut = "" if h * width == w * height else " and cut to its shape"
    return f"resized from {h} × {w} to {height} × {width} pixels{cut}"


def _observer(run: Run, classifier: Classifier, name: str) -> Observer:
    model = run.facts.model
    check_observer(classifier, model.name, tuple(model.class_names.values()), model.fingerprint)
    found: list[Interpreter] = []
    left_out = []
    for wanted in run.plan.interpreters:
        cls = INTERPRETERS.find(wanted)
        if cls.slow:
            left_out.append(f"{wanted} (each of its maps takes {cls.passes_per_map} passes)")
            continue
        try:
            found.extend(make_interpreters((wanted,), classifier))
        except InputError as error:
            left_out.append(f"{wanted} ({str(error).removesuffix('.')})")
    if not found:
        raise InputError(f"model '{classifier.name}' can have none of the run's interpreters: {', '.join(left_out)}")
    return Observer(name, classifier, tuple(found), tuple(left_out))


def _observed(run: Run, observer: Observer, photo: PlannedPhoto) -> list[Observation]:
    classifier = observer.classifier
    conditions = [condition for condition in run.plan.target_conditions if condition != NONE]
    paths = [run.picture(photo, condition) for condition in (NONE, *conditions)]
    # The pictures are cut out already.
    preprocessing = replace(classifier.preprocessing, resize=min(classifier.input_size))
    pixels = [load_photo(path, preprocessing).pixels for path in paths]
    x = from_8bit(torch.stack(pixels), classifier.dtype).to(classifier.device)
    ids = [photo.image_id] * len(x)
    predictions = predict(classifier, x, names=ids).argmax(dim=1).tolist()
    moves: list[dict[str, dict[Compared, Distance]]] = [{} for _ in conditions]
    for interpreter in observer.interpreters:
        with calling(ids):
            label, target = (
                interpreter(x, torch.full((len(x),), c, device=x.device), keys=ids).cpu()
                for c in (photo.label, photo.target)
            )
        pairs = ((label[1:], label[:1]), (target[1:], target[:1]), (target[1:], label[:1]))
        distances = [_distances(maps, benign) for maps, benign in pairs]
        for move, found in zip(moves, zip(*distances, strict=True), strict=True):
            move[interpreter.name] = dict(zip(get_args(Compared), found, strict=True))
    return [
        Observation(photo.image_id, condition, prediction, found)
        for condition, prediction, found in zip((NONE, *conditions), predictions, ({}, *moves), strict=True)
    ]


def _distances(maps: Tensor, benign: Tensor) -> list[Distance]:
    """Of ``maps`` (N, h, w) from the one map ``benign`` (1, h, w)."""
    same = benign.expand_as(maps)
    pairs = zip(metrics.l1(maps, same).tolist(), metrics.iou(maps, same, threshold=0.5).tolist(), strict=True)
    return [Distance(l1, iou) for l1, iou in pairs]


def weights_of(interpreter: Interpreter) -> str | None:
    """SHA-256 of the weights of an interpreter that has some beside the classifier's, None for others."""
    if not isinstance(interpreter, RTS):
        return None
    digest = hashlib.sha256()
    for name, value in sorted(interpreter.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _encoded(observations: Sequence[Observation]) -> dict[str, Any]:
    """For a cache's file; "sights" is what observations were called when its format was fixed."""
    return {"sights": [{**asdict(o), "condition": str(o.condition)} for o in observations]}


def _decoded(content: Any) -> list[Observation]:
    return [
        Observation(
            entry["image_id"],
            Condition.parse(entry["condition"]),
            entry["prediction"],
            {
                name: {kind: decoded(Distance, moves[kind]) for kind in get_args(Compared)}
                for name, moves in entry["moves"].items()
            },
        )
        for entry in content["sights"]
    ]
