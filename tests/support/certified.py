"""A folder as ``underfire certify`` leaves it, of planted counts: no model, no draws."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from underfire.auditing.certified import CertifySettings, CountedGoals, CountedPhoto, part_key, share_of_alpha
from underfire.auditing.plan import PlannedPhoto
from underfire.certificates import Certificate

SETTINGS = CertifySettings((0.12, 0.25), samples=100, alpha=0.01, radii=(0.0, 0.1), goals=("other/kept", "kept/topk"))


def counts(wrong: int) -> dict[str, int]:
    """Of each goal where ``wrong`` draws have a wrong label."""
    return {"other/free": wrong, "other/kept": wrong // 2, "kept/topk": (100 - wrong) // 10}


def write_certificates(
    folder: Path,
    photos: Sequence[PlannedPhoto],
    fingerprint: str,
    wrong: Sequence[int],
    names: Sequence[str] = ("cam",),
) -> dict[str, Any]:
    """Writes the folder, of so many ``wrong`` labels for each photo, and returns its settings."""
    (folder / "photos").mkdir(parents=True)
    told: dict[str, Any] = {
        "version": Certificate.version,
        "model": fingerprint,
        "interpreters": {name: {"class": name, "points": 32} for name in names},
        "seed": 0,
        **asdict(SETTINGS),
        "share": share_of_alpha(SETTINGS, names),
    }
    (folder / "certify.json").write_text(json.dumps(told), encoding="utf-8")
    for photo, k in zip(photos, wrong, strict=False):
        found = tuple(
            CountedGoals(name, sigma, counts(k), (4, 40, 5), 0.1, 0.5) for name in names for sigma in SETTINGS.sigmas
        )
        part = CountedPhoto(photo.image_id, photo.label, photo.target, found)
        (folder / "photos" / f"{part_key(photo)}.json").write_text(json.dumps(asdict(part)), encoding="utf-8")
    return told
