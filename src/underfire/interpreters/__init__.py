"""Interpreters: what the map of an image is, and which way an attacker would move it."""

from underfire.interpreters.base import Aim, ForwardPass, Interpreter, Pull, Task
from underfire.interpreters.cam import CAM
from underfire.interpreters.grad import GRAD
from underfire.interpreters.gradcam import GradCAM
from underfire.interpreters.ig import IG

ALL: tuple[type[Interpreter], ...] = (GRAD, IG, CAM, GradCAM)
"""The interpreters that come with the package, each made from a classifier alone."""

__all__ = ["ALL", "CAM", "GRAD", "IG", "Aim", "ForwardPass", "GradCAM", "Interpreter", "Pull", "Task"]
