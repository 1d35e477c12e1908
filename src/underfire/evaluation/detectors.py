"""Which detectors are compared: a candidate for each set of interpreters, the baselines, and the parts of a set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Self, TypeAlias

import torch

from underfire.attacks.registry import is_slow
from underfire.auditing.condition import interpreters_title
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan
from underfire.defenses.detector import photos_to_fit
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import SIGNALS, Signal
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.errors import InputError
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.present.text import plural

MEAN_MAP, SQUEEZING = "mean-map", "squeezing"
"""The baselines: a detector over the mean of several maps, and feature squeezing."""

_BASELINES = {MEAN_MAP: "the mean map", SQUEEZING: "feature squeezing"}

FPR = 0.05
"""The nominal false-positive rate where none is given."""

STRICT = 0.01
"""The stricter rate that is reported too, where there are enough photos for it."""

AttackedDetector: TypeAlias = EnsembleDetector | FeatureSqueezing
"""The kinds of detector that the adaptive attack knows."""

SignalValues: TypeAlias = Mapping[str, float]
"""An image's signals by name; before one that a single detector measures stands its name, see `CandidateDetector`."""


@dataclass(frozen=True)
class DetectorName:
    """What a detector is called.

    Attributes:
        interpreters: by name, of a set or of a mean map; none for feature squeezing.
        baseline: None for a set.
    """

    interpreters: tuple[str, ...]
    baseline: str | None = None

    def __str__(self) -> str:
        """As in tables: ``grad+cam`` for a set, or the baseline."""
        return "+".join(self.interpreters) if self.baseline is None else self.baseline

    @property
    def title(self) -> str:
        """As in words: ``GRAD + CAM`` for a set, or the baseline."""
        return interpreters_title(self.interpreters) if self.baseline is None else _BASELINES[self.baseline]


@dataclass(frozen=True)
class CandidateDetector:
    """A detector that is compared.

    Attributes:
        interpreters: of the set, or those whose mean map is watched; none for feature squeezing.
        baseline: None for a set.
    """

    interpreters: tuple[Interpreter, ...]
    baseline: str | None = None

    @property
    def name(self) -> DetectorName:
        """What it is called."""
        return DetectorName(tuple(g.name for g in self.interpreters), self.baseline)

    @property
    def is_set(self) -> bool:
        """Whether it is a set of interpreters, and no baseline."""
        return self.baseline is None

    def own(self, signal: str) -> str:
        """What a ``signal`` that depends on the whole of this detector is called among those of all detectors."""
        parts = f"({'+'.join(self.name.interpreters)})" if self.baseline == MEAN_MAP else ""
        return f"{self.name}{parts}: {signal}"

    def detector(
        self, classifier: Classifier, *, fpr: float, seed: int, signals: Sequence[type[Signal]] = SIGNALS
    ) -> AttackedDetector:
        """The detector, not fitted; feature squeezing has none of the ``signals``."""
        if self.baseline == SQUEEZING:
            return FeatureSqueezing(classifier, fpr=fpr, seed=seed)
        watched = MeanMap(self.interpreters) if self.baseline == MEAN_MAP else self.interpreters
        return EnsembleDetector(watched, fpr=fpr, seed=seed, signals=signals)


@dataclass(frozen=True)
class DetectorOutput:
    """A detector's score of an image, and its flags: at the nominal rate, and at the stricter one, None without it."""

    score: float
    flagged: bool
    flagged_strictly: bool | None


@dataclass(frozen=True)
class FittedDetector:
    """A candidate's detector, fitted at each of several false-positive rates.

    Attributes:
        candidate: which one.
        detectors: one for each rate, the nominal one first.
        columns: its signals, as they are called among those of all detectors.
    """

    candidate: CandidateDetector
    detectors: tuple[AttackedDetector, ...]
    columns: tuple[str, ...]

    @classmethod
    def fit(
        cls,
        candidate: CandidateDetector,
        classifier: Classifier,
        clean: Mapping[str, SignalValues],
        *,
        rates: Sequence[float],
        seed: int,
        signals: Sequence[type[Signal]] = SIGNALS,
    ) -> Self:
        """Fits some of the candidate's ``signals`` on ``clean`` photos, by key."""
        made = [candidate.detector(classifier, fpr=rate, seed=seed, signals=signals) for rate in rates]
        measured = next(iter(clean.values()))
        own = {name: candidate.own(name) for name in made[0].signals.names}
        columns = tuple(mine if mine in measured else name for name, mine in own.items())
        values = torch.tensor([[found[name] for name in columns] for found in clean.values()], dtype=torch.float64)
        return cls(candidate, tuple(detector.fit_measured(values, tuple(clean)) for detector in made), columns)

    @property
    def detector(self) -> AttackedDetector:
        """The one at the nominal rate."""
        return self.detectors[0]

    @property
    def passes_per_image(self) -> int:
        """What it costs."""
        return self.detector.signals.passes_per_image

    def output(self, values: SignalValues) -> DetectorOutput:
        """What it says of an image with the signals ``values``."""
        row = torch.tensor([[values[name] for name in self.columns]], dtype=torch.float64)
        score = float(self.detector.density_.score(row))
        flags = [score < detector.threshold_ for detector in self.detectors]
        return DetectorOutput(score, flags[0], flags[1] if len(flags) > 1 else None)


def named_sets(plan: AuditPlan, sets: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """``sets``, each in the order of the plan's interpreters and then of their first naming, and each once.

    Without any, all non-empty subsets of the plan's interpreters, small ones first, except of those whose every
    map takes many passes, as MASK's: a detector needs many maps.

    Raises:
        InputError: a set names an interpreter twice, or none is left.
    """
    if not sets:
        names = [name for name in plan.interpreters if not is_slow(name)]
        if not names:
            raise InputError(f"the run has no interpreter but {', '.join(plan.interpreters)}; name sets with --set")
        return tuple(found for size in range(1, len(names) + 1) for found in combinations(names, size))
    for names in map(list, sets):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"the set '{','.join(names)}' names '{twice}' twice; name it once")
    order = list(dict.fromkeys([*plan.interpreters, *chain.from_iterable(sets)]))
    return tuple(dict.fromkeys(tuple(sorted(names, key=order.index)) for names in sets))


def candidates_of(
    plan: AuditPlan, classifier: Classifier, sets: Sequence[Sequence[str]]
) -> tuple[tuple[Interpreter, ...], tuple[CandidateDetector, ...]]:
    """The interpreters that take part, and the detectors: one for each set of `named_sets`, and the baselines.

    The mean map is that of the largest set, if it has more than one interpreter.

    Raises:
        InputError: as `named_sets`, or ``classifier`` cannot have an interpreter.
    """
    named = named_sets(plan, sets)
    together = list(chain.from_iterable(named))
    order = dict.fromkeys([*plan.interpreters, *together])
    interpreters = make_interpreters([name for name in order if name in together], classifier, rts=plan.rts)
    by_name = {g.name: g for g in interpreters}
    candidates = [CandidateDetector(tuple(by_name[name] for name in names)) for names in named]
    most = largest(candidates).interpreters
    if len(most) > 1:
        candidates.append(CandidateDetector(most, MEAN_MAP))
    return interpreters, (*candidates, CandidateDetector((), SQUEEZING))


def largest(candidates: Sequence[CandidateDetector]) -> CandidateDetector:
    """The first of those with the most interpreters."""
    return max(candidates, key=lambda candidate: len(candidate.interpreters))


def check_enough(clean: int, fpr: float) -> None:
    """Refuse a number of ``clean`` photos that is too small for the rate ``fpr``; raises `InputError`."""
    needed = photos_to_fit(fpr)
    if clean < needed:
        raise InputError(
            f"{plural(clean, 'clean photo')} can be used, too few for a false-positive rate of {fpr:g}; give at least "
            f"{needed} with --clean, or a higher rate"
        )


def rates_for(clean: int, fpr: float) -> tuple[float, ...]:
    """The nominal rate, and the stricter one where there are enough photos for it."""
    check_enough(clean, fpr)
    return (fpr, STRICT) if fpr > STRICT and clean >= photos_to_fit(STRICT) else (fpr,)


@dataclass(frozen=True)
class SignalPart:
    """A part of a set's signals: those of one name ``alone``, or all others."""

    name: str
    alone: bool

    def __str__(self) -> str:
        return f"{self.name} alone" if self.alone else f"without {self.name}"


def ablations(candidate: CandidateDetector) -> dict[SignalPart, tuple[type[Signal], ...]]:
    """Each signal alone, and each left out, but for those of which the candidate's interpreters have none."""
    called = [g.name for g in candidate.interpreters]
    every = EnsembleSignals(candidate.interpreters).signals
    kinds = {signal.name: type(signal) for signal in every if signal.names(called)}
    alone = {SignalPart(name, alone=True): (kind,) for name, kind in kinds.items()}
    return alone | {
        SignalPart(left, alone=False): tuple(kind for name, kind in kinds.items() if name != left) for left in kinds
    }
