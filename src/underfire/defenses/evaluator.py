"""Predictions and maps for detectors, computed afresh or cached for detectors that share interpreters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from underfire.defenses.mean_map import MeanMap
from underfire.errors import NonFiniteError
from underfire.interpreters.base import Interpreter, require_finite
from underfire.models.classifier import Classifier
from underfire.seeding import content_key

_Row = TypeVar("_Row")


class Evaluator:
    """Evaluates classifiers and interpreters on images, every time afresh."""

    def logits(self, classifier: Classifier, x: Tensor) -> Tensor:
        """The logits (N, K) of images ``x`` (N, C, H, W), detached.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """
        with torch.no_grad():
            logits = classifier(x)
        require_finite(logits, "the classifier's output")
        return logits

    def maps(self, interpreter: Interpreter | MeanMap, x: Tensor, classes: Tensor, keys: Sequence[str]) -> Tensor:
        """The maps (N, h, w) in [0, 1] of ``x`` (N, C, H, W), N ≥ 1, for ``classes`` (N,) on the native grid.

        ``keys`` name the owners of the images' random numbers.

        Raises:
            NonFiniteError: a map contains NaN or infinity.
        """
        if isinstance(interpreter, MeanMap):
            return interpreter.mean([self.maps(part, x, classes, keys) for part in interpreter.interpreters])
        return interpreter(x, classes, keys=keys)


class CachedEvaluator(Evaluator):
    """Keeps every row of logits by the image's content, and every map by content, class and key as well.

    A row depends on its own image alone, so that the results are the same bits in any batch.
    """

    def __init__(self) -> None:
        self._logits: dict[tuple[Classifier, str], Tensor] = {}
        self._maps: dict[tuple[Interpreter, str, int, str], Tensor] = {}

    def logits(self, classifier: Classifier, x: Tensor) -> Tensor:
        """As of an `Evaluator`; only images that were not seen before are computed."""
        rows = [(classifier, content_key(image)) for image in x]
        return _cached(self._logits, rows, lambda new: super(CachedEvaluator, self).logits(classifier, x[new]))

    def maps(self, interpreter: Interpreter | MeanMap, x: Tensor, classes: Tensor, keys: Sequence[str]) -> Tensor:
        """As of an `Evaluator`; only maps that were not computed before are, and of a mean map the parts are kept."""
        if isinstance(interpreter, MeanMap):
            return super().maps(interpreter, x, classes, keys)
        named = zip(map(content_key, x), classes.tolist(), keys, strict=True)
        rows = [(interpreter, *row) for row in named]

        def compute(new: list[int]) -> Tensor:
            return super(CachedEvaluator, self).maps(interpreter, x[new], classes[new], [keys[row] for row in new])

        return _cached(self._maps, rows, compute)


def _cached(cache: dict[_Row, Tensor], rows: Sequence[_Row], compute: Callable[[list[int]], Tensor]) -> Tensor:
    """The values (N, …) of ``rows``; those missing from ``cache`` are computed by their places, and added to it."""
    new = [place for place, row in enumerate(rows) if row not in cache]
    if new:
        with renumbered(new):
            values = compute(new)
        cache.update({rows[place]: value.clone() for place, value in zip(new, values, strict=True)})
    return torch.stack([cache[row] for row in rows])


@contextmanager
def renumbered(rows: Sequence[int]) -> Iterator[None]:
    """Let a `NonFiniteError` name the image of the whole batch where only its ``rows`` were evaluated."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(error.what, rows[error.index]) from error
