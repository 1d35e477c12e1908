"""underfire audits interpretable image classifiers under attack.

It attacks a classifier's prediction and its explanation together and measures what a person who looks at the
attribution map would still notice.

Importing it imports nothing large: a public name brings its module, and PyTorch, when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underfire import metrics, stats
    from underfire.api import audit, load_run
    from underfire.attacks import (
        ADV2,
        L2,
        PGD,
        AttackResult,
        AuthorsADV2,
        DrawnAttack,
        DrawScores,
        Flow,
        Goal,
        JointAttack,
        Linf,
        MapAttack,
        MinimumNorm,
        MinimumNormResult,
        PublishedMapAttack,
        Sensitivity,
        Square,
        StAdv,
        Universal,
        UniversalPerturbation,
        attack_draws,
        score_draws,
        sensitivity,
    )
    from underfire.auditing.run import Run
    from underfire.auditing.smoothed import SmoothedScore, SmoothedScores, score_smoothed
    from underfire.certificates import CellCertificate, Certificate, Smoothed, SmoothedResult, certify, certify_cells
    from underfire.defenses import EnsembleDetector
    from underfire.errors import InputError, ModelError, NonFiniteError
    from underfire.interpreters import (
        CAM,
        GRAD,
        IG,
        LIME,
        LRP,
        MASK,
        RISE,
        RTS,
        AttentionRelevance,
        AttnLRP,
        EigenCAM,
        GradCAM,
        GradCAMPlusPlus,
        GuidedBackprop,
        HiResCAM,
        InputXGradient,
        Interpreter,
        KernelSHAP,
        LayerCAM,
        MaskFit,
        MaskingNetwork,
        Occlusion,
        Rollout,
        SmoothGrad,
        attribution_gradient,
    )
    from underfire.models import load_classifier
    from underfire.models.classifier import Classifier
    from underfire.models.draws import fixed_draws
else:
    from importlib import import_module as _import_module
    from importlib.util import find_spec as _find_spec

    _HOMES = {
        "api": ("audit", "load_run"),
        "attacks": (
            *("ADV2", "L2", "PGD", "AttackResult", "AuthorsADV2", "DrawScores", "DrawnAttack", "Flow", "Goal"),
            *("JointAttack", "Linf", "MapAttack", "MinimumNorm", "MinimumNormResult", "PublishedMapAttack"),
            *("Sensitivity", "Square", "StAdv", "Universal", "UniversalPerturbation"),
            *("attack_draws", "score_draws", "sensitivity"),
        ),
        "auditing.run": ("Run",),
        "auditing.smoothed": ("SmoothedScore", "SmoothedScores", "score_smoothed"),
        "certificates": (
            *("CellCertificate", "Certificate", "Smoothed", "SmoothedResult", "certify", "certify_cells"),
        ),
        "defenses": ("EnsembleDetector",),
        "errors": ("InputError", "ModelError", "NonFiniteError"),
        "interpreters": (
            *("CAM", "GRAD", "IG", "LIME", "LRP", "MASK", "RISE", "RTS", "AttentionRelevance", "AttnLRP", "EigenCAM"),
            *("GradCAM", "GradCAMPlusPlus", "GuidedBackprop", "HiResCAM", "InputXGradient", "Interpreter"),
            *("KernelSHAP", "LayerCAM", "MaskFit", "MaskingNetwork", "Occlusion", "Rollout", "SmoothGrad"),
            *("attribution_gradient",),
        ),
        "models": ("load_classifier",),
        "models.classifier": ("Classifier",),
        "models.draws": ("fixed_draws",),
    }
    _HOME = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}

    def __getattr__(name):
        """A public name, or a module of the package, imported when it is first used."""
        if name in _HOME:
            found = getattr(_import_module(_HOME[name]), name)
            globals()[name] = found
            return found
        if name.startswith("_"):
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        if _find_spec(f"{__name__}.{name}"):
            return _import_module(f"{__name__}.{name}")
        for cls in _import_module(f"{__name__}.interpreters").ALL:  # the table of interpreters
            if cls.__name__ == name:
                return cls
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

    def __dir__():
        """The public names."""
        return [*__all__, "__version__"]


__version__ = "0.1.0"

__all__ = [
    "ADV2",
    "CAM",
    "GRAD",
    "IG",
    "L2",
    "LIME",
    "LRP",
    "MASK",
    "PGD",
    "RISE",
    "RTS",
    "AttackResult",
    "AttentionRelevance",
    "AttnLRP",
    "AuthorsADV2",
    "CellCertificate",
    "Certificate",
    "Classifier",
    "DrawScores",
    "DrawnAttack",
    "EigenCAM",
    "EnsembleDetector",
    "Flow",
    "Goal",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedBackprop",
    "HiResCAM",
    "InputError",
    "InputXGradient",
    "Interpreter",
    "JointAttack",
    "KernelSHAP",
    "LayerCAM",
    "Linf",
    "MapAttack",
    "MaskFit",
    "MaskingNetwork",
    "MinimumNorm",
    "MinimumNormResult",
    "ModelError",
    "NonFiniteError",
    "Occlusion",
    "PublishedMapAttack",
    "Rollout",
    "Run",
    "Sensitivity",
    "SmoothGrad",
    "Smoothed",
    "SmoothedResult",
    "SmoothedScore",
    "SmoothedScores",
    "Square",
    "StAdv",
    "Universal",
    "UniversalPerturbation",
    "attack_draws",
    "attribution_gradient",
    "audit",
    "certify",
    "certify_cells",
    "fixed_draws",
    "load_classifier",
    "load_run",
    "metrics",
    "score_draws",
    "score_smoothed",
    "sensitivity",
    "stats",
]
