"""How far a map moves within a small ball: the largest of random points, as published, beside what an attack finds."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from underfire import display
from underfire.attacks.budget import check_whole
from underfire.attacks.map_attack import MapAttack
from underfire.attacks.target_maps import one_interpreter
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.interpreters.map_goals import APART_L2
from underfire.models.frozen import detached
from underfire.seeding import generator, owners

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RADIUS = 0.02
SAMPLES = 10
"""Captum's: the half side of the L∞ ball, in pixel values, and the random points in it."""

PASSES = 300
"""Of the attack, for callers who name none."""


@dataclass(frozen=True)
class Sensitivity:
    """How sensitive the maps of N images are. All (N,) numbers are float64.

    Max-sensitivity (Yeh et al. 2019) is the largest ‖g(x′) − g(x)‖₂ over ‖x′ − x‖∞ ≤ radius. Captum's
    ``sensitivity_max`` and Quantus' ``MaxSensitivity`` (0.6.0) divide it by ‖g(x)‖₂, and so do we.

    Attributes:
        sampled: (N,) the largest at random points.
        attacked: (N,) that at the image of the attack, if its label stays and it is larger; else ``sampled``.
        sampled_lipschitz: (N,) the largest ‖g(x′) − g(x)‖₂ / ‖x′ − x‖₂ at the random points, the local Lipschitz
            estimate of Alvarez-Melis and Jaakkola 2018.
        attacked_lipschitz: (N,) the same with the image of the attack, which was not made for it.
        map_norm: (N,) ‖g(x)‖₂, by which both are divided; 1 where that is 0.
        sampled_kept: (N,) at which share of the random points the label stays. Published figures don't ask; neither
            does ``sampled``.
        label_kept: (N,) bool, whether the label stays on the attack's image.
        x_adv: (N, C, H, W) the attack's images.
        passes: (N,) forward and backward passes that the attack took, int64; the random points take others.
    """

    sampled: Tensor
    attacked: Tensor
    sampled_lipschitz: Tensor
    attacked_lipschitz: Tensor
    map_norm: Tensor
    sampled_kept: Tensor
    label_kept: Tensor
    x_adv: Tensor
    passes: Tensor

    version: ClassVar[int] = 1
    """Raised whenever the same call gives other numbers for another reason than a new version of `MapAttack`."""

    @property
    def factor(self) -> Tensor:
        """(N,) by how much sampling is too kind, at least 1; infinite where it saw no change and the attack did."""
        return (self.attacked / self.sampled).where(self.attacked > self.sampled, 1.0)

    def plot(self) -> "Figure":
        """Each image: what random points found and what the attack found, joined by a line, on a logarithmic scale."""
        drawn = display.figure(4.5, 0.8 + 0.25 * max(4, len(self.sampled)))
        axes = drawn.subplots()
        places = range(len(self.sampled))
        axes.hlines(places, self.sampled.tolist(), self.attacked.tolist(), color="0.7")
        axes.scatter(self.sampled.tolist(), places, label="random points", color="tab:blue")
        axes.scatter(self.attacked.tolist(), places, label="attack", color="tab:red")
        axes.set(xscale="log", xlabel="change of the map, relative to its norm", ylabel="image")
        axes.set_yticks(places)
        axes.legend()
        return drawn

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures of each image."""
        columns = ("sampled", "attacked", "factor", "label_kept", "passes")
        values = [getattr(self, name).tolist() for name in columns]
        rows = [
            dict(zip(("image", *columns), row, strict=True)) for row in zip(itertools.count(), *values, strict=False)
        ]
        median = f": the attack finds {float(self.factor.median()):.3g} times as much, in the median" if rows else ""
        return display.table(f"Sensitivity of {display.plural(len(rows), 'map')}{median}", rows)


def sensitivity(
    interpreter: Interpreter,
    x: Tensor,
    y: Tensor,
    *,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    passes: int = PASSES,
    seed: int = 0,
    keys: Sequence[str] | None = None,
) -> Sensitivity:
    """How far the maps of images ``x`` move within an L∞ ball, by random points and by an attack that keeps the label.

    The random points are uniform in the ball, as Captum and Quantus draw them, but inside [0, 1]. A larger number of
    samples includes those of a smaller one. An interpreter that draws random numbers has the same at all points, so
    that a map moves with the image alone. The attack is :class:`MapAttack` with the L2 distance itself as goal; of the
    label it asks no more than to stay the prediction.

    Args:
        interpreter: whose maps they are.
        x: images (N, C, H, W) in [0, 1].
        y: classes (N,), int64: the labels to keep, which the maps explain. Where the classifier predicts another class
            for ``x``, no attack can keep it, and ``attacked`` is what was sampled.
        radius: half the side of the ball, in pixel values, in (0, 1].
        samples: random points, at least 1; 200 is Quantus' default.
        passes: forward and backward passes that the attack may spend on an image.
        seed: of the random points and of the attack.
        keys: one name per image, the owner of its random numbers; by default its content.

    Raises:
        InputError: an argument is out of range or does not fit, or the passes don't pay for a step.
        NonFiniteError: a map or a direction contains NaN or infinity.
    """
    g = one_interpreter(interpreter, "sensitivity")
    if not 0 < radius <= 1:
        raise InputError(f"radius {radius!r} is no distance between images in [0, 1]; give one above 0 and up to 1.")
    check_whole("samples", samples)
    if samples < 1:
        raise InputError(f"samples is {samples}; give at least 1 random point.")
    attack = _FurthestMap(g, radius, passes, seed)
    g.classifier.check_images(x)
    names = owners(x, keys)
    found = _LargestQuotients(g, x, y, names)
    kept = found.sample(radius, samples, seed)
    sampled, lipschitz = found.quotient, found.lipschitz
    result = attack(x, y, keys=names)
    found.see(result.x_adv, result.maps[g.name], where=result.success)
    return Sensitivity(
        sampled=sampled,
        attacked=found.quotient,
        sampled_lipschitz=lipschitz,
        attacked_lipschitz=found.lipschitz,
        map_norm=found.map_norm,
        sampled_kept=kept,
        label_kept=result.success,
        x_adv=result.x_adv,
        passes=result.passes,
    )


class _FurthestMap(MapAttack):
    """Moves a map as far as it can by the L2 distance, while the label leads."""

    def __init__(self, interpreter: Interpreter, radius: float, passes: int, seed: int) -> None:
        super().__init__(interpreter, goal="l1", eps=radius, passes=passes, tolerance=1.0, seed=seed)
        self.setting = replace(self.setting, map_goal=APART_L2)


class _LargestQuotients:
    """The largest quotients (N,) at the points seen so far, 0 to begin with."""

    def __init__(self, g: Interpreter, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> None:
        self._g, self._x, self._y, self._keys = g, detached(x), y, keys
        self._benign = g(x, y, keys=keys)
        norm = _norm(self._benign)
        self.map_norm = norm.where(norm > 0, 1.0)
        self.quotient, self.lipschitz = torch.zeros_like(norm), torch.zeros_like(norm)

    def sample(self, radius: float, samples: int, seed: int) -> Tensor:
        """Consider so many random points of each ball; at which share (N,) of them the label stays."""
        draws = [generator(seed, key, "sensitivity") for key in self._keys]
        classifier, kept = self._g.classifier, torch.zeros_like(self.quotient)
        for _ in range(samples):
            points = _drawn(self._x, radius, draws)
            self.see(points, self._g(points, self._y, keys=self._keys))
            with torch.no_grad():
                kept += classifier.decision.predict(classifier(points), self._y) == self._y
        return kept / samples

    def see(self, points: Tensor, maps: Tensor, *, where: Tensor | None = None) -> None:
        """Consider ``points`` (N, C, H, W) with their ``maps`` (N, h, w), of the images ``where`` (N,) or of all."""
        moved, way = _norm(maps - self._benign), _norm(points - self._x)
        if where is not None:
            moved = moved.where(where, 0.0)
        self.quotient = torch.maximum(self.quotient, moved / self.map_norm)
        self.lipschitz = torch.maximum(self.lipschitz, moved / way.where(way > 0, math.inf))


def _norm(values: Tensor) -> Tensor:
    return values.detach().flatten(1).double().square().sum(dim=1).sqrt()


def _drawn(x: Tensor, radius: float, draws: Sequence[torch.Generator]) -> Tensor:
    """Points uniform in the L∞ balls around images ``x`` (N, C, H, W), cut to [0, 1]; ``draws`` are one per image."""
    points = x.detach().clone()
    for image, draw in zip(points, draws, strict=True):
        share = 2 * torch.rand(image.shape, generator=draw, dtype=image.dtype) - 1
        image += radius * share.to(image.device)
    return points.clamp(0, 1)
