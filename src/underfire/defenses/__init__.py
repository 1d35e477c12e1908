"""Defences: what a defender who sees an image and its maps, and never benign ones, can notice by numbers."""

from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.calibration import Calibration, calibrate, photos_needed
from underfire.defenses.density import Density
from underfire.defenses.detector import Detector
from underfire.defenses.detector_attack import DetectorAttackResult
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.explanation import Explanation, Reason
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.score_based import ScoreSearch
from underfire.defenses.signals import Signal, Signals
from underfire.defenses.squeezing import FeatureSqueezing

__all__ = [
    "AdaptiveADV2",
    "Calibration",
    "Density",
    "Detector",
    "DetectorAttackResult",
    "EnsembleDetector",
    "Explanation",
    "FeatureSqueezing",
    "MeanMap",
    "Reason",
    "ScoreSearch",
    "Signal",
    "Signals",
    "calibrate",
    "photos_needed",
]
