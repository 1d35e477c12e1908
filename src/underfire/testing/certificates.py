"""The falsifier of certificates: a search for an image that reaches a goal more often than was certified."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from underfire.attacks.goals import MAP_GOALS, Goal
from underfire.certificates.bounds import lower_limit
from underfire.certificates.certificate import Certificate
from underfire.certificates.certification import certify
from underfire.certificates.noise import SeededNoise
from underfire.certificates.system import NoisySystem
from underfire.interpreters.base import ForwardPass, Interpreter, MapTarget, tried
from underfire.models.frozen import detached
from underfire.seeding import derive_seed, generator
from underfire.testing.common import hold, keys_of

LEVEL = 1e-6
"""The chance with which a rate seen at an image may lie above the true one by bad luck."""

_STEPS, _AVERAGED = 4, 8  # of an attack, and draws over which each of its gradients is averaged
_BY_CHANCE = 4  # random images at each radius


def check_certificate(
    interpreter: Interpreter,
    x: Tensor,
    y: Tensor,
    *,
    sigma: float,
    radii: Sequence[float],
    goals: Sequence[str] | None = None,
    target: Tensor | None = None,
    samples: int = 1000,
    search: int = 64,
    certified: Callable[..., Certificate] = certify,
    seed: int = 0,
) -> None:
    """Try to falsify the certificates of images ``x`` (N, C, H, W) in [0, 1] with labels ``y`` (N,), int64.

    Within each radius it takes images by chance and by attacks on the same randomised system, with gradients averaged
    over draws, and of these the one that reaches a goal most often in ``search`` draws. The rate of that image is then
    taken from as many fresh draws as certify. Where the lower limit of that rate, at `LEVEL`, lies above the certified
    one, all is done again with other draws of both; a certificate that fails twice is wrong.

    Args:
        interpreter: of the system.
        x: benign images.
        y: their labels.
        sigma: standard deviation of the noise.
        radii: of the balls, in pixel values.
        goals: LABEL/MAP, as for `certify`.
        target: target classes (N,), for goals that name one.
        samples: draws that certify, and that tell the rate of what was found.
        search: draws by which the search compares images.
        certified: what makes the certificates, by default `certify`; it is given its arguments.
        seed: of everything.

    Raises:
        AssertionError: a certificate is wrong; the message says of which image, at which radius, for which goal.
    """
    keys = keys_of(len(x))
    found = _Claims(interpreter, x, y, target, interpreter(x, y, keys=keys), sigma, tuple(radii), goals, keys)
    claims = found.made(certified, samples, derive_seed(seed, "certified"))
    for place in range(len(radii)):
        for goal, nearest in found.candidates(claims.goals, place, search, seed).items():
            rates = found.rates(goal, nearest, samples, derive_seed(seed, "fresh"))
            broken = rates > claims.rate[goal][:, place]
            if not broken.any():
                continue
            again = found.made(certified, samples, derive_seed(seed, "certified again"))
            rates = found.rates(goal, nearest, samples, derive_seed(seed, "fresh again"))
            broken &= rates > again.rate[goal][:, place]
            worst = int(broken.nonzero()[0]) if broken.any() else 0
            hold(
                not broken.any(),
                f"certificate of image {worst}, {goal} within {radii[place]:g}: at most"
                f" {float(again.rate[goal][worst, place]):.4g} was certified, and an image there has"
                f" {float(rates[worst]):.4g} or more",
            )


@dataclass(frozen=True)
class _Claims:
    """What is certified, and how images are searched that belie it."""

    interpreter: Interpreter
    x: Tensor
    y: Tensor
    target: Tensor | None
    benign: Tensor
    sigma: float
    radii: tuple[float, ...]
    goals: Sequence[str] | None
    keys: tuple[str, ...]

    def made(self, certified: Callable[..., Certificate], samples: int, seed: int) -> Certificate:
        """The certificates of the images themselves."""
        return certified(
            self.interpreter,
            self.x,
            self.y,
            sigma=self.sigma,
            radii=self.radii,
            goals=self.goals,
            target=self.target,
            benign_map=self.benign,
            samples=samples,
            seed=seed,
            keys=self.keys,
        )

    def rates(self, goal: str, images: Tensor, samples: int, seed: int) -> Tensor:
        """The lower limits (N,) of the rates at which draws of other ``images`` meet the same goal."""
        there = replace(self, x=images, goals=[goal]).made(certify, samples, seed)
        return lower_limit(there.counts[goal], samples, LEVEL)

    def candidates(self, goals: Sequence[str], place: int, search: int, seed: int) -> dict[str, Tensor]:
        """For each goal the images (N, C, H, W) within a radius that reached it most often in the search."""
        best: dict[str, Tensor] = {}
        most: dict[str, Tensor] = {}
        for name, images in self._images(goals, self.radii[place], seed):
            there = replace(self, x=images).made(certify, search, derive_seed(seed, "search", name, place))
            for goal in goals:
                counts = there.counts[goal]
                better = counts > most.get(goal, torch.full_like(counts, -1))
                most[goal] = torch.where(better, counts, most.get(goal, counts))
                rows = better.to(images.device)[:, None, None, None]
                best[goal] = torch.where(rows, images, best.get(goal, images))
        return best

    def _images(self, goals: Sequence[str], radius: float, seed: int) -> Iterator[tuple[str, Tensor]]:
        for number in range(_BY_CHANCE):
            draws = [generator(seed, key, "falsifier", number) for key in self.keys]
            noise = torch.stack([torch.randn(self.x.shape[1:], generator=d, dtype=torch.float64) for d in draws])
            yield f"chance {number}", self._within(noise.to(self.x), radius)
        unmoved = tried(self.interpreter) is not None  # by an attack, which then goes for the label alone
        for goal in map(Goal.parse, goals):
            if goal.label != "kept" or not unmoved:
                yield str(goal), self._attacked(goal, radius, seed)

    def _within(self, direction: Tensor, radius: float) -> Tensor:
        """The images at that distance along a direction (N, C, H, W), cut to [0, 1], which brings them nearer."""
        return (self.x + radius * _unit(direction)).clamp(0, 1)

    def _attacked(self, goal: Goal, radius: float, seed: int) -> Tensor:
        """A few steps of half a radius, kept in the ball."""
        moved = torch.zeros_like(self.x)
        for step in range(_STEPS):
            slope = self._slope(goal, (self.x + moved).clamp(0, 1), derive_seed(seed, str(goal), step))
            moved = moved - radius / 2 * _unit(slope)
            length = _length(moved)
            moved = moved * (radius / length.where(length > radius, radius))
        return self._within(moved, radius)

    def _slope(self, goal: Goal, x: Tensor, seed: int) -> Tensor:
        """The mean gradient over draws of a loss that falls where the goal is nearer: of the label, else of the map."""
        system, classifier = NoisySystem(self.interpreter, self.sigma), self.interpreter.classifier
        slopes = []
        for i, key in enumerate(self.keys):
            z = system.images(x[i], SeededNoise(seed, key), range(_AVERAGED))
            label = (self.target if goal.label == "target" and self.target is not None else self.y)[i]
            classes = label.expand(_AVERAGED)
            with classifier.frozen():
                if goal.label == "kept":
                    shape = MAP_GOALS[goal.map]
                    maps = shape.aimed(self.benign[i].expand(_AVERAGED, -1, -1))
                    aim = MapTarget(classes, maps, (key,) * _AVERAGED, seed, shape)
                    objective = self.interpreter.objective(aim)
                    view = ForwardPass(classifier, z, taps=objective.taps)
                    answer = objective(view)
                    slope = answer.direction if answer.at is None else view.carried(answer.at, answer.direction)
                else:
                    slope = ForwardPass(classifier, z).nll_gradient(classes, last=True)
                    slope = slope if goal.label == "target" else -slope
            slopes.append(detached(slope).mean(dim=0))
        return torch.stack(slopes)


def _length(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(dim=1).sqrt()[:, None, None, None]


def _unit(values: Tensor) -> Tensor:
    length = _length(values)
    return values / length.where(length > 0, 1.0)
