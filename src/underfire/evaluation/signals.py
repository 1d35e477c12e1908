"""What detectors over many sets of interpreters measure in an image, cached by what the image shows; and their fit."""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from underfire.auditing.cache import Cache
from underfire.auditing.look import calling
from underfire.defenses.detector import Detector
from underfire.defenses.ensemble import settings_of
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.evaluator import CachedEvaluator
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import SIGNALS, Signal
from underfire.defenses.squeezing import SqueezingSignals
from underfire.errors import NonFiniteError
from underfire.evaluation.detectors import MEAN_MAP, SQUEEZING, AttackedDetector, CandidateDetector
from underfire.interpreters import Interpreter
from underfire.seeding import content_key, owners
from underfire.studies.source import Note

_SHARED = [signal for signal in SIGNALS if not signal.depends_on_set]
_OWN = [signal for signal in SIGNALS if signal.depends_on_set]
TOGETHER = 8
"""Images measured at a time: about as fast as any more, and small in memory."""


class SignalExtractor:
    """Measures the signals of several detectors at once, with every map and every view computed once.

    Most signals of a set are the same in any set that has their interpreters; they are measured once, on all
    interpreters together. Those that depend on the set as a whole are measured set by set, on the same maps.

    Args:
        interpreters: all that take part, of one classifier.
        candidates: whose interpreters are among these, in the same order.
        seed: of the detectors.
        shared: whether the signals that detectors share are measured too, or only those of one detector alone.

    Attributes:
        classifier: of the interpreters.
        interpreters: as given.
        names: of the columns of :meth:`measure`. Before a column that belongs to one detector alone stands its name.
    """

    def __init__(
        self,
        interpreters: Sequence[Interpreter],
        candidates: Sequence[CandidateDetector],
        *,
        seed: int,
        shared: bool = True,
    ) -> None:
        self.classifier, self._seed = interpreters[0].classifier, seed
        self.interpreters, self._candidates = tuple(interpreters), tuple(candidates)
        self._common = tuple(self._shared(None).names) if shared else ()
        self._alone = {c.name: self._names_of(c) for c in self._candidates}
        names = [*self._common, *(name for own in self._alone.values() for name in own)]
        self.names: tuple[str, ...] = tuple(names)
        self._places: Mapping[str, int] = {name: place for place, name in enumerate(names)}

    def measure(self, x: Tensor) -> Tensor:
        """The signals (N, S), float64 on the CPU, of images ``x`` (N, C, H, W) in [0, 1].

        Random numbers belong to an image's content, as for a defender who receives it. Raises as
        :meth:`underfire.defenses.signals.Signals.measure`.
        """
        parts = [torch.zeros((0, len(self.names)), dtype=torch.float64)]
        for start in range(0, len(x), TOGETHER):
            try:
                parts.append(self._measure(x[start : start + TOGETHER]))
            except NonFiniteError as error:
                raise NonFiniteError(error.what, start + error.index) from error
        return torch.cat(parts)

    def lacking(self, known: Container[str]) -> "SignalExtractor":
        """The extractor of those parts of this one, shared or of one detector, that have a column not ``known``."""

        def unknown(names: Iterable[str]) -> bool:
            return any(name not in known for name in names)

        candidates = [c for c in self._candidates if unknown(self._alone[c.name])]
        return SignalExtractor(self.interpreters, candidates, seed=self._seed, shared=unknown(self._common))

    def columns(self, candidate: CandidateDetector, detector: Detector) -> list[int]:
        """The columns of :meth:`measure` that are the signals of ``detector``, a detector of ``candidate``."""
        owned = {name: _owned(candidate, name) for name in detector.signals.names}
        return [self._places[own if own in self._places else name] for name, own in owned.items()]

    def _measure(self, x: Tensor) -> Tensor:
        x = x.to(self.classifier.device)
        keys = owners(x, None)
        evaluator = CachedEvaluator()
        parts = [self._shared(evaluator).measure(x, keys)] if self._common else []
        parts += [self._own(candidate, evaluator).measure(x, keys) for candidate in self._candidates]
        return torch.cat(parts, dim=1)

    def _names_of(self, candidate: CandidateDetector) -> tuple[str, ...]:
        return tuple(_owned(candidate, name) for name in self._own(candidate, None).names)

    def _shared(self, evaluator: CachedEvaluator | None) -> EnsembleSignals:
        return EnsembleSignals(self.interpreters, signals=_SHARED, seed=self._seed, evaluator=evaluator)

    def _own(
        self, candidate: CandidateDetector, evaluator: CachedEvaluator | None
    ) -> EnsembleSignals | SqueezingSignals:
        """The signals of ``candidate`` that no other has."""
        if candidate.baseline == SQUEEZING:
            return SqueezingSignals(self.classifier)
        if candidate.baseline == MEAN_MAP:
            return EnsembleSignals(MeanMap(candidate.interpreters), seed=self._seed, evaluator=evaluator)
        return EnsembleSignals(candidate.interpreters, signals=_OWN, seed=self._seed, evaluator=evaluator)


def _owned(candidate: CandidateDetector, signal: str) -> str:
    of = f"({'+'.join(g.name for g in candidate.interpreters)})" if candidate.baseline == MEAN_MAP else ""
    return f"{candidate.name}{of}: {signal}"


@dataclass(frozen=True)
class _ImageSignals:
    """The file of an image: the interpreters behind the values, as `_digest` names them, and the values by signal."""

    interpreters: dict[str, str]
    values: dict[str, float]


class SignalCache:
    """The signals of an extractor in any images, one file per image, named by what the image shows.

    Signals that an extractor has and an image's file has not are measured and added to the file, so that another set of
    the same interpreters costs little.

    Args:
        folder: its name is a `cache_key` of all that decides the values beside an image, a signal's name and what the
            interpreters are made of.
        extractor: random numbers belong to an image's content.
        note: reports what was measured.
    """

    def __init__(self, folder: Path, extractor: SignalExtractor, note: Note) -> None:
        self.extractor = extractor
        self._note = note
        self._made_of = {g.name: _digest(g) for g in extractor.interpreters}
        self._cache = Cache(folder, encode=asdict, decode=self._decoded)

    def values(self, x: Tensor, *, names: Sequence[str], what: str) -> Tensor:
        """The signals (N, S) of images ``x`` (N, C, H, W) on the CPU, of photos ``names``.

        ``what`` is noted where something was measured.

        Raises:
            InputError: a file is damaged, or a number is not finite.
        """
        keys = [content_key(image) for image in x]
        known = [self._cache.get(key) or _ImageSignals({}, {}) for key in keys]
        alike: dict[frozenset[str], list[int]] = {}
        for row, found in enumerate(known):
            if not found.values.keys() >= set(self.extractor.names):
                alike.setdefault(frozenset(found.values), []).append(row)
        for there, rows in alike.items():
            extractor = self.extractor.lacking(there)
            with calling([names[row] for row in rows]):
                measured = extractor.measure(x[rows])
            for row, line in zip(rows, measured.tolist(), strict=True):
                known[row].values.update(zip(extractor.names, line, strict=True))
                known[row].interpreters.update(self._made_of)
                self._cache.put(keys[row], known[row])
        if alike:
            self._note(what)
        columns = [[found.values[name] for name in self.extractor.names] for found in known]
        return torch.tensor(columns, dtype=torch.float64)

    def _decoded(self, content: Any) -> _ImageSignals:
        """What a file has; nothing, where it was measured with an interpreter that is a different one now."""
        known = _ImageSignals(
            {str(name): str(made_of) for name, made_of in content["interpreters"].items()},
            {str(name): float(value) for name, value in content["values"].items()},
        )
        same = all(known.interpreters.get(name, made_of) == made_of for name, made_of in self._made_of.items())
        return known if same else _ImageSignals({}, {})


def _digest(interpreter: Interpreter) -> str:
    """A name for the settings and weights of ``interpreter``."""
    return hashlib.sha256(repr(settings_of(interpreter)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class DetectorOutput:
    """A detector's score of an image, and its flags: at the nominal rate, and at the stricter one, None without it."""

    score: float
    flagged: bool
    flagged_strictly: bool | None


@dataclass(frozen=True)
class FittedDetector:
    """A candidate's detector, fitted at each of several false-positive rates, the nominal one first."""

    candidate: CandidateDetector
    detectors: tuple[AttackedDetector, ...]

    @classmethod
    def fit(
        cls,
        candidate: CandidateDetector,
        extractor: SignalExtractor,
        clean: Mapping[str, Tensor],
        *,
        rates: Sequence[float],
        seed: int,
        signals: Sequence[type[Signal]] = SIGNALS,
    ) -> Self:
        """Fits some of the candidate's ``signals`` on ``clean`` photos: by key the values (S,) of ``extractor``."""
        made = [candidate.detector(extractor.classifier, fpr=rate, seed=seed, signals=signals) for rate in rates]
        values = torch.stack(list(clean.values()))[:, extractor.columns(candidate, made[0])]
        return cls(candidate, tuple(detector.fit_measured(values, tuple(clean)) for detector in made))

    @property
    def detector(self) -> AttackedDetector:
        """The one at the nominal rate."""
        return self.detectors[0]

    def output(self, values: Tensor, extractor: SignalExtractor) -> DetectorOutput:
        """What it says of an image with the signals ``values`` (S,) of ``extractor``."""
        columns = extractor.columns(self.candidate, self.detector)
        score = float(self.detector.density_.score(values[None, columns]))
        flags = [score < detector.threshold_ for detector in self.detectors]
        return DetectorOutput(score, flags[0], flags[1] if len(flags) > 1 else None)
