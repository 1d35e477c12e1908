"""What an attacker may do to an image: perturbation models, one file each."""

from underfire.attacks.perturbations.base import Perturbation
from underfire.attacks.perturbations.flow import Flow
from underfire.attacks.perturbations.l2 import L2
from underfire.attacks.perturbations.linf import Linf, chosen

__all__ = ["L2", "Flow", "Linf", "Perturbation", "chosen"]
