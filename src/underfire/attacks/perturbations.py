"""What an attacker may do to an image: perturbation models."""

from dataclasses import dataclass

from torch import Tensor

from underfire.errors import InputError


@dataclass(frozen=True)
class Linf:
    """Every pixel value may change by at most ``eps``, and stays in [0, 1].

    Raises:
        InputError: ``eps`` is not in (0, 1].
    """

    eps: float

    def __post_init__(self) -> None:
        """Check the budget."""
        if not 0 < self.eps <= 1:
            hint = f"; for 8-bit units write {self.eps:g}/255" if self.eps > 1 else ""
            raise InputError(f"eps {self.eps:g} is not in (0, 1]: images have values in [0, 1]{hint}.")

    def move(self, x_adv: Tensor, x: Tensor, move: Tensor, step_size: float) -> Tensor:
        """``x_adv`` moved against ``move`` (in steps), back in the ball around ``x`` and in [0, 1]."""
        offset = (x_adv - step_size * move - x).clamp(-self.eps, self.eps)
        return (x + offset).clamp(0, 1)
