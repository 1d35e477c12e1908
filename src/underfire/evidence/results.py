"""A run as one JSON object, in the manner of RobustBench's: figures, a flag, and a row for each photo and attack."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from underfire import __version__
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.auditing.summary import Headline
from underfire.diagnostics.attack_signs import Weight, indicators
from underfire.evidence.figures import accuracy, figures
from underfire.evidence.reliability import Reliability, reliability
from underfire.files import printable

FORMAT = "underfire-results/1"
"""The end is raised when a key is removed or changes its meaning."""


def results(run: Run) -> dict[str, Any]:
    """Plain values, valid JSON; per-sample rows of the attacks on an interpreter's own map and of PGD on each map."""
    facts = run.facts
    return {
        "format": FORMAT,
        "name": printable(facts.model.name),
        "fingerprint": facts.model.fingerprint,
        "underfire_version": __version__,
        "dataset": dataset(run),
        "threat_model": _plain(facts.threat_model),
        "preset": facts.settings.preset,
        "seed": facts.settings.seed,
        "clean_acc": asdict(accuracy(run)),
        "interval": {"level": run.summary.level, "of_shares": "Wilson", "of_means": "expanded bootstrap"},
        **flag(reliability(run)),
        "interpreters": {one.interpreter: _of_interpreter(run, one) for one in run.summary.headlines},
        "figures": [
            {"metric": figure.metric, "condition": figure.condition, "interpreter": figure.interpreter}
            | asdict(figure.estimate)
            for figure in figures(run)
        ],
        "samples": [_sample(row) for row in _told(run)],
    }


def dataset(run: Run) -> dict[str, Any]:
    """How many photos, and a SHA-256 of theirs: that of their sorted hexadecimal hashes, a line each."""
    photos = run.summary.photos
    hashes = "".join(f"{photo.sha256}\n" for photo in sorted(run.photos, key=lambda photo: photo.sha256))
    return {
        "photos": photos.total,
        "attacked": photos.attacked,
        "labelled": photos.total - photos.own_labels,
        "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
    }


def flag(found: Reliability) -> dict[str, Any]:
    """The flag, with what it stands on."""
    told = {
        weight: [{"id": doubt.id, "text": printable(doubt.text)} for doubt in found.of(weight)]
        for weight in (Weight.SERIOUS, Weight.CAUTION)
    }
    return {"unreliable": found.unreliable, "why": told[Weight.SERIOUS], "cautions": told[Weight.CAUTION]}


def _of_interpreter(run: Run, headline: Headline) -> dict[str, Any]:
    floor = headline.faithfulness
    return {
        "condition": str(headline.condition),
        "jsr": asdict(headline.kept),
        "jsr_tau": run.summary.kept_iou,
        "jsr_pgd": asdict(headline.kept_pgd),
        "faithfulness_floor": None if floor is None else str(floor.verdict),
        **flag(reliability(run, headline.interpreter)),
    }


def _told(run: Run) -> list[Row]:
    """The rows of attacks on their own map or on the prediction alone, in the run's order, not that of its files."""
    photos = {photo.image_id: place for place, photo in enumerate(run.photos)}
    conditions = {condition: place for place, condition in enumerate(run.facts.attacked_under)}
    names = {name: place for place, name in enumerate(run.facts.seen_by)}
    told = [
        row
        for row in run.records
        if not row.condition.is_control and (not row.condition.sources or row.interpreter in row.condition.sources)
    ]
    return sorted(told, key=lambda row: (photos[row.image_id], conditions[row.condition], names[row.interpreter]))


def _sample(row: Row) -> dict[str, Any]:
    shown = indicators(row.trace, success=row.answer.success) if row.trace else ()
    return {
        "image_id": printable(row.image_id),
        "image_sha256": row.image_sha256,
        "label": row.photo.label,
        "target": row.target,
        "condition": str(row.condition),
        "interpreter": row.interpreter,
        "success": row.saved.success,
        "confidence": row.saved.confidence,
        "iou": row.saved.distances.iou_50,
        "l1": row.saved.distances.l1,
        "signs": [str(sign) for sign in shown],
    }


def _plain(value: Any) -> Any:
    """``value`` with its text printable."""
    if isinstance(value, Mapping):
        return {printable(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value
