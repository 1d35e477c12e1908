"""A package of somebody else's: an interpreter and an attack, as its entry points name them.

[project.entry-points."underfire.interpreters"]
acme = "acme_maps:Acme"

[project.entry-points."underfire.attacks"]
acme_push = "acme_maps:AcmePush"
"""

from collections.abc import Sequence

from torch import Tensor

from underfire import ADV2, CAM, Interpreter
from underfire.attacks.perturbations import Perturbation


class Acme(CAM):
    """CAM under another name."""

    name = "acme"
    title = "Acme map"
    family = "representation"
    summary = "what Acme sees"
    needs = ""

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """CAM's maps."""
        return super().compute(x, y, keys)


class AcmePush(ADV2):
    """ADV² under another name."""

    name = "acme_push"
    title = "Acme push"
    summary = "prediction and map, as Acme pushes them"

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        perturbation: Perturbation,
        steps: int | None = None,
        passes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(interpreters, perturbation=perturbation, steps=steps, passes=passes, seed=seed)


class Twice(CAM):
    """Has the name of a built-in interpreter."""


class Unnameable(CAM):
    """Has a name that no condition can hold."""

    name = "acme map"


NOTHING = 3
