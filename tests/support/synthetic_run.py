"""A run directory as an audit leaves it, made of gradients and planted numbers: no model, no attack."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from support.rows import EPS
from support.rows import row as made
from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.plan import AuditPlan
from underfire.auditing.rows import SCHEMA_VERSION, Row, write_part
from underfire.auditing.store import map_name
from underfire.diagnostics.model_checks import ModelCheck

GRIDS = {"grad": 56, "ig": 56, "cam": 7, "gradcam": 7, "mask": 28, "rts": 56}
OWN_L1, PGD_L1, NOISE_L1 = 0.03, 0.30, 0.05
PER_PART = 3
NAMES = {7: "cock", 8: "hen", 9: "ostrich, <b>Struthio</b> \"camelus\" & 'co'"}


@dataclass(frozen=True)
class Recipe:
    """What the run contains.

    ``images`` stand in for the photos (H, W, 3); ``failures`` are indices of photos that every attack missed.
    ``course`` replaces columns of every attack's course, and ``faults`` are checks that the model failed. One
    that is not ``finished`` has its first part alone.
    """

    files: Sequence[str] = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    interpreters: Sequence[str] = ("cam", "grad", "ig")
    excluded: Mapping[int, str] = field(default_factory=dict)
    failures: Sequence[int] = ()
    unlabelled: Sequence[int] = ()
    skipped: Sequence[tuple[str, str]] = ()
    left_out: Sequence[str] = ()
    names: Mapping[int, str] = field(default_factory=lambda: NAMES)
    images: Sequence[NDArray[np.uint8]] = ()
    finished: bool = True
    artifacts: bool = True
    course: Mapping[str, float] = field(default_factory=dict)
    faults: Sequence[str] = ()
    checked: bool = True


def write_run(folder: Path, recipe: Recipe) -> Path:
    """Writes the run into ``folder`` and returns it; the same recipe gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    photos: list[dict[str, Any]] = []
    rows: list[Row] = []
    for index, name in enumerate(recipe.files):
        benign = recipe.images[index] if recipe.images else _gradient(index)
        sha256 = hashlib.sha256(benign.tobytes()).hexdigest()
        key = f"{index:05d}-{sha256[:8]}"
        given = index not in recipe.unlabelled
        label, target = 7 + index % 2, 9
        photos.append(
            {"image_id": name, "key": key, "sha256": sha256, "label": label, "label_given": given,
             "target": target, "file": f"photos/{name}", "excluded": recipe.excluded.get(index)}
        )  # fmt: skip
        rng = np.random.default_rng(index)
        clean_maps = {name: _blob(GRIDS[name], rng) for name in recipe.interpreters}
        maps = {map_name(NONE, name): map_ for name, map_ in clean_maps.items()}
        pictures = {"benign": benign}
        excluded = recipe.excluded.get(index)
        plan = [NONE]
        if excluded is None:
            plan += [NOISE, PGD, *(Condition.on("adv2", name) for name in recipe.interpreters)]
        for condition in plan:
            success = not condition.is_control and index not in recipe.failures
            if condition != NONE:
                signs = rng.choice([-8, 8], size=benign.shape)
                pictures[str(condition)] = np.clip(benign + signs, 0, 255).astype(np.uint8)
            for interpreter in recipe.interpreters:
                l1 = _planted_l1(condition, interpreter, index)
                other = _blob(GRIDS[interpreter], rng)
                share = 0.0 if condition == NONE else min(1.0, 3 * l1)
                maps[map_name(condition, interpreter)] = ((1 - share) * clean_maps[interpreter] + share * other).astype(
                    np.float32
                )
                course = {} if condition.is_control else _course(success, condition.is_joint, l1) | dict(recipe.course)
                rows.append(
                    _row(
                        condition, interpreter, success, l1, image_id=name, image_sha256=sha256, label=label,
                        label_given=given, target=target, excluded=excluded, **course,
                    )
                )  # fmt: skip
        if recipe.artifacts:
            _write_artifacts(folder / "artifacts" / key, pictures, maps)
    for number, start in enumerate(range(0, len(photos), PER_PART)):
        inside = {photo["image_id"] for photo in photos[start : start + PER_PART]}
        if recipe.finished or number == 0:
            part = folder / "rows" / f"part-{number:05d}.parquet"
            write_part(part, [row for row in rows if row.image_id in inside])
    run = _run_json(recipe, photos)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


def _planted_l1(condition: Condition, interpreter: str, index: int) -> float:
    known = {NONE: 0.0, NOISE: NOISE_L1}
    base = known.get(condition, OWN_L1 if condition.is_own(interpreter) else PGD_L1)
    return base * (1 + 0.1 * (index % 3)) if base else 0.0


def _row(condition: Condition, interpreter: str, success: bool, l1: float, **photo: Any) -> Row:
    label, excluded = photo["label"], photo["excluded"]
    prediction = photo["target"] if success else (8 if excluded == "misclassified" else label)
    change = 0.0 if condition == NONE else EPS
    return made(
        condition=condition, interpreter=interpreter, success=success, prediction=prediction,
        confidence=0.97 if success else 0.02, clean_prediction=prediction if excluded else label,
        clean_confidence=0.88, l1=l1, iou=max(0.0, 1 - 3 * l1), linf=change, used=change, steps=300, passes=301,
        seconds=1.5, **photo,
    )  # fmt: skip


def _course(success: bool, joint: bool, l1: float) -> dict[str, Any]:
    """Of an attack that did what it could."""
    kept = 0.03 if success else 6.0
    distance = {"gap_first": 0.4, "gap_half": 1.1 * l1, "gap_kept": l1} if joint else {}
    return {"stuck": 0.0, "nll_first": 9.0, "nll_half": 1.2 * kept, "nll_kept": kept, **distance}


def _run_json(recipe: Recipe, photos: list[dict[str, Any]]) -> dict[str, Any]:
    plan = AuditPlan(
        interpreters=tuple(recipe.interpreters), left_out=tuple(recipe.left_out), passes=300, batch_size=PER_PART
    )
    names = {str(index): recipe.names.get(index, "") for index in range(10)}
    return {
        "schema": SCHEMA_VERSION,
        "command": "underfire audit photos --preset quick --out 'run <1>'",
        "created": "2031-05-06T07:08:09+00:00",
        "underfire_version": "0.1.0",
        "versions": {"python": "3.11.9", "torch": "2.10.0"},
        "device": "cpu",
        "threads": 1,
        "platform": "Linux x86_64",
        "model": {
            "name": "gradient-net", "fingerprint": "f" * 64, "num_classes": 10, "input_size": [64, 64], "resize": 64,
            "class_names": names,
        },
        "threat_model": {"norm": "linf", "eps": EPS, "bounds": [0.0, 1.0]},
        "plan": asdict(plan),
        "config": plan.as_config(),
        "interpreter_settings": {name: {"class": name, "points": 32} for name in recipe.interpreters},
        "model_checks": [
            {"check": name, "shown": 5 * (name in recipe.faults), "of": 8, "fired": name in recipe.faults}
            for name in (ModelCheck if recipe.checked else ())
        ],
        "photos": photos,
        "skipped": [{"name": name, "reason": reason} for name, reason in recipe.skipped],
        "finished": recipe.finished,
    }  # fmt: skip


def _write_artifacts(
    folder: Path, pictures: Mapping[str, NDArray[np.uint8]], maps: Mapping[str, NDArray[np.float32]]
) -> None:
    folder.mkdir(parents=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    save_file(dict(maps), folder / "maps.safetensors")


def _gradient(index: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:64, 0:64]
    return np.stack([4 * x, 4 * y, 2 * (x + y) + 0 * index], axis=-1).astype(np.uint8)


def _blob(side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:side, 0:side] / max(1, side - 1)
    cy, cx = rng.uniform(0.15, 0.85, 2)
    bump = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.04)
    if side > 20:
        bump = bump * rng.uniform(0.2, 1, bump.shape)
    return np.asarray((bump - bump.min()) / (bump.max() - bump.min()), dtype=np.float32)
