"""underfire audits interpretable image classifiers under attack.

It attacks a classifier's prediction and its explanation together and measures what a person who looks at the
attribution map would still notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from underfire import interpreters, metrics, stats
from underfire.attacks import ADV2, L2, PGD, AttackResult, AuthorsADV2, Flow, JointAttack, Linf, Square, StAdv
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
    from underfire.api import audit, load_run
    from underfire.auditing.run import Run

__version__ = "0.1.0"

# What stands on tables and plots, which nobody waits for who only wants a map.
_LATER = {"Run": "underfire.auditing.run", "audit": "underfire.api", "load_run": "underfire.api"}

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
    "JointAttack",
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
    """What is imported when it is first used, and the built-in interpreters that are not named above."""
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    for cls in interpreters.ALL:
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"module 'underfire' has no attribute '{name}'")
