"""Attacks that know a detector, and what they return."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self, cast

from torch import Tensor

from underfire.attacks.joint import JointAttack
from underfire.attacks.result import AttackResult
from underfire.attacks.target_maps import TargetMap
from underfire.defenses.detector import Detector
from underfire.interpreters.base import Interpreter


@dataclass(frozen=True)
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


class DetectorAttack(JointAttack):
    """An attack on a classifier that a detector guards.

    Attributes:
        version: raised when the attack makes other images, so that cached ones are made again.
    """

    version: ClassVar[int]

    def __call__(
        self,
        x: Tensor,
        target: Tensor,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> DetectorAttackResult:
        """Attack images ``x`` (N, C, H, W) in [0, 1] towards the classes ``target`` (N,), as every `JointAttack`."""
        result = super().__call__(x, target, target_map=target_map, label=label, keys=keys)
        return cast("DetectorAttackResult", result)  # of run

    @abstractmethod
    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> DetectorAttackResult:
        """Attack a checked batch towards ``target`` (N,) and the maps (N, h, w) by interpreter."""
