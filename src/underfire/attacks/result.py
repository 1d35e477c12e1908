"""What an attack returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from underfire import display
from underfire.attacks.goals import TARGET_FREE, Goal
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AttackResult:
    """The outcome of one attack on a batch of N images, scored on the unmodified classifier.

    Attributes:
        attack: name of the attack.
        x: benign images (N, C, H, W) in [0, 1].
        x_adv: adversarial images (N, C, H, W) in [0, 1].
        target: target classes (N,), int64.
        prediction: predicted classes (N,) on ``x_adv``.
        success: (N,) bool, whether the label's part of the goal is met: the prediction is the target class, or, where
            the label is kept, still the label with about the same probability.
        confidence: (N,) probability of the target class on ``x_adv``.
        maps: for each attacked interpreter, by name, the maps (N, h, w) of ``x_adv`` for the target class.
        target_maps: for each attacked interpreter, by name, the maps (N, h, w) aimed at.
        passes: (N,) forward and backward passes of the classifier spent per image, int64.
        steps: steps taken, warm start included.
        seconds: wall-clock time of the whole batch.
        perturbation: what the attack was allowed to do.
        used: (N,) how much of that budget each image uses, in its unit.
        trace: the attack's own course, for telling a weak attack from a safe explanation.
        keys: one name per image.
        goal: of the attack.
    """

    attack: str
    x: Tensor
    x_adv: Tensor
    target: Tensor
    prediction: Tensor
    success: Tensor
    confidence: Tensor
    maps: Mapping[str, Tensor]
    target_maps: Mapping[str, Tensor]
    passes: Tensor
    steps: int
    seconds: float
    perturbation: Perturbation
    used: Tensor
    trace: Trace
    keys: tuple[str, ...]
    goal: Goal = TARGET_FREE

    def met(self, tau: float = 0.5) -> Tensor:
        """(N,) bool: the label's part of the goal is met, and the maps' part at ``tau`` for every attacked interpreter.

        See :meth:`underfire.attacks.goals.Goal.map_met`; the mean of it is the joint success rate, JSR@τ.
        """
        met = self.success.clone()
        for name, maps in self.maps.items():
            met &= self.goal.map_met(maps, self.target_maps[name], tau=tau)
        return met

    @property
    def eps(self) -> float:
        """The budget, in the unit of the perturbation."""
        return self.perturbation.eps

    @property
    def source(self) -> str:
        """The attacked interpreters, joined with ``+``; ``-`` if there are none."""
        return "+".join(self.maps) or "-"

    def rows(self) -> list[dict[str, str | int | float | bool]]:
        """One flat record per image and attacked interpreter (one per image if none), ready for a table."""
        linf = (self.x_adv - self.x).abs().amax(dim=(1, 2, 3))
        records: list[dict[str, str | int | float | bool]] = []
        for i, key in enumerate(self.keys):
            common: dict[str, str | int | float | bool] = {
                "key": key,
                "attack": self.attack,
                "goal": str(self.goal),
                "source": self.source,
                "target": int(self.target[i]),
                "prediction": int(self.prediction[i]),
                "success": bool(self.success[i]),
                "confidence": float(self.confidence[i]),
                "linf": float(linf[i]),
                "perturbation": self.perturbation.name,
                "used": float(self.used[i]),
                "passes": int(self.passes[i]),
                "steps": self.steps,
                "seconds": self.seconds / len(self.keys),
            }
            if not self.maps:
                records.append(common)
            for name, maps in self.maps.items():
                distance = (maps[i] - self.target_maps[name][i]).abs().mean()
                records.append({**common, "interpreter": name, "l1": float(distance)})
        return records

    def plot(self, limit: int = display.SHOWN) -> "Figure":
        """The first ``limit`` images before and after, what was changed, and each map before and after.

        Returns:
            A figure with a row for each image. The change is drawn around grey, so that the whole budget in L∞ would
            reach from black to white.
        """
        return display.grid([self._pictures(i) for i in range(min(limit, len(self.keys)))])

    def _pictures(self, i: int) -> list[tuple[str, Tensor]]:
        change = self.x_adv[i] - self.x[i]
        largest = float(change.abs().max())
        drawn = [
            (f"benign: {self.keys[i]}"[:28], self.x[i]),
            (f"{self.attack}: class {int(self.prediction[i])}, p_t {float(self.confidence[i]):.2f}", self.x_adv[i]),
            (f"change, at most {255 * largest:.1f}/255", 0.5 + change / (2 * largest) if largest else change + 0.5),
        ]
        before = "wanted" if self.goal.map == "led" else "benign"
        for name, maps in self.maps.items():
            drawn += [(f"{name}: {before}", self.target_maps[name][i]), (f"{name}: after the attack", maps[i])]
        return drawn

    def _repr_html_(self) -> str:
        """What a notebook shows: how often it succeeded, a row for each image, pictures of the first ones."""
        shown = ("key", "target", "prediction", "success", "confidence", "used", "passes", "interpreter", "l1")
        rows = [{name: row[name] for name in shown if name in row} for row in self.rows()]
        drawn = AttackResult.plot(self)
        alt = "images before and after the attack, and their maps"
        return display.table(self._headline(), rows) + (display.picture(drawn, alt=alt) if rows else "")

    def _headline(self) -> str:
        eps = self.perturbation.eps
        budget = f"{255 * eps:g}/255" if self.perturbation.name == "linf" else f"{eps:g}"
        reached = f"the label on {int(self.success.sum())} of {display.plural(len(self.keys), 'image')}"
        both = f", label and map (τ = 0.5) on {int(self.met().sum())}" if self.maps else ""
        return f"{self.attack}, {self.perturbation.name} ε = {budget}, goal {self.goal}: {reached}{both}"
