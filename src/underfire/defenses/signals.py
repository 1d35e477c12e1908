"""What a detector measures on an image: numbers that a defender can know."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

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
