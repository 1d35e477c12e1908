"""What a detector measures on an image: numbers that a defender can know.

A :class:`Signal` is one group of them, on the maps of one or several interpreters.
:class:`underfire.defenses.ensemble_signals.EnsembleSignals` puts several together.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from underfire.attacks.transforms import ImageTransform
from underfire.defenses.evaluator import Evaluator
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.statistics import centred_ranks, on_grid
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier


class Signals(Protocol):
    """Numbers about one image, of a defender who has the image and the classifier and never a benign map.

    They are for the class that the classifier predicts on the image. A row depends on its own image and key alone: a
    batch split or whole gives the same bits on the CPU. Random numbers belong to a seed and the image's key.

    A signal is in units of which one is large: correlations, overlaps, probabilities, nats, shares of the image's side.
    :class:`underfire.defenses.density.Density` reads a signal that never varies on clean photos by that unit.
    """

    @property
    def classifier(self) -> Classifier:
        """Whose predictions they are about."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """One name per signal, S of them, each another, in words that a person reads."""
        ...

    @property
    def passes_per_image(self) -> int:
        """Forward and backward passes that :meth:`measure` takes for one image."""
        ...

    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """The signals (N, S), float64 on the CPU, finite, of images ``x`` (N, C, H, W) in [0, 1]; N may be 0.

        ``keys`` names the owner of each image's random numbers; by default the image's own content.

        Raises:
            InputError: ``x`` is not what the classifier takes, or there is not one key per image.
            NonFiniteError: a signal of an image is NaN or infinite.
        """
        ...

    def maps(self, x: Tensor, keys: Sequence[str] | None = None) -> Mapping[str, Tensor]:
        """The maps (N, h, w) in [0, 1] that a person is shown beside the signals, by their names; detached.

        Those of the class predicted, each on its own grid; none where the signals rest on none. Raises as
        :meth:`measure`.
        """
        ...


class AttackableSignals(Signals, Protocol):
    """Signals for which an adaptive attacker has something differentiable to descend on."""

    @property
    def interpreters(self) -> tuple[Interpreter, ...]:
        """Those to attack, of different names; none where the signals rest on no map."""
        ...

    def transforms(self, target_maps: Mapping[str, Tensor], seed: int, /) -> tuple[ImageTransform, ...]:
        """The transforms under which the signals see an image, those that attack maps first.

        Args:
            target_maps: of the attack, (N, h, w) by interpreter's name.
            seed: of the attack, for random transforms.
        """
        ...


@dataclass(frozen=True)
class SignalInput:
    """N images, N ≥ 1, with what signals are computed from. Maps are for the predicted class.

    Attributes:
        x: (N, C, H, W) in [0, 1].
        keys: the owners of the images' random numbers.
        logits: (N, K).
        classes: (N,) int64, the predicted ones.
        maps: by interpreter's name, (N, 28, 28) on the common grid, float64 on the CPU.
        ranks: of the maps, as :func:`underfire.defenses.statistics.centred_ranks` gives them.
        interpreters: whose maps they are.
        evaluator: computes further predictions and maps.
    """

    x: Tensor
    keys: tuple[str, ...]
    logits: Tensor
    classes: Tensor
    maps: Mapping[str, Tensor]
    ranks: Mapping[str, Tensor]
    interpreters: tuple[Interpreter | MeanMap, ...]
    evaluator: Evaluator

    @classmethod
    def of(
        cls,
        interpreters: Sequence[Interpreter | MeanMap],
        x: Tensor,
        keys: Sequence[str],
        evaluator: Evaluator | None = None,
    ) -> Self:
        """The input of checked images ``x``, each predicted and explained once.

        Raises:
            NonFiniteError: a logit or a map is NaN or infinite.
        """
        asked, watched = evaluator or Evaluator(), tuple(interpreters)
        x, owned = x.detach(), tuple(keys)
        logits = asked.logits(watched[0].classifier, x)
        classes = logits.argmax(dim=1)
        maps = {name: on_grid(found) for name, found in _native(asked, watched, x, classes, owned).items()}
        ranks = {name: centred_ranks(found) for name, found in maps.items()}
        return cls(x, owned, logits, classes, maps, ranks, watched, asked)

    def predict(self, x: Tensor) -> Tensor:
        """The logits (n, K) of other images ``x`` (n, C, H, W); raises `NonFiniteError`."""
        return self.evaluator.logits(self.interpreters[0].classifier, x)

    def explain(self, x: Tensor, classes: Tensor, keys: Sequence[str]) -> dict[str, Tensor]:
        """The maps (n, h, w) of other images, n ≥ 1, for ``classes`` (n,), by interpreter's name.

        Each is on its own grid, float64 on the CPU. Raises `NonFiniteError`.
        """
        return _native(self.evaluator, self.interpreters, x, classes, keys)


def _native(
    evaluator: Evaluator,
    interpreters: Sequence[Interpreter | MeanMap],
    x: Tensor,
    classes: Tensor,
    keys: Sequence[str],
) -> dict[str, Tensor]:
    return {g.name: evaluator.maps(g, x, classes, keys).to("cpu", torch.float64) for g in interpreters}


class Signal(ABC):
    """A group of numbers about an image, the prediction on it and its maps.

    A row of :meth:`measure` depends on its own image and key alone: a batch split or whole gives the same bits on the
    CPU. Values are in units of which one is large, see :class:`Signals`.

    Attributes:
        name: one word; files of detectors keep it.
        depends_on_set: whether a value of some interpreters depends on which others are watched beside them. If not,
            the values of a subset of interpreters are those of the same names among the values of the whole.
    """

    name: ClassVar[str]
    depends_on_set: ClassVar[bool] = True

    @classmethod
    def default(cls, size: tuple[int, int], seed: int) -> Self:  # noqa: ARG003 - for those that need them
        """The signal with its default settings, for images of ``size`` (H, W); ``seed`` is of its random numbers."""
        return cls()

    def settings(self) -> dict[str, Any]:
        """What a detector's file keeps of the settings, as values of JSON, under names that no other signal has."""
        return {}

    @abstractmethod
    def names(self, interpreters: Sequence[str], /) -> tuple[str, ...]:
        """The names of the S values, each another, in words that a person reads, of interpreters of these names.

        S may be 0.
        """

    @abstractmethod
    def measure(self, given: SignalInput, /) -> Tensor:
        """The values (N, S) in the order of :meth:`names`, float64 on the CPU, finite.

        Raises:
            NonFiniteError: a logit or a map is NaN or infinite.
        """

    def passes(self, _interpreters: Sequence[Interpreter | MeanMap], /) -> int:
        """Forward and backward passes for an image, beyond its own prediction and maps that every signal shares."""
        return 0

    def transforms(self, _target_maps: Mapping[str, Tensor], _seed: int, /) -> tuple[ImageTransform, ...]:
        """What an adaptive attacker descends through for this signal, see :class:`AttackableSignals`.

        None where the maps and the prediction on the image itself are all that the signal depends on.
        """
        return ()
