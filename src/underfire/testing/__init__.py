"""The contracts of the parts, as suites that anyone can run on their own.

    from underfire.testing import check_attack, check_interpreter, check_perturbation, check_planted, check_signal
    check_interpreter(MyInterpreter)          # a class, or any function from a classifier to an interpreter
    check_attack(lambda classifier: MyAttack([CAM(classifier)], steps=40))
    check_perturbation(MyPerturbation)        # a class with a default budget, or any function without arguments
    check_signal(lambda classifier: EnsembleSignals([CAM(classifier), GRAD(classifier)]))
    check_certificate(MyInterpreter(classifier), x, y, sigma=0.1, radii=[0.1])
    check_planted(MyAttack)                   # a class, or any function from an interpreter to an attack
    check_planted(MyMapAttack, goal="kept/topk")

Each raises AssertionError with a sentence that says which promise was broken.
"""

from underfire.testing.attacks import check_attack, check_planted
from underfire.testing.certificates import check_certificate
from underfire.testing.common import smooth_classifier, token_classifier
from underfire.testing.interpreters import check_interpreter
from underfire.testing.perturbations import check_perturbation
from underfire.testing.planted import (
    GOALS,
    PlantedGoal,
    PlantedOptimum,
    Standing,
    Validity,
    by_iou,
    measure_validity,
)
from underfire.testing.planting import plant_optimum
from underfire.testing.signals import check_signal
from underfire.testing.swapped import swapped_classifier, swapped_optimum

__all__ = [
    "GOALS",
    "PlantedGoal",
    "PlantedOptimum",
    "Standing",
    "Validity",
    "by_iou",
    "check_attack",
    "check_certificate",
    "check_interpreter",
    "check_perturbation",
    "check_planted",
    "check_signal",
    "measure_validity",
    "plant_optimum",
    "smooth_classifier",
    "swapped_classifier",
    "swapped_optimum",
    "token_classifier",
]
