"""Do gradients mislead? An attack that uses none must not do better than one that does (Athalye et al. 2018)."""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from underfire.attacks.labels import Confidence
from underfire.attacks.result import AttackResult
from underfire.display import plural
from underfire.errors import InputError

CLEARLY = 0.01
"""A mean gap to the target maps smaller by more than this, a hundredth of a map's range, is clearly smaller."""

_ROUNDING = 1e-3  # of p_t, between the classifier that the attack ran on and the one that scores it


class Lead(StrEnum):
    """In what one attack on a photo did better than another."""

    LABEL = "label"
    """It alone reached the target class."""
    MAPS = "maps"
    """Both reached it, and its maps are clearly nearer to their targets, while p_t is at least 0.9 or no lower than
    the other's."""


@dataclass(frozen=True)
class Ending:
    """What an attack made of one photo.

    Attributes:
        success: the prediction is the target class.
        confidence: p_t.
        gap: mean distance of the maps to their targets, the mean over the interpreters; None where it is not to be
            compared.
    """

    success: bool
    confidence: float
    gap: float | None = None


def lead(white_box: Ending, blind: Ending) -> Lead | None:
    """In what the attack without gradients, ``blind``, did better on one photo; None if it didn't."""
    if not blind.success:
        return None
    if not white_box.success:
        return Lead.LABEL
    if blind.gap is None or white_box.gap is None:
        return None
    enough = min(white_box.confidence, Confidence().keep) - _ROUNDING
    return Lead.MAPS if blind.confidence >= enough and blind.gap < white_box.gap - CLEARLY else None


def finding(
    better: int,
    reached: int,
    n: int,
    *,
    blind: str = "The attack without gradients",
    white_box: str = "the white-box attack",
) -> str:
    """What a comparison on ``n`` photos shows, in plain words.

    Args:
        better: on how many photos the attack without gradients did better.
        reached: how many photos it brought to the target class. One that reaches none may only be too weak.
        n: photos compared.
        blind: that attack, to begin a sentence with.
        white_box: the other one.
    """
    photos = plural(n, "photo")
    if n == 0:
        return f"{blind} was compared with {white_box} on no photo."
    if better:
        return (
            f"{blind} did better than {white_box} on {better} of {photos}: gradients of this model mislead, or"
            f" {white_box} was too short; its figures are not to be trusted. {blind} reached the target class on"
            f" {reached} of {photos}."
        )
    nothing = f"{blind} found nothing that {white_box} missed on {photos}"
    if reached:
        return f"{nothing}. It reached the target class on {reached} of {photos}."
    return f"{nothing}, but it reached the target class on none itself, so that its silence proves little."


@dataclass(frozen=True)
class Masking:
    """Where an attack without gradients did better than one with them, on N photos.

    Attributes:
        keys: one name per photo.
        leads: one per photo, in what it did better, or None.
        reached: one per photo, whether it brought the photo to the target class itself.
    """

    keys: tuple[str, ...]
    leads: tuple[Lead | None, ...]
    reached: tuple[bool, ...]

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        return finding(len(list(filter(None, self.leads))), sum(self.reached), len(self.keys))


def compare(white_box: AttackResult, score_based: AttackResult) -> Masking:
    """Compare two attacks on the same photos, with the same target classes, target maps and budget.

    Raises:
        InputError: the two had different goals.
    """
    _check_same_goal(white_box, score_based)
    pairs = zip(_endings(white_box), _endings(score_based), strict=True)
    reached = tuple(score_based.success.tolist())
    return Masking(white_box.keys, tuple(lead(white, blind) for white, blind in pairs), reached)


def _endings(result: AttackResult) -> list[Ending]:
    columns = (result.success, result.confidence, _gap(result))
    return [Ending(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _gap(result: AttackResult) -> Tensor:
    """(N,) mean distance of the maps to their targets, the mean over the interpreters; 0 where none is attacked."""
    gaps = [(maps - result.target_maps[name]).abs().mean(dim=(1, 2)) for name, maps in result.maps.items()]
    return torch.stack(gaps).mean(dim=0) if gaps else torch.zeros_like(result.confidence)


def _check_same_goal(a: AttackResult, b: AttackResult) -> None:
    pair = f"{a.attack!r} and {b.attack!r}"
    for what, same in (
        ("photos", a.keys == b.keys and torch.equal(a.x, b.x)),
        ("target classes", torch.equal(a.target, b.target)),
        ("budgets", a.perturbation == b.perturbation),
        ("interpreters", a.target_maps.keys() == b.target_maps.keys()),
    ):
        if not same:
            raise InputError(f"{pair} have different {what}; compare attacks with the same goal.")
    if any(not torch.equal(maps, b.target_maps[name]) for name, maps in a.target_maps.items()):
        raise InputError(f"{pair} have different target maps; compare attacks with the same goal.")
