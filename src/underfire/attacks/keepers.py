"""Which iterate of an attack is kept, image by image."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from underfire.devices import maybe_any
from underfire.interpreters.map_goals import ENOUGH


@dataclass(frozen=True)
class IterateLosses:
    """What is known of one iterate of n images.

    Attributes:
        reached: (n,) bool, whether it has the label.
        nll: (n,) prediction loss.
        distance: (n,) map distance.
    """

    reached: Tensor
    nll: Tensor
    distance: Tensor


class Keeper(Protocol):
    """A rule by which an iterate takes the place of the one kept so far.

    Attributes:
        narrows: an image whose iterate is done needs no further step.
        looks_last: the last iterates have to be looked at before they may be kept.
    """

    narrows: ClassVar[bool]
    looks_last: ClassVar[bool]

    def wins(self, kept: IterateLosses, new: IterateLosses, /) -> Tensor:
        """Where (n,) the new iterate takes the place of the kept one."""
        ...


@dataclass(frozen=True)
class KeepBest:
    """An iterate with the label beats any without; of those with it the nearest to the target maps, else the surest.

    Of equals the later one.

    Attributes:
        margin: by so much nearer the maps must be to count as nearer.
    """

    margin: float = 0.0

    narrows: ClassVar[bool] = True
    looks_last: ClassVar[bool] = True

    def wins(self, kept: IterateLosses, new: IterateLosses, /) -> Tensor:
        """Where the new one is better."""
        lower = torch.where(new.reached, new.distance <= kept.distance - self.margin, new.nll <= kept.nll)
        return (new.reached & ~kept.reached) | ((new.reached == kept.reached) & lower)


@dataclass(frozen=True)
class KeepLatest:
    """The last iterate with the label, or the surest where none has it.

    For objectives whose map distance says little of the present iterate.
    """

    narrows: ClassVar[bool] = False
    looks_last: ClassVar[bool] = True

    def wins(self, kept: IterateLosses, new: IterateLosses, /) -> Tensor:
        """Where the new one has the label, or none had it yet and it has the lower prediction loss."""
        return new.reached | (~kept.reached & (new.nll <= kept.nll))


@dataclass(frozen=True)
class KeepLast:
    """The last iterate, whatever it is."""

    narrows: ClassVar[bool] = False
    looks_last: ClassVar[bool] = False

    def wins(self, _kept: IterateLosses, new: IterateLosses, /) -> Tensor:
        """Everywhere."""
        return torch.ones_like(new.reached)


BEST, LATEST, LAST = KeepBest(), KeepLatest(), KeepLast()


class KeptIterates:
    """The iterate that is kept of each image, as the parameters θ of its perturbation.

    Attributes:
        theta: parameters of the kept iterates, one row per image.
        nll, distance: (N,) their losses; infinite as long as nothing was offered.
    """

    def __init__(self, theta: Tensor, keeper: Keeper = BEST, enough: float = ENOUGH) -> None:
        n = theta.shape[0]
        self._enough = enough
        self.theta = theta.clone()
        self.nll = torch.full((n,), torch.inf, dtype=theta.dtype, device=theta.device)
        self.distance = self.nll.clone()
        self._reached = torch.zeros(n, dtype=torch.bool, device=theta.device)
        self._keeper = keeper

    def offer(
        self,
        theta: Tensor,
        *,
        rows: Tensor | slice,
        reached: Tensor,
        nll: Tensor,
        distance: Tensor,
        live: Tensor | None = None,
    ) -> None:
        """Keep ``theta`` of the images ``rows``, whose losses (n,) are these, where the keeper says so.

        ``live`` (n,) bool: those that take part; None for all.
        """
        kept = IterateLosses(self._reached[rows], self.nll[rows], self.distance[rows])
        wins = self._keeper.wins(kept, IterateLosses(reached, nll, distance))
        wins = wins if live is None else wins & live
        if not maybe_any(wins):
            return
        # Chosen by value and not by place: nothing waits to hear how many there are.
        self.theta[rows] = torch.where(wins.reshape(-1, *[1] * (theta.ndim - 1)), theta, self.theta[rows])
        self._reached[rows] = torch.where(wins, reached, kept.reached)
        self.nll[rows] = torch.where(wins, nll, kept.nll)
        self.distance[rows] = torch.where(wins, distance, kept.distance)

    def begin_anew(self) -> None:
        """Forget how good what is kept was, so that of the next iterates the best takes its place."""
        self.nll.fill_(torch.inf)
        self.distance.fill_(torch.inf)
        self._reached.fill_(False)

    def done(self, rows: Tensor) -> Tensor:
        """Which of the images ``rows`` need no further step: label reached, map distance small enough."""
        return self._reached[rows] & (self.distance[rows] <= self._enough)
