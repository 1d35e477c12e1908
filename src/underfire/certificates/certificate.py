"""What a certificate says of N photos."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from underfire import display
from underfire.attacks.goals import OTHER_FREE
from underfire.certificates.bounds import (
    outvoted_rate,
    per_query,
    radius_below,
    rate_within,
    upper_limit,
    voted_rate,
)
from underfire.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 10
"""With fewer wrong labels among its draws, a photo's radii tell how many draws there were, and little of the photo."""

QUERIES = (1, 10, 100)
"""For so many queries a table gives radii."""


@dataclass(frozen=True)
class Certificate:
    """What no attack can do to N photos, when one randomised system shows label and map. Numbers are float64.

    All figures of a photo hold at once with a confidence of 1 − ``alpha``: for one photo, not for all N together.

    Attributes:
        interpreter: its name.
        keys: the photos' names.
        sigma: standard deviation of the noise, in pixel values.
        samples: draws of each photo that counted, n.
        alpha: shared evenly by the goals of a photo.
        radii: L2 distances R in pixel values, at which rates are given.
        iou, shift: where the map's part of a goal is met.
        counts: for each goal, in how many draws (N,) of the photo itself it was met.
    """

    interpreter: str
    keys: tuple[str, ...]
    sigma: float
    samples: int
    alpha: float
    radii: tuple[float, ...]
    iou: float
    shift: float
    counts: Mapping[str, Tensor]

    version: ClassVar[int] = 1
    """Raised whenever the same call counts other draws."""

    @property
    def goals(self) -> tuple[str, ...]:
        """LABEL/MAP each; the first is ``other/free``, a wrong label."""
        return tuple(self.counts)

    @property
    def limits(self) -> Mapping[str, Tensor]:
        """For each goal the upper limit (N,) of the probability that a draw of the photo itself meets it."""
        return {goal: upper_limit(found, self.samples, self._share) for goal, found in self.counts.items()}

    @property
    def rate(self) -> Mapping[str, Tensor]:
        """For each goal the certified success rate (N, R): no x′ within R has it met by a draw with a larger chance."""
        return {goal: self._rates(limit) for goal, limit in self.limits.items()}

    @property
    def label_radius(self) -> Tensor:
        """(N,) the radius within which a draw's label is right more often than not; 0 where nothing is certified.

        It is Cohen's, σΦ⁻¹ of the lower limit of a right label.
        """
        return self.radius(str(OTHER_FREE))

    @property
    def abstained(self) -> Tensor:
        """(N,) bool: the draws don't show that the label is right more often than not, and the radius is 0."""
        return self.label_radius == 0

    @property
    def censored(self) -> Tensor:
        """(N,) bool: abstained, or fewer than `FEW` draws had a wrong label, so that radii are near the `cap`."""
        return self.abstained | (self.counts[str(OTHER_FREE)] < FEW)

    def cap(self, rate: float = 0.5, queries: int = 1) -> float:
        """The largest radius that so many draws could certify, whatever the photo and the goal: none of them meets it.

        Raises:
            InputError: as :meth:`radius`.
        """
        limit = upper_limit(torch.zeros(1, dtype=torch.int64), self.samples, self._share)
        return float(radius_below(limit, per_query(rate, queries), self.sigma))

    def radius(self, goal: str, rate: float = 0.5, queries: int = 1) -> Tensor:
        """(N,) the L2 radius within which no attacker reaches ``goal`` with a probability of ``rate`` or more.

        Args:
            goal: one of :attr:`goals`.
            rate: in (0, 1).
            queries: how often the attacker, or a user who is not pleased, may ask the system, each time with fresh
                noise; one success counts.

        Raises:
            InputError: the goal was not counted, or a number is out of range.
        """
        self._check_goal(goal)
        return radius_below(self.limits[goal], per_query(rate, queries), self.sigma)

    def system_rate(self, goal: str, draws: int) -> Tensor:
        """(N, R): at most with which probability `Smoothed` of so many draws shows what ``goal`` wants.

        Raises:
            InputError: the goal was not counted, or ``draws`` is below 1.
        """
        self._check_goal(goal)
        found = voted_rate(self._rates(self.limits[goal]), draws)
        if goal.startswith("kept"):
            return found
        return torch.minimum(found, outvoted_rate(self._rates(self.limits[str(OTHER_FREE)]), draws))

    def rows(self) -> list[dict[str, float | int | bool | str]]:
        """One flat record per photo and goal, ready for a table: radii at a rate of one half for `QUERIES`."""
        limits, censored = self.limits, self.censored
        radii = {(g, k): self.radius(g, queries=k) for g in self.goals for k in QUERIES}
        return [
            {
                "key": key,
                "interpreter": self.interpreter,
                "goal": goal,
                "sigma": self.sigma,
                "samples": self.samples,
                "alpha": self.alpha,
                "count": int(self.counts[goal][place]),
                "limit": float(limits[goal][place]),
                **{f"radius_{k}": float(radii[goal, k][place]) for k in QUERIES},
                "cap": self.cap(),
                "censored": bool(censored[place]),
            }
            for place, key in enumerate(self.keys)
            for goal in self.goals
        ]

    def plot(self) -> "Figure":
        """For each goal the certified success rate against R: a thin line for each photo, a thick one for their mean.

        Each photo's line holds with a confidence of 1 − ``alpha``; their mean with 1 − N·``alpha`` at least.
        """
        drawn = display.figure(5.5, 3.5)
        axes = drawn.subplots()
        order = sorted(range(len(self.radii)), key=self.radii.__getitem__)
        radii = [self.radii[place] for place in order]
        for k, (goal, rates) in enumerate(self.rate.items() if self.keys else ()):
            thin, colour = rates[:, order], f"C{k}"
            axes.plot(radii, thin.mean(dim=0).tolist(), marker="o", markersize=3, color=colour, label=goal)
            for one in thin.tolist() if len(self.keys) > 1 else ():
                axes.plot(radii, one, color=colour, linewidth=0.6, alpha=0.4)
        axes.set(ylim=(-0.02, 1.02), xlabel="L2 distance R from the photo", ylabel="certified success rate")
        axes.set_title(f"{self.interpreter}, σ = {self.sigma:g}, photos: {len(self.keys)}")
        if self.keys:
            axes.legend()
        return drawn

    def _repr_html_(self) -> str:
        """What a notebook shows: counts and radii of each photo and goal, what to hold against them, and the plot."""
        shown = ("key", "goal", "count", *(f"radius_{k}" for k in QUERIES), "censored")
        rows = [{name: row[name] for name in shown} for row in self.rows()]
        number, abstained = len(self.keys), int(self.abstained.sum())
        censored = int(self.censored.sum()) - abstained
        title = (
            f"Certificate of {self.interpreter}, σ = {self.sigma:g}, {self.samples} draws: {abstained} of"
            f" {display.plural(number, 'photo')} {display.agreeing(abstained, 'abstains', 'abstain')}, {censored} more"
            f" {display.agreeing(censored, 'is', 'are')} censored"
        )
        note = (
            f"No radius for one query can be longer than {self.cap():.3g}."
            f" Confidence 1 − {self.alpha:g} for each photo, not for all together."
        )
        drawn = display.picture(self.plot(), alt="certified success rates by distance") if rows else ""
        return display.table(title, rows, note=note) + drawn

    @property
    def _share(self) -> float:
        return self.alpha / len(self.counts)

    def _rates(self, limit: Tensor) -> Tensor:
        return torch.stack([rate_within(limit, radius, self.sigma) for radius in self.radii], dim=1)

    def _check_goal(self, goal: str) -> None:
        if goal not in self.counts:
            raise InputError(f"goal {goal!r} was not counted; those that were are {', '.join(self.goals)}.")
