"""Attacks on the prediction and its explanation: one loop, composed."""

from underfire.attacks.adv2 import ADV2
from underfire.attacks.authors import AuthorsADV2
from underfire.attacks.drawn import DrawnAttack, DrawScores, attack_draws, score_draws
from underfire.attacks.goals import Goal
from underfire.attacks.joint import JointAttack
from underfire.attacks.map_attack import MapAttack
from underfire.attacks.map_sensitivity import Sensitivity, sensitivity
from underfire.attacks.minimum_norm import MinimumNorm, MinimumNormResult
from underfire.attacks.perturbations import L2, Flow, Linf
from underfire.attacks.pgd import PGD
from underfire.attacks.published import PublishedMapAttack
from underfire.attacks.result import AttackResult
from underfire.attacks.square import Square
from underfire.attacks.stadv import StAdv
from underfire.attacks.universal import Universal, UniversalPerturbation

__all__ = [
    "ADV2",
    "L2",
    "PGD",
    "AttackResult",
    "AuthorsADV2",
    "DrawScores",
    "DrawnAttack",
    "Flow",
    "Goal",
    "JointAttack",
    "Linf",
    "MapAttack",
    "MinimumNorm",
    "MinimumNormResult",
    "PublishedMapAttack",
    "Sensitivity",
    "Square",
    "StAdv",
    "Universal",
    "UniversalPerturbation",
    "attack_draws",
    "score_draws",
    "sensitivity",
]
