"""Attacks on the prediction and its explanation: one loop, composed."""

from underfire.attacks.adv2 import ADV2
from underfire.attacks.perturbations import Linf
from underfire.attacks.pgd import PGD
from underfire.attacks.result import AttackResult

__all__ = ["ADV2", "PGD", "AttackResult", "Linf"]
