"""What attacks that know a detector go by, and what they return."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.attacks.result import AttackResult
from underfire.defenses.detector import Detector


@dataclass(frozen=True, kw_only=True)
class DetectorAttackResult(AttackResult):
    """The outcome of an attack that knows a detector.

    Attributes:
        scores: (N,) of the detector for ``x_adv``, float64 on the CPU; higher is more like a clean photo.
        threshold: of the detector, the lowest score that is not flagged.
    """

    scores: Tensor
    threshold: float

    @classmethod
    def of(cls, result: AttackResult, detector: Detector, scores: Tensor) -> Self:
        """``result``, whose images have these ``scores`` of ``detector``."""
        plain = {field.name: getattr(result, field.name) for field in fields(AttackResult)}
        return cls(**plain, scores=scores, threshold=detector.threshold_)

    @property
    def evaded(self) -> Tensor:
        """(N,) bool: whether the prediction is the target class and the detector does not flag the image."""
        return self.success & (self.scores >= self.threshold).to(self.success.device)


@dataclass(frozen=True)
class ScoredImages:
    """Images (n, C, H, W) with what such an attack prefers some to others by.

    Attributes:
        images: (n, C, H, W).
        reached: (n,) whether the prediction is the target class, on the CPU.
        scores: (n,) of the detector, under the keys of a defender: the images' content. On the CPU.
        losses: (n,) of the prediction.
    """

    images: Tensor
    reached: Tensor
    scores: Tensor
    losses: Tensor

    @classmethod
    def of(cls, detector: Detector, images: Tensor, target: Tensor) -> Self:
        """``images``, attacked towards ``target`` (n,), by the unmodified classifier and its ``detector``."""
        with torch.no_grad():
            logits = detector.signals.classifier(images)
        reached = (logits.argmax(dim=1) == target).cpu()
        return cls(images, reached, detector.score_samples(images), F.cross_entropy(logits, target, reduction="none"))
