"""One row of an audit, made of what matters to a test."""

from types import SimpleNamespace
from typing import Any

from underfire.auditing.condition import Condition
from underfire.auditing.distances import MEASURES
from underfire.auditing.rows import SCHEMA, Row

EPS = 8 / 255

_BASE: dict[str, Any] = {
    "image_id": "a.jpg",
    "image_sha256": "00" * 32,
    "label": 1,
    "label_given": True,
    "target": 2,
    "attack": "adv2",
    "source": "cam",
    "interpreter": "cam",
    "excluded": None,
    "success": False,
    "confidence": 0.9,
    "clean_confidence": 0.9,
    "linf": 0.03,
    "l2": 1.0,
    "steps": 10,
    "passes": 20,
    "seconds": 2.0,
    "seed": 0,
    "perturbation": "linf",
    "eps": EPS,
    "used": 0.03,
    **dict.fromkeys(MEASURES, 1.0),
    "l1": 0.0,
}


def row(
    base: Row | None = None, /, *, condition: Condition | None = None, iou: float | None = None, **changes: Any
) -> Row:
    """A row with ``changes``, by the names of its columns, to ``base`` or to one on which ADV² on CAM failed.

    ``iou`` is for every threshold. What the image as saved shows is what the image as computed shows, the prediction
    follows the success, unless they are among the changes.

    Raises:
        TypeError: a change is of no column.
    """
    if unknown := set(changes) - set(SCHEMA.names):
        raise TypeError(f"rows have no columns {sorted(unknown)}")
    if condition is not None:
        changes |= {"attack": condition.attack, "source": condition.source}
    if iou is not None:
        changes = {measure: iou for measure in MEASURES if measure.startswith("iou")} | changes
    if base is not None:
        return Row.of_columns(base.columns() | changes)
    values = dict.fromkeys(SCHEMA.names) | _BASE | changes
    derived = {
        "prediction": values["target"] if values["success"] else values["label"],
        "clean_prediction": values["label"],
        **{f"{name}_8bit": values[name] for name in ("success", "confidence", *MEASURES)},
    }
    return Row.of_columns(values | derived | changes)


def flat(row: Row) -> SimpleNamespace:
    """``row`` with its columns as attributes, its condition as text and its course as it is judged."""
    return SimpleNamespace(**row.columns(), condition=str(row.condition), trace=row.trace)
