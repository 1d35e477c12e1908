"""What a joint attack is aimed at: interpreters that belong together, and a target map for each.

The random patches, target maps that have nothing to do with the image, are those of Zhang et al. 2020.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.interpreters.base import Interpreter, check_together
from underfire.models.classifier import Classifier
from underfire.seeding import generator

TargetMap = Tensor | Sequence[Tensor] | Mapping[str, Tensor]

_SIDE = 224
_RADIUS = (30, 60)  # of the disc, in pixels of the 224² canvas, from (inclusive) to (exclusive)


def of_one_classifier(interpreters: Interpreter | Sequence[Interpreter], attack: str) -> tuple[Interpreter, ...]:
    """The interpreters of the joint attack named ``attack``, one or several, checked.

    Raises:
        InputError: there is none, something else is among them, two share a name, or they explain different
            classifiers.
    """
    given: object = interpreters
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    attacked = tuple(one_interpreter(g, attack) for g in several)
    if not attacked:
        raise InputError(f"{attack} attacks at least one interpreter, and none was given; PGD attacks none.")
    check_together(attacked)
    return attacked


def classifier_and_interpreters(
    attacked: Classifier | Interpreter | Sequence[Interpreter], attack: str
) -> tuple[Classifier, tuple[Interpreter, ...]]:
    """What the attack named ``attack`` is on: a classifier alone, or that of the interpreters with these, checked.

    Raises:
        InputError: as :func:`of_one_classifier`.
    """
    if isinstance(attacked, Classifier):
        return attacked, ()
    interpreters = of_one_classifier(attacked, attack)
    return interpreters[0].classifier, interpreters


def one_interpreter(given: object, attack: str) -> Interpreter:
    """``given`` to the joint attack named ``attack``, which must be an interpreter.

    Raises:
        InputError: it is a classifier, the class of an interpreter, or anything else.
    """
    if isinstance(given, Interpreter):
        return given
    if isinstance(given, Classifier):
        raise InputError(
            f"{attack} attacks interpreters, and {given.name!r} is a classifier; give an interpreter of it, such as"
            " CAM(classifier), or attack the prediction alone with PGD."
        )
    what = f"{given.__name__} is a class" if isinstance(given, type) else f"{given!r} is not one"
    raise InputError(f"{attack} attacks interpreters, and {what}; give one of a classifier, such as CAM(classifier).")


def refuse_maps(attack: str, target_map: TargetMap | None, label: Tensor | None) -> None:
    """Raise InputError where the attack named ``attack``, on a classifier alone, is given maps."""
    if target_map is not None or label is not None:
        raise InputError(f"this {attack} was made from a classifier and attacks no map; make it from an interpreter.")


def wanted_maps(
    interpreters: Sequence[Interpreter],
    x: Tensor,
    target_map: TargetMap | None,
    *,
    label: Tensor | None,
    keys: tuple[str, ...],
) -> dict[Interpreter, Tensor]:
    """The target maps (N, h, w) of checked images ``x`` (N, C, H, W), by interpreter.

    Args:
        interpreters: of one classifier; with none there are no maps.
        x: benign images.
        target_map: a tensor for one interpreter; for several a list in their order or a mapping by name. By default
            the benign maps for ``label``.
        label: classes (N,) of the benign maps, by default the classifier's own predictions.
        keys: one name per image.

    Raises:
        InputError: a map doesn't fit its interpreter or the images, or there is not one for each.
        NonFiniteError: a benign map contains NaN or infinity.
    """
    if target_map is not None:
        return dict(zip(interpreters, _given(interpreters, x, target_map), strict=True))
    if not interpreters:
        return {}
    classes = interpreters[0].classifier.probabilities(x).argmax(dim=1) if label is None else label
    return {g: g(x, classes, keys=keys) for g in interpreters}


def _given(interpreters: Sequence[Interpreter], x: Tensor, target_map: TargetMap) -> list[Tensor]:
    """The user's target maps in the order of the interpreters, checked."""
    wanted = [g.name for g in interpreters]
    if isinstance(target_map, Tensor):
        maps = [target_map]
    elif isinstance(target_map, Mapping):
        if set(target_map) != set(wanted):
            raise InputError(f"target maps are given for {sorted(target_map)}, but the attack is on {wanted}.")
        maps = [target_map[name] for name in wanted]
    else:
        maps = list(target_map)
    if len(maps) != len(wanted):
        raise InputError(f"{len(maps)} target maps are given for {len(wanted)} interpreters; give one for each.")
    for g, m in zip(interpreters, maps, strict=True):
        if m.shape != (x.shape[0], *g.grid):
            raise InputError(f"the target map of {g.name} has shape {tuple(m.shape)}, not {(x.shape[0], *g.grid)}.")
        low, high = (v.item() for v in m.aminmax()) if m.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            seen = f"values from {low:.4g} to {high:.4g}"
            raise InputError(f"the target map of {g.name} has {seen}; maps are in [0, 1].")
    return [m.detach().to(x.device, x.dtype) for m in maps]


def random_patch(grid: tuple[int, int], *, seed: int, key: str) -> Tensor:
    """A map (h, w) = ``grid`` in [0, 1] that shows a disc or a rotated rectangle somewhere, by (seed, key).

    Drawn on 224² and averaged down to the grid: inside U(0.9, 1), outside U(0, 0.1) per pixel. The radius is
    30 to 59 pixels; the rectangle's sides are twice such radii. One ``key`` is the same patch on every grid.
    """
    random = generator(seed, key, "patch")

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    first, second = (int(torch.randint(*_RADIUS, (), generator=random)) for _ in range(2))
    is_disc = bool(torch.rand((), generator=random) < 0.5)
    row, column = (uniform(first, _SIDE - first) for _ in range(2))
    angle = uniform(0, math.pi)
    y, x = torch.meshgrid(torch.arange(_SIDE) + 0.5 - row, torch.arange(_SIDE) + 0.5 - column, indexing="ij")
    if is_disc:
        inside = x**2 + y**2 <= first**2
    else:
        along = x * math.cos(angle) + y * math.sin(angle)
        across = y * math.cos(angle) - x * math.sin(angle)
        inside = (along.abs() <= first) & (across.abs() <= second)
    noise = 0.1 * torch.rand((_SIDE, _SIDE), generator=random)
    return F.adaptive_avg_pool2d(torch.where(inside, 0.9 + noise, noise)[None, None], grid)[0, 0]
