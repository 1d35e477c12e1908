"""What detectors over many sets of interpreters measure in an image, cached by what the image shows."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from underfire.auditing.cache import Cache, cache_key
from underfire.auditing.look import calling
from underfire.auditing.run import Run
from underfire.defenses.ensemble import settings_of
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.evaluator import CachedEvaluator, renumbered
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import SIGNALS
from underfire.defenses.squeezing import SqueezingSignals
from underfire.defenses.views import default_views, described
from underfire.evaluation.detectors import MEAN_MAP, SQUEEZING, CandidateDetector, SignalValues
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
        interpreters, seed: as given.
        classifier: of the interpreters.
        names: of the signals, those of one detector alone as `CandidateDetector.own` calls them.
    """

    def __init__(
        self,
        interpreters: Sequence[Interpreter],
        candidates: Sequence[CandidateDetector],
        *,
        seed: int,
        shared: bool = True,
    ) -> None:
        self.interpreters, self.seed = tuple(interpreters), seed
        self.classifier = interpreters[0].classifier
        self._candidates, self._has_shared = tuple(candidates), shared
        self.names = tuple(name for names, _ in self._parts() for name in names)

    def measure(self, x: Tensor, known: Collection[str] = ()) -> list[dict[str, float]]:
        """The signals of each of the images ``x`` (N, C, H, W) in [0, 1], by name.

        Parts whose signals are all ``known``, those shared or those of one detector, are left out. Random numbers
        belong to an image's content, as for a defender who receives it. Raises as
        :meth:`underfire.defenses.signals.Signals.measure`.
        """
        found: list[dict[str, float]] = []
        for start in range(0, len(x), TOGETHER):
            images = x[start : start + TOGETHER].to(self.classifier.device)
            keys = owners(images, None)
            rows: list[dict[str, float]] = [{} for _ in keys]
            for names, part in self._parts(CachedEvaluator()):
                if not set(known).issuperset(names):
                    with renumbered(range(start, start + TOGETHER)):
                        values = part.measure(images, keys).tolist()
                    for row, line in zip(rows, values, strict=True):
                        row.update(zip(names, line, strict=True))
            found += rows
        return found

    def _parts(
        self, evaluator: CachedEvaluator | None = None
    ) -> Iterator[tuple[tuple[str, ...], EnsembleSignals | SqueezingSignals]]:
        """What measures the signals that detectors share, and what those of each alone, with their names."""
        if self._has_shared:
            shared = EnsembleSignals(self.interpreters, signals=_SHARED, seed=self.seed, evaluator=evaluator)
            yield shared.names, shared
        for candidate in self._candidates:
            own: EnsembleSignals | SqueezingSignals
            if candidate.baseline == SQUEEZING:
                own = SqueezingSignals(self.classifier)
            elif candidate.baseline == MEAN_MAP:
                own = EnsembleSignals(MeanMap(candidate.interpreters), seed=self.seed, evaluator=evaluator)
            else:
                own = EnsembleSignals(candidate.interpreters, signals=_OWN, seed=self.seed, evaluator=evaluator)
            yield tuple(map(candidate.own, own.names)), own


@dataclass(frozen=True)
class _Kept:
    """The file of an image: the interpreters behind the values, as `_digest` names them, and the values by signal."""

    interpreters: dict[str, str]
    values: dict[str, float]


class SignalCache:
    """The signals of an extractor in any images, one file per image, named by what the image shows.

    Signals that an extractor has and an image's file has not are measured and added to the file, so that another set of
    the same interpreters costs little.

    Args:
        folder: its name is a `cache_key` of all that decides the values beside an image, a signal's name and what the
            interpreters are made of, see `signal_folder`.
        extractor: random numbers belong to an image's content.
        note: reports what was measured.
    """

    def __init__(self, folder: Path, extractor: SignalExtractor, note: Note) -> None:
        self._extractor, self._note = extractor, note
        self._made_of = {g.name: _digest(g) for g in extractor.interpreters}
        self._cache = Cache(folder, encode=asdict, decode=self._decoded)

    def values(self, x: Tensor, *, names: Sequence[str], what: str) -> list[SignalValues]:
        """The signals of each of the images ``x`` (N, C, H, W) on the CPU, of photos ``names``.

        ``what`` is noted where something was measured.

        Raises:
            InputError: a file is damaged, or a number is not finite.
        """
        wanted = self._extractor.names
        keys = [content_key(image) for image in x]
        kept = [self._cache.get(key) or _Kept({}, {}) for key in keys]
        alike: dict[frozenset[str], list[int]] = {}
        for row, found in enumerate(kept):
            if not found.values.keys() >= set(wanted):
                alike.setdefault(frozenset(found.values), []).append(row)
        for known, rows in alike.items():
            with calling([names[row] for row in rows]):
                measured = self._extractor.measure(x[rows], known)
            for row, values in zip(rows, measured, strict=True):
                kept[row].values.update(values)
                kept[row].interpreters.update(self._made_of)
                self._cache.put(keys[row], kept[row])
        if alike:
            self._note(what)
        return [{name: found.values[name] for name in wanted} for found in kept]

    def in_groups(
        self, names: Sequence[str], load: Callable[[range], Tensor], *, what: str, size: int = TOGETHER
    ) -> list[SignalValues]:
        """As :meth:`values`, of photos ``names``, ``size`` at a time: ``load`` gives the images at some places.

        With ``what`` stands in a note how many of them are done.
        """
        found: list[SignalValues] = []
        for start in range(0, len(names), size):
            places = range(start, min(start + size, len(names)))
            said = f"{what} {places.stop} of {len(names)}"
            found += self.values(load(places), names=names[places.start : places.stop], what=said)
        return found

    def _decoded(self, content: Any) -> _Kept:
        """What a file has; nothing, where it was measured with an interpreter that is a different one now."""
        kept = _Kept(
            {str(name): str(made_of) for name, made_of in content["interpreters"].items()},
            {str(name): float(value) for name, value in content["values"].items()},
        )
        same = all(kept.interpreters.get(name, made_of) == made_of for name, made_of in self._made_of.items())
        return kept if same else _Kept({}, {})


def signal_folder(run: Run, extractor: SignalExtractor, work: Path) -> Path:
    """Where in ``work`` the signals of images of ``run`` are kept, by all extractors of a classifier and seed."""
    classifier, seed = extractor.classifier, extractor.seed
    views = list(map(described, default_views(classifier.input_size, seed)))
    return work / "values" / cache_key(run, EnsembleSignals.version, classifier.fingerprint(), views, seed)


def _digest(interpreter: Interpreter) -> str:
    """A name for the settings and weights of ``interpreter``."""
    return hashlib.sha256(repr(settings_of(interpreter)).encode()).hexdigest()[:16]
