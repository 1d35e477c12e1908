"""The report of a run of many photos, whose rows are drawn at random: seconds, memory and bytes of what it writes.

Nothing is attacked: what is measured is how a run directory is verified, summarised and written up. Report and
summary are made in a process of its own, whose peak memory is told.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from underfire.auditing.condition import NOISE, NONE, Condition
from underfire.auditing.distances import MEASURES
from underfire.auditing.plan import AuditPlan, photo_key
from underfire.auditing.rows import RANGES, SCHEMA, SCHEMA_VERSION

INTERPRETERS = ("cam", "gradcam", "grad", "ig")
EPS = 8 / 255
CLASSES = 1000


def write_run(folder: Path, photos: int, *, batch_size: int, seed: int = 0) -> None:
    """A run directory of ``photos`` photos without artifacts, every part of ``batch_size`` of them."""
    rng = np.random.default_rng(seed)
    plan = AuditPlan(interpreters=INTERPRETERS, passes=300, batch_size=batch_size)
    planned = [_photo(position, rng) for position in range(photos)]
    (folder / "rows").mkdir(parents=True)
    for number, start in enumerate(range(0, photos, batch_size)):
        some = planned[start : start + batch_size]
        pq.write_table(_rows(some, plan, rng), folder / "rows" / f"part-{number:05d}.parquet", write_page_checksum=True)
    names = {str(index): f"class {index}" for index in range(CLASSES)}
    run = {
        "schema": SCHEMA_VERSION, "created": "2031-05-06T07:08:09+00:00", "underfire_version": "0.1.0", "versions": {},
        "device": "cpu", "threads": 1, "platform": "none", "plan": asdict(plan), "config": plan.as_config(),
        "threat_model": {"norm": "linf", "eps": EPS, "bounds": [0.0, 1.0]},
        "model": {"name": "made", "fingerprint": "f" * 64, "num_classes": CLASSES, "input_size": [224, 224],
                  "resize": 256, "class_names": names},
        "model_checks": [], "photos": planned, "skipped": [], "finished": True,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")


def _photo(position: int, rng: np.random.Generator) -> dict[str, object]:
    sha256 = rng.bytes(32).hex()
    label, target = rng.choice(CLASSES, 2, replace=False).tolist()
    excluded = "misclassified" if rng.random() < 0.02 else None
    return {"image_id": f"photo-{position:06d}.jpg", "key": photo_key(position, sha256), "sha256": sha256,
            "file": f"photos/{position:06d}.jpg", "label": label, "label_given": True, "target": target,
            "excluded": excluded}  # fmt: skip


def _rows(photos: list[dict[str, object]], plan: AuditPlan, rng: np.random.Generator) -> pa.Table:
    places = [
        (photo, condition, interpreter)
        for photo in photos
        for condition in (plan.conditions if photo["excluded"] is None else (NONE,))
        for interpreter in INTERPRETERS
    ]
    n = len(places)
    conditions: list[Condition] = [condition for _, condition, _ in places]
    attacked = np.array([not condition.is_control for condition in conditions])
    own = np.array([condition.is_own(interpreter) for _, condition, interpreter in places])
    label, target = (np.array([photo[name] for photo, _, _ in places]) for name in ("label", "target"))
    # One draw per photo and condition, whose rows lie side by side.
    success = np.repeat(rng.random(n // len(INTERPRETERS)) < 0.9, len(INTERPRETERS)) & attacked
    moved = np.array([condition != NONE for condition in conditions])
    columns: dict[str, object] = {
        name: np.where(moved, rng.beta(2, np.where(own, 30, 4) if name == "l1" else 3), 0.0) for name in MEASURES
    }
    for name in ("confidence", "clean_confidence"):
        columns[name] = rng.beta(8, 2, n)
    columns |= {
        "image_id": [photo["image_id"] for photo, _, _ in places],
        "image_sha256": [photo["sha256"] for photo, _, _ in places],
        "excluded": [photo["excluded"] for photo, _, _ in places],
        "attack": [condition.attack for condition in conditions],
        "source": [condition.source for condition in conditions],
        "interpreter": [interpreter for _, _, interpreter in places],
        "label": label, "target": target, "label_given": np.ones(n, dtype=bool),
        "success": success, "prediction": np.where(success, target, label), "clean_prediction": label,
        "perturbation": ["linf"] * n, "seed": np.full(n, plan.seed), "eps": np.full(n, EPS),
        "linf": np.where(moved, EPS, 0.0), "l2": np.where(moved, 10.0, 0.0), "used": np.where(moved, EPS, 0.0),
        "steps": np.where(attacked, 300, 0), "passes": np.where(attacked, 300, 0), "seconds": rng.random(n),
    }  # fmt: skip
    columns |= {f"{name}_8bit": columns[name] for name in ("success", "confidence", *MEASURES)}
    course = {"stuck": 0.0, "nll_first": 9.0, "nll_half": 0.5, "nll_kept": 0.3}
    for name, value in course.items():
        columns[name] = pa.array(np.where(attacked, value, np.nan), pa.float64(), from_pandas=True)
    assert all(name in SCHEMA.names for name in RANGES)
    empty = {name: pa.nulls(n, SCHEMA.field(name).type) for name in SCHEMA.names if name not in columns}
    return pa.table({name: (columns | empty)[name] for name in SCHEMA.names}, schema=SCHEMA)


def measure(folder: Path) -> dict[str, float]:
    """What the report of the run in ``folder`` takes: wall and CPU seconds, peak bytes, bytes of both files."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "underfire", "report", str(folder)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": 1024 * after.ru_maxrss,
        "report": (folder / "report.html").stat().st_size,
        "summary": (folder / "summary.json").stat().st_size,
    }


def main(photos: int, batch_size: int) -> None:
    """Prints the figures of one run."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "run"
        write_run(folder, photos, batch_size=batch_size)
        rows = sum(pq.read_metadata(part).num_rows for part in (folder / "rows").iterdir())
        found = measure(folder)
    assert NOISE in AuditPlan(interpreters=INTERPRETERS).conditions
    print(f"{photos} photos in parts of {batch_size}: {rows} rows")
    print(f"  {found['wall']:.0f} s ({found['cpu']:.0f} s of CPU), peak memory {found['peak'] / 1e9:.2f} GB")
    print(f"  report.html {found['report'] / 1e6:.2f} MB, summary.json {found['summary'] / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or ("50000", "64")))
