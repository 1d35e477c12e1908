"""From views of images to rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from underfire import metrics
from underfire.attacks.labels import TOLERANCE
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.trace import Trace
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.distances import distances_at, map_distances
from underfire.auditing.look import ModelView
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.rows import Allowed, Answer, ImageChange, Row, RowPhoto, Saved, Spent
from underfire.diagnostics.attack_signs import image_traces


@dataclass(frozen=True)
class Treated:
    """N photos after one condition, and how they are seen: as computed, and as saved and read back."""

    condition: Condition
    benign_x: Tensor
    x: Tensor
    """(N, C, H, W) in [0, 1], like ``benign_x``."""
    benign: ModelView
    view: ModelView
    saved: ModelView
    classes: Tensor
    """(N,) int64: those that the answer is about, the target classes unless the goal is another."""
    perturbation: Perturbation
    used: Tensor
    """(N,): how much of its budget each photo uses."""
    steps: int = 0
    passes: Sequence[int] = ()
    """(N,): forward and backward passes; empty for none."""
    seconds: float = 0.0
    """Per photo."""
    trace: Trace | None = None
    """None where nothing was attacked."""


def rows_of(photos: Sequence[PlannedPhoto], treated: Treated, *, seed: int) -> list[list[Row]]:
    """For each of the N photos one row per interpreter."""
    condition = treated.condition
    aimed = condition != NONE
    linf, l2 = metrics.linf(treated.x, treated.benign_x).cpu(), metrics.l2(treated.x, treated.benign_x).cpu()
    labels = torch.tensor([photo.label for photo in photos])
    asked = treated.classes if aimed else labels
    prediction, saved_prediction = treated.view.predict(asked), treated.saved.predict(asked)
    confidence = treated.view.probability_of(treated.classes)
    saved_confidence = treated.saved.probability_of(treated.classes)
    clean_prediction = treated.benign.predict(labels)
    clean_confidence = treated.benign.probability_of(labels)
    met, saved_met = (
        reaches(condition, predicted, treated.classes, sure - clean_confidence)
        for predicted, sure in ((prediction, confidence), (saved_prediction, saved_confidence))
    )
    distances = {
        name: (map_distances(treated.view.maps[name], maps), map_distances(treated.saved.maps[name], maps))
        for name, maps in treated.benign.maps.items()
    }
    courses = image_traces(treated.trace) if treated.trace else [None for _ in photos]
    rows: list[list[Row]] = [[] for _ in photos]
    for i, photo in enumerate(photos):
        shared: dict[str, Any] = {
            "photo": RowPhoto(photo.image_id, photo.sha256, photo.label, photo.label_given, photo.target),
            "condition": condition,
            "excluded": None if aimed else photo.excluded,
            "answer": Answer(
                success=aimed and bool(met[i]),
                prediction=int(prediction[i]),
                confidence=float(confidence[i]),
                clean_prediction=int(clean_prediction[i]),
                clean_confidence=float(clean_confidence[i]),
            ),
            "change": ImageChange(float(linf[i]), float(l2[i])),
            "spent": Spent(treated.steps, int(treated.passes[i]) if len(treated.passes) else 0, treated.seconds),
            "allowed": Allowed(seed, treated.perturbation.name, treated.perturbation.eps, float(treated.used[i])),
            "course": courses[i],
        }
        success, sure = aimed and bool(saved_met[i]), float(saved_confidence[i])
        for name, (computed, saved) in distances.items():
            here = Saved(success, sure, distances_at(saved, i))
            rows[i].append(Row(interpreter=name, distances=distances_at(computed, i), saved=here, **shared))
    return rows


def reaches(condition: Condition, predicted: Tensor, classes: Tensor, change: Tensor) -> Tensor:
    """Where (N,) the label's part of the goal of ``condition`` is met.

    Args:
        condition: what was done.
        predicted: (N,) the predictions.
        classes: (N,) the classes that they should be.
        change: (N,) of the probability of that class from that of the label on the benign input; it counts where the
            label is kept.
    """
    met = predicted == classes
    if condition.wanted is not None and condition.wanted.label == "kept":
        met = met & (change.abs() <= TOLERANCE)
    return met
