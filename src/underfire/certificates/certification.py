"""Certificates: with what probability an attacker within a radius can reach each goal, at most."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from underfire.attacks.budget import check_number, check_whole
from underfire.attacks.target_maps import TargetMap, wanted_maps
from underfire.certificates.bounds import check_alpha
from underfire.certificates.certificate import Certificate
from underfire.certificates.events import BenignImage, ImageGoals, ask_for_maps, goals_of
from underfire.certificates.noise import NoiseSource, SeededNoise
from underfire.certificates.system import BATCH, Denoiser, NoisySystem, shown_together
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.base import Interpreter, check_together
from underfire.models.frozen import detached, ordinary
from underfire.seeding import owners

SIGMA = 0.12
SAMPLES = 1000
ALPHA = 0.001
RADII = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
IOU, SHIFT = 0.5, 0.1
"""What is certified where the caller doesn't say; distances in pixel values."""


def certify(
    interpreter: Interpreter,
    x: Tensor,
    y: Tensor,
    *,
    sigma: float = SIGMA,
    samples: int = SAMPLES,
    radii: Sequence[float] = RADII,
    alpha: float = ALPHA,
    goals: Sequence[str] | None = None,
    target: Tensor | None = None,
    target_map: Tensor | None = None,
    benign_map: Tensor | int | None = None,
    iou: float = IOU,
    shift: float = SHIFT,
    denoise: Denoiser | None = None,
    seed: int = 0,
    keys: Sequence[str] | None = None,
    batch_size: int = BATCH,
) -> Certificate:
    """Certify images ``x`` (N, C, H, W) in [0, 1] of labels ``y`` (N,) against every goal of an attacker.

    ``docs/explanation/certificates.md`` has the theorem and its conditions. A draw costs one pass for CAM and GRAD, and
    a forward pass beside the map's for interpreters that don't share it; a forward pass where all goals leave the map
    free. Memory does not grow with ``samples``.

    Args:
        interpreter: whose map depends on the image that it is given, the class and random numbers alone.
        x: benign images.
        y: their labels, int64.
        sigma: σ, the standard deviation of the noise in pixel values.
        samples: draws of each image; no radius is larger than they allow (`Certificate.cap`).
        radii: L2 distances in pixel values at which rates are wanted.
        alpha: the chance, for each image, that any of its figures is wrong, over all goals together.
        goals: LABEL/MAP, by default all that need no more than is given; ``other/free`` is always counted.
        target: target classes (N,), int64, for the goals that name one.
        target_map: maps (N, h, w) for the goals that lead to one.
        benign_map: maps (N, h, w) that are kept or moved away from, by default those of ``x`` for ``y``; a number: the
            mean of their maps over so many draws that don't count.
        iou, shift: where the map's part of a goal is met, as in `MinimumNorm`.
        denoise: of noisy images (N, C, H, W), each by itself, before they are cut to [0, 1] and classified.
        seed: of all draws, which belong to it and to an image's key.
        keys: one name per image, by default its content.
        batch_size: draws that go through the model together.

    Raises:
        InputError: something doesn't fit, classes don't exclude each other, or draws would depend on each other.
        NonFiniteError: a draw's logits or map contain NaN or infinity.
    """
    (found,) = certify_together(
        [interpreter], x, y, sigma=sigma, samples=samples, radii=radii, alpha=alpha, goals=goals, target=target,
        target_map=target_map, benign_map=benign_map, iou=iou, shift=shift, denoise=denoise, seed=seed, keys=keys,
        batch_size=batch_size,
    )  # fmt: skip
    return found


def certify_together(
    interpreters: Sequence[Interpreter],
    x: Tensor,
    y: Tensor,
    *,
    sigma: float = SIGMA,
    samples: int = SAMPLES,
    radii: Sequence[float] = RADII,
    alpha: float = ALPHA,
    goals: Sequence[str] | None = None,
    target: Tensor | None = None,
    target_map: TargetMap | None = None,
    benign_map: TargetMap | int | None = None,
    iou: float = IOU,
    shift: float = SHIFT,
    denoise: Denoiser | None = None,
    seed: int = 0,
    keys: Sequence[str] | None = None,
    batch_size: int = BATCH,
) -> tuple[Certificate, ...]:
    """The certificates of several ``interpreters`` of one classifier, from the same draws.

    A forward pass serves the prediction and all interpreters that have a reading. Each certificate holds with a
    confidence of 1 − ``alpha`` by itself. Arguments and errors are those of :func:`certify`, with maps as attacks take
    them.
    """
    systems = [NoisySystem(g, sigma, denoise, batch_size) for g in interpreters]
    check_together(interpreters)
    wanted = goals_of(goals, target=target is not None, led=target_map is not None)
    check_numbers(samples, alpha, radii, iou, shift)
    maps = ask_for_maps(wanted)
    images = _images(systems, x, y, target, benign_map, target_map, seed, keys, maps=maps)
    asked = [[ImageGoals(wanted, image, iou, shift) for image in own] for own in images]
    counts = _counted(systems, asked, len(wanted), samples, seed)
    names, distances = tuple(image.key for image in images[0]), tuple(map(float, radii))
    found = []
    for g, own in zip(interpreters, counts, strict=True):
        table = {str(goal): own[:, place] for place, goal in enumerate(wanted)}
        found.append(Certificate(g.name, names, sigma, samples, alpha, distances, iou, shift, table))
    return tuple(found)


def _images(
    systems: Sequence[NoisySystem],
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    benign_map: TargetMap | int | None,
    target_map: TargetMap | None,
    seed: int,
    keys: Sequence[str] | None,
    *,
    maps: bool,
) -> list[list[BenignImage]]:
    """For each system the images, checked, with the maps that their goals are measured against, if any are."""
    classifier, interpreters = systems[0].classifier, [system.interpreter for system in systems]
    classifier.check_images(x)
    classifier.check_classes(y, len(x))
    if target is not None:
        classifier.check_classes(target, len(x))
        if (target == y).any():
            place = int((target == y).nonzero()[0])
            raise InputError(f"the target class {int(y[place])} of image {place} is its label; give another class.")
    names = owners(x, keys)
    with ordinary():
        x, y = detached(x), detached(y)
        if isinstance(benign_map, int):
            benign = {s.interpreter: _mean_maps(s, x, y, benign_map, seed, names) for s in systems}
        elif benign_map is None and not maps:
            benign = {g: x.new_zeros((len(x), *g.grid)) for g in interpreters}
        else:
            benign = wanted_maps(interpreters, x, benign_map, label=y, keys=names)
        led = {} if target_map is None else wanted_maps(interpreters, x, target_map, label=y, keys=names)
    return [
        [
            BenignImage(
                key=name,
                x=x[i],
                label=y[i],
                target=None if target is None else target[i],
                benign_map=benign[g][i],
                led_map=led[g][i] if g in led else None,
            )
            for i, name in enumerate(names)
        ]
        for g in interpreters
    ]


def _mean_maps(system: NoisySystem, x: Tensor, y: Tensor, draws: int, seed: int, names: tuple[str, ...]) -> Tensor:
    """The mean maps (N, h, w) of the classes ``y`` over draws that are none of those that count."""
    if draws < 1:
        raise InputError(f"benign_map is {draws}; a mean takes at least 1 draw.")
    means = x.new_zeros((len(x), *system.interpreter.grid))
    with system.classifier.frozen():
        for i, name in enumerate(names):
            with image_named(i):
                for maps in system.maps_of(y[i], x[i], SeededNoise(seed, name, "benign map"), range(draws)):
                    means[i] += maps.sum(dim=0) / draws
    return means


def _counted(
    systems: Sequence[NoisySystem], asked: Sequence[Sequence[ImageGoals]], goals: int, samples: int, seed: int
) -> Tensor:
    """In how many of so many draws (systems, N, goals) each image meets each of the goals ``asked`` of each system."""
    counts = torch.zeros((len(systems), len(asked[0]), goals), dtype=torch.int64)
    with ordinary(), systems[0].classifier.frozen():
        for i, own in enumerate(zip(*asked, strict=True)):
            image = own[0].image
            source = SeededNoise(seed, image.key)
            with image_named(i):
                if not i:
                    for system in systems:
                        system.check_rows(image.x, source, maps=ask_for_maps(own[0].goals))
                counts[:, i] = count_together(systems, own, image.x, source, samples)
    return counts


def count_together(
    systems: Sequence[NoisySystem], asked: Sequence[ImageGoals], x: Tensor, source: NoiseSource, samples: int
) -> Tensor:
    """In how many of so many draws (systems, goals) of ``x`` (C, H, W) each of the goals ``asked`` of each is met.

    int64; inside ``classifier.frozen()``.
    """
    total = torch.zeros((len(systems), len(asked[0].goals)), dtype=torch.int64)
    maps = any(ask_for_maps(goals.goals) for goals in asked)
    for shown in shown_together(systems, x, source, range(samples), maps=maps):
        total += torch.stack([goals.count(draws) for goals, draws in zip(asked, shown, strict=True)])
    return total


@contextmanager
def image_named(index: int) -> Iterator[None]:
    """A `NonFiniteError` inside the block, of one of an image's draws, names the image."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(error.what, index) from error


def check_numbers(samples: int, alpha: float, radii: Sequence[float], iou: float = IOU, shift: float = SHIFT) -> None:
    """Refuse what is out of range.

    Raises:
        InputError: a number is.
    """
    check_whole("samples", samples)
    if samples < 1:
        raise InputError(f"samples is {samples}; give at least 1 draw.")
    check_alpha(alpha)
    if not _are_distances(radii):
        raise InputError(f"radii are {radii!r}; give L2 distances of 0 and more, in pixel values.")
    for what, number in (("iou", iou), ("shift", shift)):
        check_number(what, number)
        if not 0 < number <= 1:
            raise InputError(f"{what} {number!r} is out of range; give a number above 0 and up to 1.")


def _are_distances(radii: object) -> bool:
    """Whether they are finite numbers of 0 and more, at least one."""
    if not isinstance(radii, Collection) or isinstance(radii, str):
        return False
    try:
        distances = [float(radius) for radius in radii]
    except (TypeError, ValueError):
        return False
    return bool(distances) and all(0 <= distance < math.inf for distance in distances)
