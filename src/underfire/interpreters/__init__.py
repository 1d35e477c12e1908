"""Interpreters: what the map of an image is, and which way an attacker would move it."""

from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.cam import CAM
from underfire.interpreters.grad import GRAD
from underfire.interpreters.gradcam import GradCAM
from underfire.interpreters.guided_backprop import GuidedBackprop
from underfire.interpreters.ig import IG
from underfire.interpreters.input_x_gradient import InputXGradient
from underfire.interpreters.mask import MASK
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.interpreters.masks.settings import MaskFit
from underfire.interpreters.rts import RTS
from underfire.interpreters.smoothgrad import SmoothGrad

ALL: tuple[type[Interpreter], ...] = (
    GRAD,
    IG,
    CAM,
    GradCAM,
    InputXGradient,
    SmoothGrad,
    GuidedBackprop,
    MASK,
    RTS,
)
"""The interpreters that come with the package, each made from a classifier alone; RTS has to be trained for it."""

__all__ = [
    "ALL",
    "CAM",
    "GRAD",
    "IG",
    "MASK",
    "RTS",
    "ForwardPass",
    "GradCAM",
    "GuidedBackprop",
    "InputXGradient",
    "Interpreter",
    "MapGradient",
    "MapObjective",
    "MapTarget",
    "MaskFit",
    "MaskingNetwork",
    "SmoothGrad",
]
