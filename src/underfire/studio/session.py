"""What one server does for its page: a photo, one attack at a time, and what became of it, all in memory."""

import base64
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from underfire.attacks.perturbations import Linf
from underfire.errors import InputError
from underfire.images import PhotoLoader, Pixels, builtin_photos
from underfire.images.decode import decode, pixels_of
from underfire.images.png import png_bytes
from underfire.models.classifier import Classifier
from underfire.present.pictures import Bytes, amplified, data_uri, gain_for, overlay
from underfire.studio.evidence import archive
from underfire.studio.shelf import OfferedModel
from underfire.studio.trial import BenignPhoto, Glance, Scored, SeenIterate, Trial
from underfire.studio.wish import Wish

Phase = Literal["idle", "preparing", "running", "stopping", "done", "stopped", "failed"]

_SIDE = 448  # pixels of a picture that is sent while an attack runs
_PATIENCE = 20.0  # seconds that an attack has to end when the server does


class BusyError(InputError):
    """Something else is being worked on."""


@dataclass(frozen=True)
class DroppedPhoto:
    """The bytes of a photo that was dropped on the page, and what people see of it."""

    data: bytes
    preview: str
    size: tuple[int, int]


@dataclass
class AttackState:
    """The course of the attack that is running, or ran last; guarded by the session's lock.

    Attributes:
        number: of the attack, from 1 on; 0 before the first.
        wish: what was asked for.
        points: so far.
        benign, frame, result: what the page draws, as plain values.
        evidence: the archive, once there is one.
    """

    number: int = 0
    phase: Phase = "idle"
    message: str = ""
    wish: Wish | None = None
    points: list[SeenIterate] = field(default_factory=list)
    benign: Mapping[str, Any] | None = None
    frame: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    evidence: bytes | None = None
    version: int = 0


class StudioSession:
    """The state behind the page.

    Args:
        models: offered, the first one chosen at the start.
    """

    def __init__(self, models: Sequence[OfferedModel]) -> None:
        self.models = tuple(models)
        self.closed = threading.Event()
        self._photos = builtin_photos().photos
        self._dropped: DroppedPhoto | None = None
        self._busy, self._lock, self._stop = threading.Lock(), threading.Lock(), threading.Event()
        self._state = AttackState()
        self._thread: threading.Thread | None = None

    # --- what the page asks for before an attack ---

    def options(self, place: int) -> dict[str, Any]:
        """What can be chosen for the model at ``place``; raises `InputError` where it cannot be loaded."""
        model = self._model(place)
        classifier = model.classifier
        names = classifier.class_names
        labels = [None if p.label is None or len(names) != 1000 else names[p.label] for p in self._photos]
        return {
            "interpreters": [asdict(choice) for choice in model.interpreters],
            "classes": list(names),
            "photos": [label or photo.image_id for label, photo in zip(labels, self._photos, strict=True)],
        }

    def thumbnail(self, place: int) -> bytes:
        """The file of the built-in photo at ``place``; raises `InputError` if there is none."""
        if not 0 <= place < len(self._photos):
            raise InputError(f"there is no built-in photo {place}; they are 0 to {len(self._photos) - 1}.")
        return self._photos[place].path.read_bytes()

    def drop(self, data: bytes) -> DroppedPhoto:
        """Takes the photo whose file has the bytes ``data`` in place of the one before.

        Raises:
            InputError: it cannot be used.
            BusyError: an attack is running.
        """
        with self._working():
            try:
                image = decode(data)
            except InputError as error:
                raise InputError(f"the file is not a usable photo: {error}.") from error
            except MemoryError as error:
                raise InputError("there is not enough memory to decode the photo; make it smaller.") from error
            size = image.size
            image.thumbnail((_SIDE, _SIDE))
            self._dropped = DroppedPhoto(data, data_uri(np.asarray(image), side=_SIDE), size)
            return self._dropped

    def look(self, place: int, photo: int | None, interpreters: Sequence[str]) -> dict[str, Any]:
        """How the model at ``place`` and the ``interpreters`` see a photo.

        Raises:
            InputError: something is not there, or a number is not finite.
            BusyError: an attack is running.
        """
        with self._working():
            model = self._model(place)
            return _shown_benign(self._benign(model, photo, model.make(interpreters)), model.classifier)

    # --- an attack ---

    def begin(self, wish: Wish) -> int:
        """Begins the attack that is wished for, and returns its number.

        Raises:
            InputError: something of the wish cannot be.
            BusyError: another one is running.
        """
        if not self._busy.acquire(blocking=False):
            raise _busy()
        try:
            model = self._model(wish.model)
            classifier, interpreters = model.classifier, model.make(wish.interpreters)
            target = wish.target_class(classifier)
            target_maps = wish.target_maps(interpreters, classifier)
            attack = wish.attack(interpreters, classifier)
            self._pixels(wish.photo, classifier)

            def trial() -> Trial:
                benign = self._benign(model, wish.photo, interpreters)
                targets = _overlays(_picture(benign.pixels.pixels), target_maps or {})
                self._tell(benign=_shown_benign(benign, classifier) | {"targets": targets}, phase="running")
                return Trial(benign, interpreters, attack, wish.wanted, target=target, target_maps=target_maps)

            self._stop.clear()
            with self._lock:
                number = self._state.number + 1
                self._state = AttackState(number, "preparing", wish=wish, version=self._state.version + 1)
            self._thread = threading.Thread(target=self._work, args=(wish, trial), daemon=True)
            self._thread.start()
        except BaseException:
            self._busy.release()
            raise
        return number

    def stop(self) -> None:
        """Ends the running attack at its next step, if there is one."""
        with self._lock:
            running = self._state.phase in ("preparing", "running")
        if running:
            self._stop.set()
            self._tell(phase="stopping")

    def evidence(self) -> bytes:
        """The archive of the last attack; raises `InputError` if there is none."""
        with self._lock:
            found = self._state.evidence
        if found is None:
            raise InputError("there is no result to download yet; run an attack to its end, or stop it.")
        return found

    def news(self, number: int, points: int, version: int) -> tuple[dict[str, Any], int, int, int] | None:
        """What a page does not know that knows of attack ``number`` so many ``points``, at ``version``.

        Returns:
            the news and what the page knows with them; None where there are none.
        """
        with self._lock:
            state = self._state
            if state.version == version:
                return None
            first = points if number == state.number else 0
            told = {
                "number": state.number, "phase": state.phase, "message": state.message,
                "asked": _told_again(state.wish),
                "points": [asdict(point) for point in state.points[first:]],
                "benign": state.benign if first == 0 else None, "frame": state.frame, "result": state.result,
            }  # fmt: skip
            return told, state.number, len(state.points), state.version

    def close(self) -> None:
        """Ends everything: streams, and an attack that runs, which has some seconds for that."""
        self.closed.set()
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    # --- within ---

    def _work(self, wish: Wish, make: Callable[[], Trial]) -> None:
        """All of an attack, in a thread of its own."""
        try:
            trial = make()
            scored = trial.run(lambda glance: self._glanced(trial, glance), self._stop.is_set)
            with self._lock:
                points = list(self._state.points)
            packed = archive(wish, trial, scored, points)
            phase: Phase = "stopped" if scored.stopped else "done"
            self._tell(phase=phase, result=_shown_result(trial, scored), evidence=packed)
        except InputError as error:
            self._tell(phase="failed", message=_sentence(error))
        except Exception as error:  # noqa: BLE001 - the page must not wait for ever
            traceback.print_exc(file=sys.stderr)
            told = f"The attack ended with a mistake of ours ({type(error).__name__}); the terminal has the details."
            self._tell(phase="failed", message=told)
        finally:
            self._busy.release()

    def _glanced(self, trial: Trial, glance: Glance) -> None:
        benign = _picture(trial.benign.pixels.pixels)
        seen = _picture((glance.x[0] * 255).round().byte())
        gain = gain_for(trial.perturbation.eps if trial.perturbation.name == Linf.name else _largest(seen, benign))
        frame = {
            "image": data_uri(seen, side=_SIDE),
            "change": data_uri(amplified(seen, benign, gain), side=_SIDE),
            "gain": gain,
            "maps": _overlays(seen, glance.maps),
            "prediction": trial.attack.classifier.class_names[glance.point.prediction],
        }
        with self._lock:
            self._state.points.append(glance.point)
            self._state.frame = frame
            self._state.version += 1

    def _tell(self, **changes: Any) -> None:
        with self._lock:
            for name, value in changes.items():
                setattr(self._state, name, value)
            if self._stop.is_set() and self._state.phase in ("preparing", "running"):
                self._state.phase = "stopping"
            self._state.version += 1

    def _model(self, place: int) -> OfferedModel:
        if not 0 <= place < len(self.models):
            raise InputError(f"there is no model {place}; they are 0 to {len(self.models) - 1}.")
        return self.models[place]

    def _pixels(self, photo: int | None, classifier: Classifier) -> tuple[str, Pixels]:
        """The name of a photo, the owner of its random numbers, and the photo as ``classifier`` is to see it."""
        if photo is None:
            if self._dropped is None:
                raise InputError("no photo has been dropped yet; drop one, or choose a built-in one.")
            pixels = pixels_of(self._dropped.data, classifier.preprocessing)
            return f"dropped-{pixels.sha256[:12]}", pixels
        if not 0 <= photo < len(self._photos):
            raise InputError(f"there is no built-in photo {photo}; they are 0 to {len(self._photos) - 1}.")
        found = self._photos[photo]
        return found.image_id, PhotoLoader(classifier.preprocessing).load(found.path)

    def _benign(self, model: OfferedModel, photo: int | None, interpreters: Sequence[Any]) -> BenignPhoto:
        name, pixels = self._pixels(photo, model.classifier)
        return BenignPhoto.seen(name, pixels, model.classifier, interpreters)

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise _busy()
        try:
            yield
        finally:
            self._busy.release()


def _busy() -> BusyError:
    return BusyError("another attack is running, or a photo is being looked at; stop it, or wait until it has ended.")


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _told_again(wish: Wish | None) -> dict[str, Any] | None:
    shown = ("goal", "perturbation", "eps", "passes", "target")
    return None if wish is None else {name: getattr(wish, name) for name in shown}


def _picture(pixels: Tensor) -> Bytes:
    """uint8 (C, H, W) to look at, (H, W, 3)."""
    shown: Bytes = pixels.permute(1, 2, 0).contiguous().numpy()
    return shown.repeat(3 // shown.shape[2], axis=2)


def _largest(seen: Bytes, benign: Bytes) -> float:
    """The largest change of a pixel value, in [0, 1]."""
    return float(np.abs(seen.astype(int) - benign).max()) / 255


def _overlays(photo: Bytes, maps: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: data_uri(overlay(photo, found[0].float().numpy()), side=_SIDE) for name, found in maps.items()}


def _png_uri(pixels: Tensor) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode("ascii")


def _shown_benign(benign: BenignPhoto, classifier: Classifier) -> dict[str, Any]:
    return {
        "image": _png_uri(benign.pixels.pixels),
        "maps": _overlays(_picture(benign.pixels.pixels), benign.view.maps),
        "label": classifier.class_names[benign.label],
        "confidence": float(benign.view.probabilities[0, benign.label]),
    }


def _shown_result(trial: Trial, scored: Scored) -> dict[str, Any]:
    names = trial.attack.classifier.class_names
    shown = _picture(scored.pixels)
    prediction = int(scored.view.probabilities[0].argmax())
    measured = scored.from_target or scored.from_benign
    return {
        "image": _png_uri(scored.pixels),
        "maps": _overlays(shown, scored.view.maps),
        "prediction": names[prediction],
        "confidence": float(scored.view.probabilities[0, prediction]),
        "explained": names[scored.explained],
        "explained_confidence": float(scored.view.probabilities[0, scored.explained]),
        "met": scored.met,
        "label_met": scored.label_met,
        "maps_met": dict(scored.maps_met),
        "distances": {
            name: {"l1": d.l1, "iou": d.iou_50, "top": d.iou_top20, "shift": d.center_shift}
            for name, d in measured.items()
        },
        "linf": scored.linf,
        "passes": scored.passes,
        "seconds": scored.seconds,
    }
