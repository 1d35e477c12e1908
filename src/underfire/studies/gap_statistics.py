"""Can the label and the map be chosen apart? Maps that have nothing to do with the photo as targets.

The prediction–interpretation gap of Zhang et al. 2020 (Observation 8): an attacker who can show any map beside any
label proves that prediction and interpretation see different aspects of the model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from underfire.seeding import derive_seed
from underfire.stats import LEVEL, Share, sign_test, wilson

HALF_WAY = 0.5
"""The share of the distance to the target map that may be left: of each interpreter's own scale, and without an
opinion about which of two maps looks like a third."""


@dataclass(frozen=True)
class Trial:
    """One photo whose label and map were both chosen by an attacker, on the image as saved.

    Attributes:
        photo: its name.
        success: whether the prediction is the target.
        confidence: the probability of the target.
        l1, iou: between the attacked image's map and the target map, in [0, 1].
        l1_benign, iou_benign: the same for the benign photo's map.
        l1_pgd, iou_pgd: the same for the map of an attack on the prediction alone.
        pgd_success: whether that attack reached the target too.
    """

    photo: str
    success: bool
    confidence: float
    l1: float
    iou: float
    l1_benign: float
    iou_benign: float
    l1_pgd: float
    iou_pgd: float
    pgd_success: bool

    @property
    def succeeds(self) -> bool:
        """The label is the chosen one, and the map came at least half of the way to the chosen one.

        The way begins where the map is nearer without an attack on it: at the benign map, or at that of the attack
        on the prediction alone if it reached the target.
        """
        start = min(self.l1_benign, self.l1_pgd) if self.pgd_success else self.l1_benign
        return self.success and self.l1 <= HALF_WAY * start


def successes(trials: Iterable[Trial]) -> Share:
    """The share of trials that succeed, of all photos that were attacked."""
    outcomes = [trial.succeeds for trial in trials]
    return wilson(sum(outcomes), len(outcomes))


def works(rate: Share) -> bool | None:
    """Whether an attack with this rate of successes works: more often than not, by a sign test; None for undecided.

    The test is exact and two-sided, at 1 − `underfire.stats.LEVEL`: at least 6 photos are needed for a verdict.
    """
    return rate.k > rate.n / 2 if sign_test(rate.k, rate.n) <= 1 - LEVEL else None


def typical(trials: Sequence[Trial]) -> Trial | None:
    """The trial that stands for all: of those that reached the label the median by distance to the target map.

    The lower one of two; equal distances are told apart by the photos' names. None if no trial reached the label.
    """
    reached = sorted((t for t in trials if t.success), key=lambda t: (t.l1, t.photo))
    return reached[(len(reached) - 1) // 2] if reached else None


def companion(photo: str, target: int, labels: Mapping[str, int], *, seed: int) -> str | None:
    """Another photo of ``labels`` to take a map from: one of the class ``target``, as the authors do, if there is one.

    Else, since a set of photos rarely has one, a photo whose class is neither that of ``photo`` nor ``target``; None if
    there is none of those either. Drawn by (``seed``, ``photo``): every candidate has a number of its own and the
    lowest is taken, so that a photo added to or taken from the set changes the choice for few others.
    """
    others = {name: label for name, label in labels.items() if label != labels[photo]}
    candidates = [name for name, label in others.items() if label == target] or list(others)
    return min(candidates, key=lambda name: (derive_seed(seed, photo, name, "companion"), name), default=None)
