"""What an attack says about its own course, so that a weak one can be told from a safe explanation."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from underfire.attacks.keepers import KeptIterates
from underfire.devices import maybe_any


class Watcher(Protocol):
    """Follows an attack from iterate to iterate; what it raises ends the attack."""

    def __call__(self, rows: Tensor, x_adv: Tensor, passes: Tensor, /) -> None:
        """The images ``rows`` (n,) of the batch are ``x_adv`` (n, C, H, W) by now, at the cost of ``passes`` (n,).

        It is called within the attack's own block of the frozen classifier; ``x_adv`` is a copy.
        """
        ...


@dataclass(frozen=True)
class Course:
    """One loss of an attack on N images on its way down, (N,) each.

    Attributes:
        first: at the first iterate that this loss was asked of; of maps, at the first of these that has the label.
        half: of what was kept after half of the steps; infinite where nothing was kept yet.
        kept: of what was kept in the end; where the last iterate is kept whatever it is, of the one before, since
            nothing looks at the last.
    """

    first: Tensor
    half: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Trace:
    """The course of one attack on N images.

    Attributes:
        stuck: (N,) share of the steps at which the label did not hold and yet the gradient was zero in every pixel.
        prediction: the prediction loss −log p_t, in nats.
        maps: the distance to the target maps, the mean over the attacked interpreters; None where none is attacked.
    """

    stuck: Tensor
    prediction: Course
    maps: Course | None


class Recorder:
    """Writes the trace of a whole batch while the loop runs; ``rows`` are the images that a call is about.

    Attributes:
        passes: (N,) forward and backward passes spent on each image, int64.
    """

    def __init__(self, like: Tensor) -> None:
        n, device = like.shape[0], like.device
        self.passes = torch.zeros(n, dtype=torch.int64, device=device)
        self._nll = torch.full((n,), torch.nan, dtype=like.dtype, device=device)
        self._distance, self._with_label = self._nll.clone(), self._nll.clone()
        self._half: tuple[Tensor, Tensor] | None = None
        self._steps, self._stuck = torch.zeros_like(self._nll), torch.zeros_like(self._nll)

    def look(
        self,
        rows: Tensor,
        nll: Tensor,
        distance: Tensor | None,
        passes: int,
        *,
        reached: Tensor | None = None,
        live: Tensor | None = None,
    ) -> None:
        """One look at an iterate: its losses (N,), the map distance where maps are attacked, and what it cost.

        ``reached`` (N,) bool: whether it has the label; None where it always does when the map is asked for.
        ``live`` (N,) bool: who pays for it; None for all. The others have been looked at before.
        """
        self.passes[rows] += passes if live is None else passes * live
        _note_once(self._nll, rows, nll)
        if distance is not None:
            _note_once(self._distance, rows, distance)
            if reached is not None:
                _note_once(self._with_label, rows, distance.where(reached, torch.nan))

    def step(self, rows: Tensor, direction: Tensor, reached: Tensor, *, live: Tensor | None = None) -> None:
        """One step along ``direction`` (N, ...) away from an iterate whose label ``reached`` (N,) or not.

        ``live`` (N,) bool: who takes it; None for all.
        """
        taken = torch.ones_like(reached) if live is None else live
        self._steps[rows] += taken.to(self._steps)
        wanting = ~reached & taken
        if maybe_any(wanting):
            still = direction.flatten(1).abs().amax(dim=1) == 0
            self._stuck[rows] += (still & wanting).to(self._stuck)

    def halfway(self, best: KeptIterates) -> None:
        """Half of the steps are taken, and ``best`` is kept."""
        self._half = (best.nll.clone(), best.distance.clone())

    def trace(self, best: KeptIterates, *, joint: bool) -> Trace:
        """All of it, now that ``best`` is kept."""
        half_nll, half_distance = self._half or (
            best.nll,
            best.distance,
        )  # all images were done before half of the steps
        first = torch.where(self._with_label.isnan(), self._distance, self._with_label)
        maps = Course(first, half_distance, best.distance) if joint else None
        return Trace(self._stuck / self._steps.clamp_min(1), Course(self._nll, half_nll, best.nll), maps)


def _note_once(stored: Tensor, rows: Tensor, seen: Tensor) -> None:
    """Write ``seen`` to the ``rows`` of ``stored`` that hold NaN as yet."""
    stored[rows] = torch.where(stored[rows].isnan(), seen, stored[rows])
