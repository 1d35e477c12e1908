"""underfire audits interpretable image classifiers under attack.

It attacks a classifier's prediction and its explanation together and measures what a person who looks at the
attribution map would still notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from underfire import metrics, stats
from underfire.attacks import ADV2, L2, PGD, AttackResult, AuthorsADV2, Flow, Linf, Square, StAdv
from underfire.defenses import EnsembleDetector
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters import (
    CAM,
    GRAD,
    IG,
    MASK,
    RTS,
    GradCAM,
    GuidedBackprop,
    InputXGradient,
    Interpreter,
    MaskFit,
    MaskingNetwork,
    SmoothGrad,
)
from underfire.models import load_classifier
from underfire.models.classifier import Classifier

if TYPE_CHECKING:
    from underfire.auditing.run import Run
    from underfire.audits import audit, load_run

__version__ = "0.1.0"

# What stands on tables and plots, which nobody waits for who only wants a map.
_LATER = {"Run": "underfire.auditing.run", "audit": "underfire.audits", "load_run": "underfire.audits"}

__all__ = [
    "ADV2",
    "CAM",
    "GRAD",
    "IG",
    "L2",
    "MASK",
    "PGD",
    "RTS",
    "AttackResult",
    "AuthorsADV2",
    "Classifier",
    "EnsembleDetector",
    "Flow",
    "GradCAM",
    "GuidedBackprop",
    "InputError",
    "InputXGradient",
    "Interpreter",
    "Linf",
    "MaskFit",
    "MaskingNetwork",
    "NonFiniteError",
    "Run",
    "SmoothGrad",
    "Square",
    "StAdv",
    "audit",
    "load_classifier",
    "load_run",
    "metrics",
    "stats",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'underfire' has no attribute '{name}'")
