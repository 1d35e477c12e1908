"""Do gradients mislead? An attack that uses none must not do better than one that does (Athalye et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.control import Confidence
from underfire.attacks.result import AttackResult
from underfire.errors import InputError

CLEARLY = 0.01
"""A mean gap to the target maps smaller by more than this, a hundredth of a map's range, is clearly smaller."""

_ROUNDING = 1e-3  # of p_t, between the classifier that the attack ran on and the one that scores it


@dataclass(frozen=True)
class Masking:
    """Where an attack without gradients did better than one with them, on N photos.

    Attributes:
        keys: one name per photo.
        label: (N,) bool, it alone reached the target class.
        maps: (N,) bool, both reached it, and its maps are clearly nearer to their targets, while p_t is at least 0.9
            or no lower than the other's.
    """

    keys: tuple[str, ...]
    label: Tensor
    maps: Tensor

    @property
    def better(self) -> Tensor:
        """(N,) bool, it did better in one way or the other."""
        return self.label | self.maps

    @property
    def is_suspected(self) -> bool:
        """Whether it did better on any photo."""
        return bool(self.better.any())

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        n, k = len(self.keys), int(self.better.sum())
        photos = "1 photo" if n == 1 else f"{n} photos"
        if n == 0:
            return "The attack without gradients was compared on no photo."
        if k == 0:
            return f"The attack without gradients found nothing that the white-box attack missed on {photos}."
        return (
            f"The attack without gradients did better on {k} of {photos}: gradients of this model mislead,"
            " its figures are not to be trusted."
        )


def compare(white_box: AttackResult, score_based: AttackResult) -> Masking:
    """Compare two attacks on the same photos, with the same target classes, target maps and budget.

    Raises:
        InputError: the two had different goals.
    """
    _check_same_goal(white_box, score_based)
    label = score_based.success & ~white_box.success
    enough = white_box.confidence.clamp(max=Confidence().keep) - _ROUNDING
    fair = score_based.success & white_box.success & (score_based.confidence >= enough)
    nearer = _gap(score_based) < _gap(white_box) - CLEARLY
    return Masking(white_box.keys, label, fair & nearer)


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
