"""Whether an attack on one interpreter brings another's map nearer the benign one than PGD does.

Two attacks are compared photo by photo, by a sign test: it is exact for any number of photos and any distribution,
which tests of means are not on the skewed distances of a few photos. Source: the claim is Observation 7 of Zhang et
al., "Interpretable Deep Learning under Fire", USENIX Security 2020; the test is ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from underfire.stats import bonferroni, sign_test

MARGIN = 0.2
"""A map is substantially nearer when its distance is less than that of PGD's map by more than this share."""


class Verdict(Enum):
    """What a sign test says of a majority of photos."""

    NEARER = "nearer"
    """On most photos the map is substantially nearer than PGD's."""
    NOT_NEARER = "not nearer"
    """On most photos it is not."""
    UNDECIDED = "not decided"
    """Neither can be told at this number of photos."""


@dataclass(frozen=True)
class Nearness:
    """On ``nearer`` of ``n`` photos the map was substantially nearer than PGD's; ``p`` is the sign test's."""

    nearer: int
    n: int
    p: float

    def verdict(self, looks: int) -> Verdict:
        """The verdict where ``looks`` such comparisons are made in all.

        By Bonferroni each is tested at (1 − `LEVEL`) / ``looks``, so that with probability `LEVEL` none of all the
        verdicts is wrong.

        Raises:
            ValueError: ``looks`` is below 1.
        """
        if self.p > bonferroni(looks):
            return Verdict.UNDECIDED
        return Verdict.NEARER if 2 * self.nearer > self.n else Verdict.NOT_NEARER


def nearness(attack: Sequence[float], pgd: Sequence[float], margin: float = MARGIN) -> Nearness:
    """Compares the distances (L1) of one attack's maps with those of PGD's maps of the same photos.

    Args:
        attack: one distance to the benign map per photo, at least 0.
        pgd: PGD's on the same photos, in the same order.
        margin: in [0, 1).

    Raises:
        ValueError: the lengths differ, a distance is negative or not finite, or ``margin`` is out of its range.
    """
    if len(attack) != len(pgd):
        raise ValueError(f"pairs need equally many distances, and got {len(attack)} and {len(pgd)}")
    if not all(math.isfinite(value) and value >= 0 for value in (*attack, *pgd)):
        raise ValueError("a distance is negative or not finite")
    if not 0 <= margin < 1:
        raise ValueError(f"margin is {margin}; it must lie in [0, 1)")
    nearer = sum(a < (1 - margin) * p for a, p in zip(attack, pgd, strict=True))
    return Nearness(nearer, len(attack), sign_test(nearer, len(attack)))
