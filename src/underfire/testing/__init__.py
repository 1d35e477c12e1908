"""The contracts of the parts, as suites that anyone can run on their own.

    from underfire.testing import check_attack, check_interpreter, check_perturbation, check_signal
    check_interpreter(MyInterpreter)          # a class, or any function from a classifier to an interpreter
    check_attack(lambda classifier: MyAttack([CAM(classifier)], steps=40))
    check_perturbation(MyPerturbation)        # a class with a default budget, or any function without arguments
    check_signal(lambda classifier: EnsembleSignals([CAM(classifier), GRAD(classifier)]))

Each raises AssertionError with a sentence that says which promise was broken.
"""

from underfire.testing.attacks import check_attack
from underfire.testing.common import smooth_classifier, token_classifier
from underfire.testing.interpreters import check_interpreter
from underfire.testing.perturbations import check_perturbation
from underfire.testing.signals import check_signal

__all__ = [
    "check_attack",
    "check_interpreter",
    "check_perturbation",
    "check_signal",
    "smooth_classifier",
    "token_classifier",
]
