"""What a reader must know of certified radii, wherever they stand."""

from underfire.certificates.certificate import FEW
from underfire.present.text import agreeing, plural


def reservations(
    *, sigma: float, photos: int, abstained: int, censored: int, samples: int, cap: float, alpha: float
) -> str:
    """What stands beside the radii of ``photos`` at one σ.

    Args:
        sigma: σ, in pixel values.
        photos: how many there are.
        abstained: of these, those whose label is not certified.
        censored: of the others, those with too few wrong labels among their draws.
        samples: draws of each photo.
        cap: the longest radius for one query that so many draws allow.
        alpha: the chance, for each photo, that any of its figures is wrong.
    """
    abstain = f"{abstained} of {plural(photos, 'photo')} {agreeing(abstained, 'abstains', 'abstain')}"
    return (
        f"σ = {sigma:g}: {abstain}. Of the rest, {censored} had a wrong label in"
        f" fewer than {FEW} of {samples} draws (censored), so that their radii tell of the number of draws. No radius"
        f" can be longer than {cap:.3f}. Confidence 1 − {alpha:g} for each photo, over all its goals, interpreters, σ"
        " and pictures of cells."
    )
