"""The detector that asks several interpreters: an attack that keeps the map of one does not keep those of all."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

from underfire.defenses.detector import Detector
from underfire.defenses.ensemble_signals import EVERY_GROUP, EnsembleSignals, Groups
from underfire.defenses.views import View, described
from underfire.errors import InputError
from underfire.interpreters import ALL, Interpreter
from underfire.models.classifier import Classifier


class EnsembleDetector(Detector):
    """Flags images whose maps, by K interpreters, are unlike those of clean photos; it never sees a benign map.

    What is measured is told in :mod:`underfire.defenses.ensemble_signals`, and what it costs by
    ``detector.signals.passes_per_image``.

        detector = EnsembleDetector([CAM(clf), GRAD(clf)], fpr=0.05).fit(clean_photos)
        detector.predict(x)     # (N,): −1 for images that are flagged, +1 for all others

    A file keeps the interpreters' names and settings. :meth:`load` makes interpreters of this package that have their
    defaults; for others, make the detector with them and call :meth:`restore`.

    Args:
        interpreters: one or several, of one classifier and different names.
        fpr: the rate of clean photos that may be flagged, in (0, 1).
        seed: of the views' noise, of ties, and of which clean photos go to which half.
        groups: which signals are measured.
        views: harmless views, of different names; by default those of :func:`underfire.defenses.views.harmless`.

    Raises:
        InputError: an argument is out of its range, or the interpreters or views don't belong together.
    """

    kind: ClassVar[str] = "ensemble"
    signals: EnsembleSignals

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        fpr: float = 0.05,
        seed: int = 0,
        groups: Groups = EVERY_GROUP,
        views: Sequence[View] | None = None,
    ) -> None:
        super().__init__(EnsembleSignals(interpreters, groups=groups, views=views, seed=seed), fpr=fpr, seed=seed)

    def settings(self) -> dict[str, Any]:
        """The interpreters by name with their settings, the groups, and the views."""
        return {
            "interpreters": {g.name: settings_of(g) for g in self.signals.interpreters},
            "groups": asdict(self.signals.groups),
            "views": [described(view) for view in self.signals.views],
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], classifier: Classifier, *, fpr: float, seed: int) -> Self:
        """The detector, not fitted, of the package's interpreters that ``settings`` name and the default views.

        Raises:
            InputError: an interpreter is not of this package, or the classifier cannot have it.
        """
        shipped = {kind.name: kind for kind in ALL}
        for name in settings["interpreters"]:
            if name not in shipped:
                raise InputError(
                    f"{name!r} is no interpreter of this package; make the detector with yours, and call its restore."
                )
        interpreters = [shipped[name](classifier) for name in settings["interpreters"]]
        return cls(interpreters, fpr=fpr, seed=seed, groups=Groups(**settings["groups"]))


def settings_of(interpreter: Interpreter) -> dict[str, Any]:
    """The class and the public attributes of an interpreter, less its classifier, as values of JSON."""
    public = {name: value for name, value in vars(interpreter).items() if not name.startswith("_")}
    del public["classifier"]
    return {"class": type(interpreter).__name__} | {name: _plain(public[name]) for name in sorted(public)}


def _plain(value: object) -> Any:
    """``value`` as JSON keeps it: weights by their hash, and what is of a kind of its own by its class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Interpreter):
        return settings_of(value)
    if isinstance(value, nn.Module):
        return _hash(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return type(value).__name__


def _hash(module: nn.Module) -> str:
    """SHA-256 (hex) over the module's parameters and buffers."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
