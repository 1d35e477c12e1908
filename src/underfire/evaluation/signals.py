"""What detectors over many sets of interpreters see in an image, with every map and every view computed once.

Most signals of a set are the same in any set that has their interpreters: what two maps say of each other, what a view
does to a map. They are measured once, on all interpreters together. Shapes and the agreed region, which depend on the
set as a whole, are measured set by set on the same maps.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.defenses.detector import Detector
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.evaluator import CachedEvaluator
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import SIGNALS, Signal
from underfire.defenses.squeezing import FeatureSqueezing, SqueezingSignals
from underfire.errors import NonFiniteError
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.seeding import owners

MEAN_MAP, SQUEEZING = "mean-map", "squeezing"
"""The baselines: a detector over the mean of several maps, and feature squeezing."""

_SHARED = [signal for signal in SIGNALS if not signal.depends_on_set]
_OWN = [signal for signal in SIGNALS if signal.depends_on_set]
TOGETHER = 8
"""Images measured at a time: about as fast as any more, and small in memory."""


@dataclass(frozen=True)
class Contender:
    """A detector that takes part.

    Attributes:
        key: what tables call it: ``grad+cam`` for a set, or a baseline's name.
        interpreters: of the set, or those whose mean map is watched; none for feature squeezing.
    """

    key: str
    interpreters: tuple[Interpreter, ...]

    @property
    def is_set(self) -> bool:
        """Whether it is a set of interpreters, and no baseline."""
        return self.key not in (MEAN_MAP, SQUEEZING)

    def detector(
        self, classifier: Classifier, *, fpr: float, seed: int, signals: Sequence[type[Signal]] = SIGNALS
    ) -> EnsembleDetector | FeatureSqueezing:
        """The detector, not fitted; feature squeezing has none of the ``signals``."""
        match self.key:
            case "squeezing":
                return FeatureSqueezing(classifier, fpr=fpr, seed=seed)
            case "mean-map":
                return EnsembleDetector(MeanMap(self.interpreters), fpr=fpr, seed=seed, signals=signals)
            case _:
                return EnsembleDetector(self.interpreters, fpr=fpr, seed=seed, signals=signals)


class Meter:
    """Measures the signals of several detectors at once.

    Args:
        interpreters: all that take part, of one classifier.
        contenders: whose interpreters are among these, in the same order.
        seed: of the detectors.
        shared: whether the signals that detectors share are measured too, or only those of one detector alone.

    Attributes:
        names: what the columns of :meth:`measure` are called. A column that belongs to one detector alone bears the
            detector's name before the signal's.
    """

    def __init__(
        self, interpreters: Sequence[Interpreter], contenders: Sequence[Contender], *, seed: int, shared: bool = True
    ) -> None:
        self._classifier, self._seed = interpreters[0].classifier, seed
        self._union, self._contenders = tuple(interpreters), tuple(contenders)
        self._common = tuple(self._shared(None).names) if shared else ()
        self._alone = {c.key: self._names_of(c) for c in self._contenders}
        names = [*self._common, *(name for own in self._alone.values() for name in own)]
        self.names: tuple[str, ...] = tuple(names)
        self._places: Mapping[str, int] = {name: place for place, name in enumerate(names)}

    def measure(self, x: Tensor) -> Tensor:
        """The signals (N, S), float64 on the CPU, of images ``x`` (N, C, H, W) in [0, 1].

        Random numbers belong to an image's content, as for a defender who is shown it. Raises as
        :meth:`underfire.defenses.signals.Signals.measure`.
        """
        parts = [torch.zeros((0, len(self.names)), dtype=torch.float64)]
        for start in range(0, len(x), TOGETHER):
            try:
                parts.append(self._measure(x[start : start + TOGETHER]))
            except NonFiniteError as error:
                raise NonFiniteError(error.what, start + error.index) from error
        return torch.cat(parts)

    @property
    def interpreters(self) -> tuple[Interpreter, ...]:
        """All that take part."""
        return self._union

    def lacking(self, known: Container[str]) -> "Meter":
        """The meter of those parts of this one, shared or of one detector, that have a column not ``known``."""

        def unknown(names: Iterable[str]) -> bool:
            return any(name not in known for name in names)

        contenders = [c for c in self._contenders if unknown(self._alone[c.key])]
        return Meter(self._union, contenders, seed=self._seed, shared=unknown(self._common))

    def columns(self, contender: Contender, detector: Detector) -> list[int]:
        """The columns of :meth:`measure` that are the signals of ``detector``, a detector of ``contender``."""
        owned = {name: _owned(contender, name) for name in detector.signals.names}
        return [self._places[own if own in self._places else name] for name, own in owned.items()]

    def _measure(self, x: Tensor) -> Tensor:
        x = x.to(self._classifier.device)
        keys = owners(x, None)
        evaluator = CachedEvaluator()
        parts = [self._shared(evaluator).measure(x, keys)] if self._common else []
        parts += [self._own(contender, evaluator).measure(x, keys) for contender in self._contenders]
        return torch.cat(parts, dim=1)

    def _names_of(self, contender: Contender) -> tuple[str, ...]:
        return tuple(_owned(contender, name) for name in self._own(contender, None).names)

    def _shared(self, evaluator: CachedEvaluator | None) -> EnsembleSignals:
        return EnsembleSignals(self._union, signals=_SHARED, seed=self._seed, evaluator=evaluator)

    def _own(self, contender: Contender, evaluator: CachedEvaluator | None) -> EnsembleSignals | SqueezingSignals:
        """The signals of ``contender`` that no other has."""
        if contender.key == SQUEEZING:
            return SqueezingSignals(self._classifier)
        if contender.key == MEAN_MAP:
            return EnsembleSignals(MeanMap(contender.interpreters), seed=self._seed, evaluator=evaluator)
        return EnsembleSignals(contender.interpreters, signals=_OWN, seed=self._seed, evaluator=evaluator)


def _owned(contender: Contender, signal: str) -> str:
    of = f"({'+'.join(g.name for g in contender.interpreters)})" if contender.key == MEAN_MAP else ""
    return f"{contender.key}{of}: {signal}"
