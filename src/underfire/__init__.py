"""underfire audits interpretable image classifiers under attack.

It attacks a classifier's prediction and its explanation together and measures what a person who looks at the
attribution map would still notice.
"""

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

__version__ = "0.1.0"

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
    "SmoothGrad",
    "Square",
    "StAdv",
    "load_classifier",
    "metrics",
    "stats",
]


def __getattr__(name: str) -> type[Interpreter]:
    """The built-in interpreters that are not named above."""
    for cls in interpreters.ALL:
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"module 'underfire' has no attribute {name!r}")
