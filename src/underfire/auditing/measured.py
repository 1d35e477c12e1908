"""From views of images to rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from underfire import metrics
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.trace import Trace
from underfire.auditing.look import View, distance
from underfire.auditing.plan import Condition, PlannedPhoto
from underfire.auditing.rows import Row
from underfire.diagnostics.attack_signs import ImageTrace, image_traces


@dataclass(frozen=True)
class Treated:
    """N photos after one condition, and how they are seen: as computed, and as saved and read back."""

    condition: Condition
    benign_x: Tensor
    x: Tensor
    """(N, C, H, W) in [0, 1], like ``benign_x``."""
    benign: View
    view: View
    saved: View
    targets: Tensor
    """(N,) int64."""
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
    attack = treated.condition.attack
    linf, l2 = metrics.linf(treated.x, treated.benign_x).cpu(), metrics.l2(treated.x, treated.benign_x).cpu()
    prediction, saved_prediction = treated.view.prediction, treated.saved.prediction
    confidence = treated.view.probability_of(treated.targets)
    saved_confidence = treated.saved.probability_of(treated.targets)
    clean_prediction = treated.benign.prediction
    distances = {
        name: (distance(treated.view.maps[name], maps), distance(treated.saved.maps[name], maps))
        for name, maps in treated.benign.maps.items()
    }
    courses = [_course(trace) for trace in image_traces(treated.trace)] if treated.trace else [{} for _ in photos]
    rows: list[list[Row]] = [[] for _ in photos]
    for i, photo in enumerate(photos):
        target = int(treated.targets[i])
        for name, (computed, saved) in distances.items():
            rows[i].append(
                Row(
                    image_id=photo.image_id,
                    image_sha256=photo.sha256,
                    label=photo.label,
                    label_given=photo.label_given,
                    target=target,
                    attack=attack,
                    source=treated.condition.source,
                    interpreter=name,
                    excluded=photo.excluded if attack == "none" else None,
                    success=attack != "none" and int(prediction[i]) == target,
                    prediction=int(prediction[i]),
                    confidence=float(confidence[i]),
                    clean_prediction=int(clean_prediction[i]),
                    clean_confidence=float(treated.benign.probabilities[i, photo.label]),
                    l1=float(computed.l1[i]),
                    iou_50=float(computed.iou_50[i]),
                    iou_25=float(computed.iou_25[i]),
                    iou_75=float(computed.iou_75[i]),
                    iou_top20=float(computed.iou_top20[i]),
                    linf=float(linf[i]),
                    l2=float(l2[i]),
                    success_8bit=attack != "none" and int(saved_prediction[i]) == target,
                    confidence_8bit=float(saved_confidence[i]),
                    l1_8bit=float(saved.l1[i]),
                    iou_50_8bit=float(saved.iou_50[i]),
                    iou_25_8bit=float(saved.iou_25[i]),
                    iou_75_8bit=float(saved.iou_75[i]),
                    iou_top20_8bit=float(saved.iou_top20[i]),
                    steps=treated.steps,
                    passes=int(treated.passes[i]) if len(treated.passes) else 0,
                    seconds=treated.seconds,
                    seed=seed,
                    perturbation=treated.perturbation.name,
                    eps=treated.perturbation.eps,
                    used=float(treated.used[i]),
                    **courses[i],
                )
            )
    return rows


def _course(trace: ImageTrace) -> dict[str, float | None]:
    """The columns of an attack's course."""
    nll, gap = trace.prediction, trace.maps
    return {
        "stuck": trace.stuck,
        "nll_first": nll.first,
        "nll_half": nll.half,
        "nll_kept": nll.kept,
        "gap_first": gap.first if gap else None,
        "gap_half": gap.half if gap else None,
        "gap_kept": gap.kept if gap else None,
    }
