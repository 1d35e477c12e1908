"""What is taken home from an attack: one archive, made in memory."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor

from underfire.auditing.runner import library_versions
from underfire.images.png import png_bytes
from underfire.studio.trial import TAU, Scored, SeenIterate, Trial
from underfire.studio.wish import Wish

EVIDENCE = "result.json"
"""What the archive says of itself: settings, figures, versions, the hash of every other file."""


def archive(wish: Wish, trial: Trial, scored: Scored, curve: list[SeenIterate]) -> bytes:
    """The bytes of a ZIP file with both images as PNG, all maps as NPY, and `EVIDENCE`.

    Every figure is of the PNG that lies beside it, as the unmodified model sees it.
    """
    files = {"benign.png": png_bytes(trial.benign.pixels.pixels), "adversarial.png": png_bytes(scored.pixels)}
    kinds = {"benign": trial.benign.view.maps, "adversarial": scored.view.maps, "target": trial.target_maps or {}}
    for kind, maps in kinds.items():
        files |= {f"maps/{kind}-{name}.npy": _npy(found[0]) for name, found in maps.items()}
    result = facts(wish, trial, scored, curve, files)
    files[EVIDENCE] = (json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def facts(
    wish: Wish, trial: Trial, scored: Scored, curve: list[SeenIterate], files: Mapping[str, bytes]
) -> dict[str, Any]:
    """`EVIDENCE` as plain values; ``files`` are those whose hashes it tells."""
    classifier, benign, attack = trial.attack.classifier, trial.benign, trial.attack
    names = classifier.class_names
    prediction = int(scored.view.probabilities[0].argmax())
    return {
        "made_by": f"underfire {version('underfire')} studio",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {
            "attack": attack.name,
            "attack_version": attack.version,
            "goal": wish.goal,
            "interpreters": list(wish.interpreters),
            "attacked": [g.name for g in attack.interpreters],
            "perturbation": trial.perturbation.name,
            "eps": trial.perturbation.eps,
            "passes": wish.passes,
            "seed": wish.seed,
            "target": None if trial.target is None else _class(trial.target, names),
            "tau": TAU,
        },
        "model": {
            "name": classifier.name,
            "fingerprint": classifier.fingerprint(),
            "num_classes": classifier.num_classes,
            "preprocessing": asdict(classifier.preprocessing),
        },
        "photo": {
            "name": benign.name,
            "sha256": benign.pixels.sha256,
            "original_size": list(benign.pixels.original_size),
            "label": _class(benign.label, names),
            "confidence": float(benign.view.probabilities[0, benign.label]),
        },
        "result": {
            "stopped": scored.stopped,
            "prediction": _class(prediction, names),
            "explained": _class(scored.explained, names),
            "confidence": float(scored.view.probabilities[0, scored.explained]),
            "label_confidence": float(scored.view.probabilities[0, benign.label]),
            "goal_met": scored.met,
            "label_met": scored.label_met,
            "maps_met": dict(scored.maps_met),
            "from_benign_map": {name: asdict(found) for name, found in scored.from_benign.items()},
            "from_target_map": {name: asdict(found) for name, found in scored.from_target.items()},
            "linf": scored.linf,
            "l2": scored.l2,
            "passes": scored.passes,
            "seconds": round(scored.seconds, 3),
        },
        "curve": [asdict(point) for point in curve],
        "device": str(classifier.device),
        "versions": library_versions(),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }


def _class(index: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"index": index, "name": names[index]}


def _npy(values: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values.float().numpy(), allow_pickle=False)
    return buffer.getvalue()
