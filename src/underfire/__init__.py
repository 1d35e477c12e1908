"""underfire audits interpretable image classifiers under attack.

It attacks a classifier's prediction and its explanation together and measures what a person who looks at the
attribution map would still notice.
"""

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
