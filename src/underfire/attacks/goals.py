"""What an attacker wants: a goal LABEL/MAP, and where it is met."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Self, get_args

import torch
from torch import Tensor

from underfire import metrics
from underfire.errors import InputError
from underfire.interpreters.map_goals import APART, CENTER, NEAR, TOP, TOPK, MapGoal
from underfire.interpreters.maps import RawLoss

LabelWord = Literal["target", "other", "kept"]
MapWord = Literal["kept", "topk", "center", "l1", "led", "free"]

MAP_GOALS: Mapping[MapWord, MapGoal] = MappingProxyType(
    {"kept": NEAR, "led": NEAR, "topk": TOPK, "center": CENTER, "l1": APART}
)
"""What is descended for each goal on maps."""

THRESHOLD = 0.5
"""Where the maps of goals that keep or lead a map are cut before their IoU is taken."""


@dataclass(frozen=True)
class Goal:
    """What label and map shall become, written LABEL/MAP.

    The label becomes the ``target`` class, any ``other`` class, or is ``kept``: the prediction, and its probability
    within 0.1. The map is ``kept`` near the benign one, moved away from it by its top cells (``topk``), its centre of
    mass (``center``) or its L1 distance (``l1``), ``led`` to a given one, or left ``free``.

    Raises:
        InputError: there is no such goal: a word is unknown, or nothing is asked for.
    """

    label: LabelWord
    map: MapWord

    def __post_init__(self) -> None:
        if self.label not in get_args(LabelWord) or self.map not in get_args(MapWord):
            raise InputError(
                f"goal '{self}' is unknown; give LABEL/MAP, LABEL one of {', '.join(get_args(LabelWord))} and MAP one "
                f"of {', '.join(get_args(MapWord))}."
            )
        if self.label == "kept" and self.map in ("kept", "free"):
            raise InputError(f"goal '{self}' asks for nothing; give one that changes the label or the map.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The goal that ``str`` writes as ``text``.

        Raises:
            InputError: there is none.
        """
        label, _, wanted = text.partition("/")
        return cls(label, wanted)  # type: ignore[arg-type]  # the words are checked there

    def __str__(self) -> str:
        """LABEL/MAP, as in ``target/kept``."""
        return f"{self.label}/{self.map}"

    @property
    def moves(self) -> bool:
        """Whether the map is to move away from the benign one."""
        return self.map in ("topk", "center", "l1")

    def map_met(self, maps: Tensor, reference: Tensor, *, tau: float) -> Tensor:
        """Where (N,) the map's part of the goal is met at ``tau``.

        ``kept`` and ``led``: the IoU of both maps, cut at 0.5, is at least ``tau``. ``topk`` and ``l1``: the IoU of
        their top fifths is at most ``tau``. ``center``: the centre of mass is shifted by at least ``tau`` diagonals. A
        constant map meets none of these. ``free``: everywhere.

        Args:
            maps: (N, h, w) in [0, 1].
            reference: the benign maps, or those led to.
            tau: in [0, 1].

        Raises:
            ValueError: the maps are of two shapes, or hold something else than finite numbers.
        """
        return self.shortfall(maps, reference, tau=tau) <= 0

    def shortfall(self, maps: Tensor, reference: Tensor, *, tau: float) -> Tensor:
        """How much (N,) the map's part of the goal is missed by at ``tau``, in its own measure; not above 0 where met.

        Arguments and errors are those of :meth:`map_met`.
        """
        if self.map == "free":
            return torch.zeros_like(maps[:, 0, 0])
        if self.map == "center":
            short = tau - metrics.center_shift(maps, reference)
        elif self.moves:
            short = metrics.iou_top(maps, reference, share=TOP) - tau
        else:
            short = tau - metrics.iou(maps, reference, threshold=THRESHOLD)
        return short.where(~metrics.is_constant(maps), 1.0)


@dataclass(frozen=True)
class Until:
    """A goal on maps that ends where it is met at ``tau``; until then a smaller shortfall is nearer."""

    goal: Goal
    tau: float

    name: ClassVar[str] = "until"
    enough: ClassVar[float] = -1.0  # the label may want more

    def aimed(self, reference: Tensor) -> Tensor:
        """As for the same goal without an end."""
        return MAP_GOALS[self.goal.map].aimed(reference)

    def loss(self, own: RawLoss) -> RawLoss:
        """As for the same goal without an end."""
        return MAP_GOALS[self.goal.map].loss(own)

    def distance(self, maps: Tensor, aimed: Tensor) -> Tensor:
        """The shortfall (N,); at most 0 where the goal is met."""
        reference = self.aimed(aimed)  # one less one less the maps
        return self.goal.shortfall(maps, reference, tau=self.tau).to(maps.dtype)


TARGET_KEPT: Final = Goal("target", "kept")
TARGET_FREE: Final = Goal("target", "free")
OTHER_KEPT: Final = Goal("other", "kept")
OTHER_FREE: Final = Goal("other", "free")
