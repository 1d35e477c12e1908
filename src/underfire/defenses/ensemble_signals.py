"""What the maps of several interpreters say of each other and of the image, without any benign map.

The maps are those of the class that the classifier predicts, brought to one grid of 28×28 cells.
:mod:`underfire.defenses.signals` has what is measured on them, one file for each group of signals.

Whatever is summed over a row is summed exactly, or row by row, so that a batch gives the same bits split or whole.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from underfire.attacks.transforms import ImageTransform
from underfire.defenses.evaluator import Evaluator
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import SIGNALS, Signal, SignalInput
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter, check_together
from underfire.models.classifier import Classifier
from underfire.models.decisions import check_exclusive
from underfire.seeding import owners


class EnsembleSignals:
    """The signals of K interpreters of one classifier, or of the mean of their maps.

    Args:
        interpreters: one or several, of one classifier, or a mean map. A single map has no pairs, and no mean centroid
            but its own.
        signals: which are measured, each once; a class stands for its default at ``seed``. They are arranged in the
            order of :data:`underfire.defenses.signals.SIGNALS`, others behind.
        seed: of the random numbers of default signals.
        evaluator: computes predictions and maps; by default every time afresh.

    Attributes:
        version: raised when the same names get other values, so that cached ones are measured again.
        watched: whose maps are measured.
        interpreters: those that the maps are made from, and that an attacker has to deceive.
        signals: arranged.
        names: of the values.

    Raises:
        InputError: the interpreters or the signals don't belong together, or nothing is left to measure.
    """

    version: ClassVar[int] = 2

    def __init__(
        self,
        interpreters: Interpreter | MeanMap | Sequence[Interpreter],
        *,
        signals: Sequence[Signal | type[Signal]] = SIGNALS,
        seed: int = 0,
        evaluator: Evaluator | None = None,
    ) -> None:
        self.watched: tuple[Interpreter | MeanMap, ...]
        self.watched, self.interpreters = _watched(interpreters)
        check_exclusive("detectors", exclusive=self.classifier.decision.exclusive)
        size = self.classifier.input_size
        self.signals = _arranged([s if isinstance(s, Signal) else s.default(size, seed) for s in signals])
        self._evaluator = evaluator or Evaluator()
        if not self.signals:
            known = ", ".join(kind.name for kind in SIGNALS)
            raise InputError(f"no signal was given; give at least one of {known}.")
        called = [g.name for g in self.watched]
        self.names: tuple[str, ...] = tuple(name for s in self.signals for name in s.names(called))
        if not self.names:
            raise InputError("no signal is left to measure; a single interpreter has no pairs, so give another signal.")
        named = Counter([*(signal.name for signal in self.signals), *self.names])
        twice = next((name for name, times in named.items() if times > 1), None)
        if twice is not None:
            raise InputError(f"two signals have the name {twice!r}; give each signal once.")

    @property
    def classifier(self) -> Classifier:
        """The classifier that the interpreters explain."""
        return self.interpreters[0].classifier

    @property
    def passes_per_image(self) -> int:
        """Forward and backward passes of :meth:`measure` for an image that keeps its label under every view.

        A view under which it does not takes the passes of one map of each interpreter more.
        """
        own = 1 + sum(g.passes_per_map for g in self.watched)
        return own + sum(signal.passes(self.watched) for signal in self.signals)

    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """The signals (N, S), float64 on the CPU, of images ``x`` (N, C, H, W) in [0, 1].

        All maps of an image, or of a view of it, are computed once, with one call of each interpreter for the batch.
        ``keys`` names the owner of each image's random numbers, which its views share; by default the image's content.

        Raises:
            InputError: ``x`` is not what the classifier takes, or there is not one key per image.
            NonFiniteError: a logit or a map of an image, or of a view of it, is NaN or infinite.
        """
        self.classifier.check_images(x)
        owned = owners(x, keys)
        if not x.shape[0]:
            return torch.zeros((0, len(self.names)), dtype=torch.float64)
        given = SignalInput.of(self.watched, x, owned, self._evaluator)
        return torch.cat([signal.measure(given) for signal in self.signals], dim=1)

    def maps(self, x: Tensor, keys: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each interpreter's maps (N, h, w) in [0, 1], on its own grid, for the class predicted; raises as measure."""
        self.classifier.check_images(x)
        owned = owners(x, keys)
        if not x.shape[0]:
            return {g.name: x.new_zeros((0, *g.grid)) for g in self.watched}
        classes = self._evaluator.logits(self.classifier, x).argmax(dim=1)
        return {g.name: self._evaluator.maps(g, x, classes, owned) for g in self.watched}

    def transforms(self, target_maps: Mapping[str, Tensor], seed: int) -> tuple[ImageTransform, ...]:
        """Those of all signals, as :class:`underfire.defenses.signals.AttackableSignals` wants them."""
        found = [transform for signal in self.signals for transform in signal.transforms(target_maps, seed)]
        return tuple(sorted(found, key=lambda transform: not transform.maps))


def _arranged(signals: Sequence[Signal]) -> tuple[Signal, ...]:
    order = {kind.name: place for place, kind in enumerate(SIGNALS)}
    return tuple(sorted(signals, key=lambda signal: order.get(signal.name, len(order))))


def _watched(
    given: Interpreter | MeanMap | Sequence[Interpreter],
) -> tuple[tuple[Interpreter | MeanMap, ...], tuple[Interpreter, ...]]:
    """Whose maps are measured, and the interpreters that they are made from, checked."""
    if isinstance(given, MeanMap):
        return (given,), given.interpreters
    interpreters = (given,) if isinstance(given, Interpreter) else tuple(given)
    if not interpreters:
        raise InputError("no interpreter was given; an ensemble has at least one.")
    for other in interpreters:
        if not isinstance(other, Interpreter):
            raise InputError(
                f"{other!r} is no interpreter; give interpreters of a classifier, such as CAM(classifier)."
            )
    check_together(interpreters)
    return interpreters, interpreters
