"""What was found out about a classifier, for as long as its tensors stay the same."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from underfire.models.classifier import Classifier

Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """Values by classifier and key. What was found on tensors that were changed since, or replaced, is forgotten."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Classifier, tuple[object, dict[Hashable, Found]]] = WeakKeyDictionary()

    def get(self, classifier: Classifier, key: Hashable, make: Callable[[], Found]) -> Found:
        """The value of ``key``, made now if it is not known; it must hold no reference to ``classifier``."""
        state = _state(classifier)
        if classifier not in self._known or self._known[classifier][0] != state:
            self._known[classifier] = (state, {})
        values = self._known[classifier][1]
        if key not in values:
            values[key] = make()
        return values[key]


def _state(classifier: Classifier) -> object:
    tensors = [*classifier.module.parameters(), *classifier.module.buffers()]
    return classifier.preprocessing, classifier.reading, tuple(map(_version, tensors))


def _version(tensor: Tensor) -> tuple[object, ...]:
    changes = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), changes, tensor.dtype, tensor.device
