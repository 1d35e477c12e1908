"""The file of a fitted detector: safetensors with JSON in its header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from underfire.errors import InputError
from underfire.models.classifier import Classifier
from underfire.weights import KEY

FORMAT = 1
"""Of the files."""

TENSORS = ("centre", "spread", "whitening")
"""The parts of a density that a file keeps."""


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the file at ``path`` says of its detector, which must be of ``kind``, and its tensors; raises InputError."""
    if not path.is_file():
        raise InputError(f"'{path}' is no file; give a detector that was saved.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            if not isinstance(about, dict) or "detector" not in about:
                raise InputError(f"'{path}' holds no detector; give a file that a detector's save wrote.")
            if (about.get("format"), about["detector"]) != (FORMAT, kind):
                raise InputError(
                    f"'{path}' holds a detector of kind {about['detector']!r} in format {about.get('format')!r}, not of"
                    f" kind {kind!r} in format {FORMAT}; load it as its own kind, or fit again."
                )
            return about, {name: file.get_tensor(name) for name in TENSORS}
    except InputError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise damaged(path) from error


def check_classifier(path: Path, about: Mapping[str, Any], classifier: Classifier) -> None:
    """Refuse a file that was fitted for another classifier; raises InputError."""
    found, mine = about.get("classifier"), classifier.fingerprint()
    name, fingerprint = (found.get("name"), found.get("fingerprint")) if isinstance(found, dict) else (None, None)
    if fingerprint != mine:
        raise InputError(
            f"'{path}' was fitted for classifier {name!r} ({str(fingerprint)[:12]}), not for {classifier.name!r}"
            f" ({mine[:12]}); fit the detector again."
        )


def damaged(path: Path) -> InputError:
    """What to say of a file whose parts don't make a detector."""
    return InputError(f"'{path}' is damaged or no detector's file; fit the detector again.")
