"""A detector: signals of an image, their density on clean photos, and a threshold at a named false-positive rate.

The object follows scikit-learn's outlier detectors (``IsolationForest``): ``fit`` on clean photos, higher scores are
more like a clean photo, ``predict`` says +1 for an inlier and −1 for a photo that is flagged. It learns from clean
photos alone, never from an attack.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from underfire.defenses.calibration import Calibration, calibrate, check_rate, photos_needed
from underfire.defenses.density import FEWEST, Density
from underfire.defenses.evaluator import renumbered
from underfire.defenses.explanation import Explanation, Reason
from underfire.defenses.saved import FORMAT, TENSORS, SavedDetector, check_classifier, checking, read
from underfire.defenses.signals import Signals
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.base import require_finite
from underfire.models.classifier import Classifier
from underfire.seeding import derive_seed, owners
from underfire.weights import write_weights


class Detector(ABC):
    """A detector of manipulated photos over any signals.

    A kind of detector gives ``kind``, :meth:`settings` and :meth:`from_settings`, and makes its signals in its
    constructor. Batches of any size are measured ``batch_size`` images at a time; no result depends on it.

    Args:
        signals: what is measured on an image.
        fpr: the rate of clean photos that may be flagged, in (0, 1).
        seed: which clean photos go to which half; a kind draws its signals' random numbers from it too.

    Attributes:
        kind: what files and command lines call it.
        density_type: how signals become a distance from clean photos.
        signals, fpr, seed: as given.
        batch_size: images measured at a time.
        density_: of the signals on one half of the clean photos, after ``fit``.
        calibration_: of the threshold on the other half, after ``fit``.

    Raises:
        InputError: ``fpr`` is out of its range.
    """

    kind: ClassVar[str]
    density_type: ClassVar[type[Density]] = Density
    batch_size: int = 16
    density_: Density
    calibration_: Calibration

    def __init__(self, signals: Signals, *, fpr: float = 0.05, seed: int = 0) -> None:
        check_rate(fpr)
        self.signals = signals
        self.fpr = fpr
        self.seed = seed

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What :meth:`from_settings` needs beside the classifier, ``fpr`` and ``seed``, as values of JSON."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Mapping[str, Any], classifier: Classifier, *, fpr: float, seed: int) -> Self:
        """The detector, not fitted, that has these ``settings``, on ``classifier``.

        Raises:
            InputError: the classifier cannot have it, or something that it needs is not at hand.
        """

    @property
    def threshold_(self) -> float:
        """The lowest score that is not flagged."""
        return self.calibration_.threshold

    @property
    def fpr_interval_(self) -> tuple[float, float]:
        """The 95 % interval of the true false-positive rate, see `Calibration.interval`."""
        return self.calibration_.interval()

    @property
    def n_fit_(self) -> int:
        """Clean photos behind the density."""
        return self.density_.n

    @property
    def n_calibration_(self) -> int:
        """Clean photos behind the threshold."""
        return self.calibration_.n

    def fit(self, x: Tensor, keys: Sequence[str] | None = None) -> Self:
        """Learn what clean photos ``x`` (N, C, H, W) in [0, 1] look like, and set the threshold.

        One half, drawn by seed and key, gives the density and the other the threshold; the order of the photos does
        not matter. ``keys`` names the photos, by default their own content.

        Raises:
            InputError: too few photos for ``fpr``, two of one key, or ``x`` is not what the classifier takes.
            NonFiniteError: a signal of a photo is NaN or infinite.
        """
        self.signals.classifier.check_images(x)
        names = owners(x, keys)
        self.check_photos(names)  # before the long work
        return self.fit_measured(self._measure(x, names), names)

    def check_photos(self, keys: Sequence[str]) -> None:
        """Refuse clean photos ``keys`` that are too few for ``fpr``, or of which two are one; raises `InputError`."""
        twice = next((key for key, times in Counter(keys).items() if times > 1), None)
        if twice is not None:
            raise InputError(f"two clean photos have the key {twice!r}; give every photo once, with a unique key.")
        needed = photos_to_fit(self.fpr)
        if len(keys) < needed:
            raise InputError(
                f"{len(keys)} clean photos are too few for a false-positive rate of {self.fpr}: half of them set the"
                f" threshold; give at least {needed}, or a higher rate."
            )

    def fit_measured(self, values: Tensor, keys: Sequence[str]) -> Self:
        """As :meth:`fit`, of photos ``keys`` whose signals ``values`` (N, S) were measured before. Raises as it."""
        count = len(self.signals.names)
        if values.shape != (len(keys), count):
            raise InputError(
                f"signals {tuple(values.shape)} were given for {len(keys)} photos; give ({len(keys)}, {count})."
            )
        self.check_photos(keys)
        self._check_finite(values)
        order = sorted(range(len(keys)), key=lambda i: (derive_seed(self.seed, keys[i], "half"), keys[i]))
        half = len(order) // 2
        density = self.density_type.fit(values[order[:half]])
        self.calibration_ = calibrate(density.score(values[order[half:]]), self.fpr)
        self.density_ = density
        return self

    def score_samples(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Scores (N,), float64 on the CPU, at most 0, of ``x`` (N, C, H, W); higher is more like a clean photo.

        Raises:
            InputError: the detector is not fitted, or ``x`` is not what the classifier takes.
            NonFiniteError: a signal of an image, or the score, is NaN or infinite.
        """
        return self._scored(x, keys)[2]

    def decision_function(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Scores (N,) less the threshold: negative for images that are flagged. Raises as :meth:`score_samples`."""
        scores = self.score_samples(x, keys)
        return scores - self.threshold_

    def predict(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """int64 (N,): −1 for images that are flagged, +1 for all others. Raises as :meth:`score_samples`."""
        return torch.where(self.decision_function(x, keys) < 0, -1, 1)

    def explain(self, x: Tensor, keys: Sequence[str] | None = None) -> tuple[Explanation, ...]:
        """Why each image of ``x`` (N, C, H, W) is flagged, or not: its signals, and its maps, computed once more.

        Raises as :meth:`score_samples`.
        """
        owned, values, _ = self._scored(x, keys)
        found: list[Explanation] = []
        for images, names in self._batches(x, owned):
            maps = self.signals.maps(images, names)
            for i, key in enumerate(names):
                row = values[len(found)][None]
                found.append(self._explained(key, row, {name: group[i] for name, group in maps.items()}))
        return tuple(found)

    def save(self, path: str | Path) -> None:
        """Write the fitted detector to ``path``: a safetensors file with JSON in its header, whole or not at all.

        Raises:
            InputError: the detector is not fitted, or ``path`` is a folder or in none.
        """
        self.check_fitted()
        path = Path(path)
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"'{path}' cannot be written; give the name of a file in a folder that exists.")
        about = {
            "format": FORMAT,
            "detector": self.kind,
            "classifier": {"name": self.signals.classifier.name, "fingerprint": self.signals.classifier.fingerprint()},
            "settings": self.settings(),
            "fpr": self.fpr,
            "seed": self.seed,
            "signals": list(self.signals.names),
            "n_fit": self.n_fit_,
            "n_calibration": self.n_calibration_,
            "shrinkage": self.density_.shrinkage,
            "threshold": self.threshold_,
        }
        write_weights(path, {name: getattr(self.density_, name) for name in TENSORS}, about)

    @classmethod
    def load(cls, path: str | Path, classifier: Classifier) -> Self:
        """The fitted detector that :meth:`save` wrote to ``path``, for the same classifier; its scores are the same.

        Raises:
            InputError: the file is missing, damaged, of another kind of detector or for another classifier.
        """
        path = Path(path)
        saved = read(path, cls.kind)
        check_classifier(path, saved.fit, classifier)
        with checking(path):
            detector = cls.from_settings(saved.settings, classifier, fpr=saved.fit.fpr, seed=saved.fit.seed)
        detector._take(path, saved)
        return detector

    def restore(self, path: str | Path) -> Self:
        """Take the fit that :meth:`save` wrote to ``path``, and return self.

        For a detector with parts that the file cannot make again, as interpreters of one's own.

        Raises:
            InputError: the file is missing or damaged, or was saved by a detector with other settings, signals or
                classifier.
        """
        path = Path(path)
        saved = read(path, self.kind)
        check_classifier(path, saved.fit, self.signals.classifier)
        self._take(path, saved)
        return self

    def _take(self, path: Path, saved: SavedDetector) -> None:
        """Take the fit of a file, if it is that of a detector like this."""
        fit = saved.fit
        its = {"settings": saved.settings, "fpr": fit.fpr, "seed": fit.seed, "signals": list(fit.signals)}
        mine = json.loads(json.dumps({"settings": self.settings(), "fpr": self.fpr, "seed": self.seed}))
        mine["signals"] = list(self.signals.names)
        for what, wanted in mine.items():
            if its[what] != wanted:
                raise InputError(
                    f"'{path}' was fitted with other {what} ({_shortened(its[what])}) than this detector's"
                    f" ({_shortened(wanted)}); fit again."
                )
        with checking(path):
            density = self.density_type(fit.n_fit, shrinkage=fit.shrinkage, **saved.tensors)
            calibration = Calibration(self.fpr, fit.n_calibration, fit.threshold)
            if len(density.centre) != len(self.signals.names):
                raise ValueError(f"{len(density.centre)} signals are not {len(self.signals.names)}")
        self.density_, self.calibration_ = density, calibration

    def _explained(self, key: str, values: Tensor, maps: Mapping[str, Tensor]) -> Explanation:
        """The explanation of one image with the signals ``values`` (1, S)."""
        density = self.density_
        columns = (values[0], density.centre, density.spread, density.contributions(values)[0])
        rows = zip(self.signals.names, *(column.tolist() for column in columns), strict=True)
        reasons = sorted((Reason(*row) for row in rows), key=lambda reason: -reason.contribution)
        return Explanation(key, float(density.score(values)), self.threshold_, tuple(reasons), maps)

    def _scored(self, x: Tensor, keys: Sequence[str] | None) -> tuple[tuple[str, ...], Tensor, Tensor]:
        """The images' keys, their signals (N, S) and their scores (N,), all checked."""
        self.check_fitted()
        self.signals.classifier.check_images(x)
        names = owners(x, keys)
        values = self._measure(x, names)
        scores = self.density_.score(values)
        require_finite(scores[:, None], "the score")
        return names, values, scores

    def _measure(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        """The signals (N, S) of checked images, a few at a time."""
        parts = [torch.zeros((0, len(self.signals.names)), dtype=torch.float64)]
        start = 0
        for images, batch in self._batches(x, names):
            with renumbered(range(start, start + len(batch))):
                parts.append(self.signals.measure(images, batch))
            start += len(batch)
        values = torch.cat(parts)
        self._check_finite(values)
        return values

    def _batches(self, x: Tensor, names: tuple[str, ...]) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
        for start in range(0, x.shape[0], self.batch_size):
            part = slice(start, start + self.batch_size)
            yield x[part], names[part]

    def _check_finite(self, values: Tensor) -> None:
        """Raise NonFiniteError naming the first image with a signal that is NaN or infinite, and the signal."""
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise NonFiniteError(f"the signal {self.signals.names[column]!r}", row)

    def check_fitted(self) -> None:
        """Refuse to go on before :meth:`fit`; raises `InputError`."""
        if not hasattr(self, "calibration_"):
            raise InputError(f"the {self.kind} detector is not fitted; call fit with clean photos, or load a file.")


def photos_to_fit(fpr: float) -> int:
    """The fewest clean photos for a detector at the rate ``fpr``; raises `InputError` if that is out of its range."""
    # The first half, rounded down, is for the density.
    return max(2 * FEWEST, 2 * photos_needed(fpr) - 1)


def _shortened(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
