"""What a training says of its held-out photos after each epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from underfire.training.step import StepOutput


@dataclass(frozen=True)
class Score:
    """Means over the held-out photos, seen whole and without augmentation.

    Attributes:
        loss: what is descended.
    """

    loss: float


@dataclass(frozen=True)
class RtsScore(Score):
    """That of a masking network; its loss has the area at its full weight, and parts are replaced by the blurred image.

    Attributes:
        clean, kept, destroyed: probability of the top class in the photo, in the salient part alone, and without it.
        area, absent_area: mean of the maps of the top class and of an absent one.
    """

    clean: float
    kept: float
    destroyed: float
    area: float
    absent_area: float


def numbers(seen: StepOutput) -> dict[str, Tensor]:
    """The numbers of a step that a :class:`RtsScore` averages, (N,) each."""
    return {field.name: getattr(seen, field.name).detach() for field in fields(RtsScore)}


def means(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """The mean of each number over the images of all ``parts``."""
    return {name: float(torch.cat([part[name] for part in parts]).double().mean()) for name in parts[0]}
