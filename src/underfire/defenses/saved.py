"""The file of a fitted detector: safetensors with JSON in its header.

Whatever is in one, reading it runs no code and fails in a sentence. That it finds anything is another matter: whoever
writes the file decides what is flagged, so a detector's file has to be trusted.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from underfire.decoding import decoded, plain_json
from underfire.errors import InputError
from underfire.files import kind_problem, quoted, shortened
from underfire.models.classifier import Classifier
from underfire.weights import KEY

FORMAT = 1
"""Of the files."""

TENSORS = ("centre", "spread", "whitening")
"""The parts of a density that a file keeps."""


@dataclass(frozen=True)
class ClassifierIdentity:
    """The classifier that a detector is for."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class SavedFit:
    """What a file says of a fit, apart from the detector's settings; see `Detector.save`.

    Raises:
        ValueError: the threshold is above 0, which no score is.
    """

    classifier: ClassifierIdentity
    fpr: float
    seed: int
    signals: tuple[str, ...]
    n_fit: int
    n_calibration: int
    shrinkage: float
    threshold: float

    def __post_init__(self) -> None:
        if self.threshold > 0:
            raise ValueError(f"the threshold {self.threshold:g} is above 0, and no score is")


@dataclass(frozen=True)
class SavedDetector:
    """What a file holds: the fit, the detector's own settings as plain values of JSON, and the density's tensors."""

    fit: SavedFit
    settings: Any
    tensors: Mapping[str, Tensor]


def read(path: Path, kind: str) -> SavedDetector:
    """The file at ``path``, which must hold a detector of ``kind``; raises InputError."""
    if not path.is_file():
        why = kind_problem(path.stat().st_mode) if path.exists() else "there is none"
        raise InputError(f"{quoted(path)} is no file ({why}); give a detector that was saved.")
    with checking(path), safetensors.safe_open(path, "pt") as file:
        try:
            about = plain_json((file.metadata() or {}).get(KEY, "null").encode())
        except InputError as error:
            raise _damaged(path, error) from error
        if not isinstance(about, dict) or "detector" not in about:
            raise InputError(f"{quoted(path)} holds no detector; give a file that a detector's save wrote.")
        found, version = about.pop("detector"), about.pop("format", None)
        if (version, found) != (FORMAT, kind):
            raise InputError(
                f"{quoted(path)} holds a detector of kind {_shown(found)} in format {_shown(version)}, not of kind"
                f" {kind!r} in format {FORMAT}; load it as its own kind, or fit again."
            )
        settings = about.pop("settings")
        fit = decoded(SavedFit, about, "the fit")
        return SavedDetector(fit, settings, {name: file.get_tensor(name) for name in TENSORS})


def check_classifier(path: Path, fit: SavedFit, classifier: Classifier) -> None:
    """Refuse a file that was fitted for another classifier; raises InputError."""
    found, mine = fit.classifier, classifier.fingerprint()
    if found.fingerprint != mine:
        raise InputError(
            f"{quoted(path)} was fitted for classifier {quoted(found.name)} ({found.fingerprint[:12]}), not for"
            f" {classifier.name!r} ({mine[:12]}); fit the detector again."
        )


@contextmanager
def checking(path: Path) -> Iterator[None]:
    """Turns whatever the parts of the file at ``path`` cause in the block into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError) as error:
        raise _damaged(path) from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object = "its parts make no detector") -> InputError:
    said = shortened(str(reason))
    return InputError(f"{quoted(path)} is damaged or no detector's file ({said}); fit the detector again.")


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else shortened(json.dumps(value))
