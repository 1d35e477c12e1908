"""Figures of the study of certificates and attacks: of one photo, and summed up over photos."""

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.attacks.goals import OTHER_FREE, Goal
from underfire.stats import NO_ESTIMATE, Estimate, median

BUYS = 0.03
"""By less than this share of the label's radius, a map buys nothing worth a word."""


@dataclass(frozen=True)
class SandwichPhoto:
    """One photo, σ, interpreter and goal.

    Attributes:
        interpreter, sigma, goal: whose certificate it is.
        count: draws of the photo itself that met the goal.
        radius: up to which no attacker reaches the goal at a rate of one half.
        label_radius: the same for a wrong label.
        cap: the longest radius that so many draws can certify.
        abstained: the draws don't show that the label is right more often than not.
        censored: that, or too few draws had a wrong label.
        attacked: whether an attack was tried.
        distance: of the nearest image found that reaches the goal; None where none was found.
        held: the same where noise is one draw that the attacker knows.
        passes: of the attack.
    """

    interpreter: str
    sigma: float
    goal: str
    count: int
    radius: float
    label_radius: float
    cap: float
    abstained: bool
    censored: bool
    attacked: bool
    distance: float | None
    held: float | None
    passes: int

    @property
    def ratio(self) -> float | None:
        """The found distance over the certified radius; None where the photo is censored, or there is none of both.

        It is 0 where noise was enough for half of the draws that score, although more draws certify otherwise.
        """
        if self.censored or not self.radius or self.distance is None:
            return None
        return self.distance / self.radius

    @property
    def buys(self) -> float | None:
        """By which share the radius is longer than that of a wrong label under any map.

        None where the photo is censored, and where the label is not to change.
        """
        if self.censored or self.goal == str(OTHER_FREE) or Goal.parse(self.goal).label == "kept":
            return None
        return self.radius / self.label_radius - 1


@dataclass(frozen=True)
class SandwichRow:
    """One σ, interpreter and goal, over ``n`` photos; estimates are medians.

    Attributes:
        abstained: photos whose label is not certified.
        few: others with too few wrong labels among their draws.
        unmet: photos none of whose draws met the goal, so that ``radius`` is the ``cap``.
        radius: the certified one, over all photos.
        attacked: photos that were attacked.
        missed: those of them for which no image was found.
        distance: of the nearest image found, over all others.
        ratio: of that distance to the radius, over photos that are not censored.
        held: as ``distance``, where noise is one draw that the attacker knows.
        buys: by which share the radius is longer than that of a wrong label, over photos that are not censored; of
            goals with another label.
        passes: of an attack, in the mean.
    """

    sigma: float
    interpreter: str
    goal: str
    n: int
    abstained: int
    few: int
    unmet: int
    cap: float
    radius: Estimate
    buys: Estimate
    attacked: int
    missed: int
    distance: Estimate
    ratio: Estimate
    held: Estimate
    passes: float | None


def row_of(photos: Sequence[SandwichPhoto]) -> SandwichRow:
    """What ``photos`` of one σ, interpreter and goal, at least one, have in common."""
    first, tried = photos[0], [photo for photo in photos if photo.attacked]
    return SandwichRow(
        sigma=first.sigma,
        interpreter=first.interpreter,
        goal=first.goal,
        n=len(photos),
        abstained=sum(photo.abstained for photo in photos),
        few=sum(photo.censored and not photo.abstained for photo in photos),
        unmet=sum(photo.count == 0 for photo in photos),
        cap=first.cap,
        radius=median([photo.radius for photo in photos]),
        buys=_median([photo.buys for photo in photos]),
        attacked=len(tried),
        missed=sum(photo.distance is None for photo in tried),
        distance=_median([photo.distance for photo in tried]),
        ratio=_median([photo.ratio for photo in tried]),
        held=_median([photo.held for photo in tried]),
        passes=sum(photo.passes for photo in tried) / len(tried) if tried else None,
    )


def _median(values: Sequence[float | None]) -> Estimate:
    """Of those there are."""
    there = [value for value in values if value is not None]
    return median(there) if there else NO_ESTIMATE
