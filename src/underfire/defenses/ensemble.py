"""The detector that asks several interpreters: an attack that keeps the map of one does not keep those of all."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, ClassVar, Self

from torch import nn

from underfire.decoding import told_number
from underfire.defenses.detector import Detector
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import SIGNALS, Signal
from underfire.errors import InputError
from underfire.interpreters import ALL, Interpreter
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap
from underfire.weights import fingerprint

_ALWAYS_NAMED = ("pairs", "shapes", "agreed", "views")
"""Files of format 1 say of these signals whether they are measured, and name others only where they are."""


class EnsembleDetector(Detector):
    """Flags images whose maps, by K interpreters, are unlike those of clean photos; it never sees a benign map.

    What is measured is documented in :mod:`underfire.defenses.signals`, and what it costs is
    ``detector.signals.passes_per_image``.

        detector = EnsembleDetector([CAM(clf), GRAD(clf)], fpr=0.05).fit(clean_photos)
        detector.predict(x)     # (N,): −1 for images that are flagged, +1 for all others

    A file keeps the interpreters' names and settings. :meth:`load` makes interpreters of this package that have their
    defaults; for others, make the detector with them and call :meth:`restore`.

    Args:
        interpreters: one or several, of one classifier and different names, or a mean map.
        fpr: the rate of clean photos that may be flagged, in (0, 1).
        seed: of the views' noise, of ties, and of which clean photos go to which half.
        signals: which are measured, each once; a class stands for its default.

    Raises:
        InputError: an argument is out of its range, or the interpreters or signals don't belong together.
    """

    kind: ClassVar[str] = "ensemble"
    signals: EnsembleSignals

    def __init__(
        self,
        interpreters: Interpreter | MeanMap | Sequence[Interpreter],
        *,
        fpr: float = 0.05,
        seed: int = 0,
        signals: Sequence[Signal | type[Signal]] = SIGNALS,
    ) -> None:
        super().__init__(EnsembleSignals(interpreters, signals=signals, seed=seed), fpr=fpr, seed=seed)

    def settings(self) -> dict[str, Any]:
        """The interpreters and signals by name with their settings."""
        measured = {signal.name: True for signal in self.signals.signals}
        settings: dict[str, Any] = {
            "interpreters": {g.name: settings_of(g) for g in self.signals.watched},
            "groups": dict.fromkeys(_ALWAYS_NAMED, False) | measured,
            "views": [],
        }
        for signal in self.signals.signals:
            settings |= signal.settings()
        return settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], classifier: Classifier, *, fpr: float, seed: int) -> Self:
        """The detector, not fitted, of the package's interpreters and signals that ``settings`` name, by default ones.

        Raises:
            InputError: an interpreter or signal is not of this package, or the classifier cannot have it.
        """
        known = {kind.name: kind for kind in SIGNALS}
        named = [name for name, measured in settings["groups"].items() if measured]
        stranger = next((name for name in named if name not in known), None)
        if stranger is not None:
            raise InputError(
                f"{stranger!r} is no signal of this package; make the detector with yours, and call its restore."
            )
        if not isinstance(settings["interpreters"], dict):  # whose keys are texts, each there once
            raise TypeError("the interpreters are no object")
        interpreters = cls.interpreters_from(tuple(settings["interpreters"]), classifier)
        return cls(interpreters, fpr=fpr, seed=seed, signals=[known[name] for name in named])

    @classmethod
    def interpreters_from(cls, names: Sequence[str], classifier: Classifier) -> Sequence[Interpreter]:
        """The package's interpreters of these ``names``, with their defaults.

        Raises:
            InputError: one is not of this package, or the classifier cannot have it.
        """
        shipped = {kind.name: kind for kind in ALL}
        for name in names:
            if name not in shipped:
                raise InputError(
                    f"{name!r} is no interpreter of this package; make the detector with yours, and call its restore."
                )
        return [shipped[name](classifier) for name in names]


def settings_of(interpreter: Interpreter | MeanMap) -> dict[str, Any]:
    """The class and the public attributes of an interpreter, less its classifier and the implied, as values of JSON."""
    implied = interpreter.implied if isinstance(interpreter, Interpreter) else frozenset()
    untold = {"classifier", *implied}
    public = {name: value for name, value in vars(interpreter).items() if name[0] != "_" and name not in untold}
    return {"class": type(interpreter).__name__} | {name: _plain(public[name]) for name in sorted(public)}


def _plain(value: object) -> Any:
    """``value`` as JSON keeps it: weights by their hash, and any other kind of object by its class."""
    if isinstance(value, int | float):
        return told_number(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Interpreter):
        return settings_of(value)
    if isinstance(value, nn.Module):
        return fingerprint(value.state_dict())
    if isinstance(value, FeatureMap):
        return value.settings()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return type(value).__name__
