"""Fixtures that several test files share."""

import gc
import importlib.util
import os
from types import ModuleType

# Read once, when torch is loaded: threads that wait asleep don't slow tests down tenfold on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The kernels that every x86 machine of the last ten years has: wider ones add in another order, and a dozen steps of an
# attack on gradients make a grey level of the last bit.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import pytest
from hypothesis import settings

from support.stand_ins import torchvision_operators
from support.toys import relu_net, smooth_net
from underfire.models.classifier import Classifier

# The time per example tells more about a busy machine than about the code. In CI the examples are fixed.
settings.register_profile("underfire", deadline=None, derandomize="CI" in os.environ, max_examples=25)
settings.register_profile("full", settings.get_profile("underfire"), max_examples=100)
settings.load_profile("underfire")


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def smooth_classifier() -> Classifier:
    """A twice differentiable toy on 16×16 pictures, ten classes."""
    return Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16, name="smooth toy")


@pytest.fixture
def smooth_classifier64() -> Classifier:
    """The smooth toy in float64, for finite differences."""
    return Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16, name="smooth toy")


@pytest.fixture
def relu_classifier() -> Classifier:
    """A toy with batch norm, ReLU and max pooling on 32×32 pictures, ten classes."""
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


@pytest.fixture(params=["smooth", "relu"])
def toy_classifier(request: pytest.FixtureRequest) -> Classifier:
    """Either toy in turn."""
    classifier: Classifier = request.getfixturevalue(f"{request.param}_classifier")
    return classifier


@pytest.fixture(scope="session")
def efficientnet() -> Classifier:
    """The built-in EfficientNet-Lite0; tests that ask for it are marked ``real``."""
    from underfire.models import load_classifier

    return load_classifier()


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision, which can be imported."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    torchvision_operators()
    return importlib.import_module("torchvision")
