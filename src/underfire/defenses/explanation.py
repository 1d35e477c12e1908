"""Why a detector flagged an image, or did not."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Reason:
    """What one signal says of one image.

    Attributes:
        name: of the signal.
        value: of the image.
        usual: the median of clean photos.
        spread: how far clean photos are from it, in the signal's units.
        contribution: to the squared distance from the clean photos, at least 0; those of all signals add up to it.
    """

    name: str
    value: float
    usual: float
    spread: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Why one image was flagged, or not.

    Attributes:
        key: of the image.
        score: higher is more like a clean photo; −½ of the squared distance.
        threshold: the lowest score that is not flagged.
        reasons: one for each signal, the largest contribution first.
        maps: what the interpreters show, (h, w) each, by their names.
    """

    key: str
    score: float
    threshold: float
    reasons: tuple[Reason, ...]
    maps: Mapping[str, Tensor]

    @property
    def flagged(self) -> bool:
        """Whether the score is below the threshold."""
        return self.score < self.threshold
