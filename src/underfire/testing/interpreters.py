"""The contract of an interpreter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.interpreters.base import (
    ForwardPass,
    Interpreter,
    MapGradient,
    MapObjective,
    MapTarget,
    attribution_gradient,
)
from underfire.models.classifier import Classifier
from underfire.models.features import FeatureMap
from underfire.testing.common import hold, hold_named, keys_of, no_trace, smooth_classifier, some_images

Make = Callable[[Classifier], Interpreter]

_EXACT = 1e-2  # of the size of finite differences, which an attribution in float32 makes rough
_DRAWS = 16  # directions of which the mean is taken where they are estimates


class Subject(Protocol):
    """Makes a small classifier in float64 with images of 16×16 pixels, differentiable any number of times."""

    def __call__(self, *, flat: bool = False) -> Classifier:
        """With ``flat`` its logits are the same for every image."""
        ...


def check_interpreter(make: Make, *, tolerance: float = 0.2, subject: Subject = smooth_classifier) -> None:
    """Hold an interpreter to its contract.

    Args:
        make: makes the interpreter from a classifier.
        tolerance: how far the direction may be from finite differences, relative to their size; an estimate
            with a finite probe is allowed more than an exact gradient.
        subject: what it explains: a convolutional network, or ``token_classifier`` for one that needs attention.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    x, y = some_images()
    interpreter = make(subject())
    hold_named(interpreter.name, "interpreter")
    _check_maps(interpreter, x, y)
    _check_split(interpreter, x, y)
    _check_predicted(interpreter, x)
    _check_no_trace(make, subject, x, y)
    _check_constant(make, subject, x, y)
    _check_answer(interpreter, x, y)
    if interpreter.estimates or interpreter.draws:
        _check_descent(interpreter, x, y)
    else:
        _check_gradient(interpreter, x, y, tolerance)
    _check_vector_jacobian(interpreter, x, y)
    _check_freed(interpreter, x, y)
    _check_passes(interpreter, x, y)
    _check_select(interpreter, x, y)


def _check_maps(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    name = interpreter.name
    maps = interpreter(x, y)
    hold(maps.shape == (len(x), *interpreter.grid), f"{name}: maps {tuple(maps.shape)} are not on its grid")
    hold(not maps.requires_grad, f"{name}: maps are not detached")
    hold(maps.dtype == x.dtype, f"{name}: maps are {maps.dtype} for images of {x.dtype}")
    hold(0 <= float(maps.min()) <= float(maps.max()) <= 1, f"{name}: map values leave [0, 1]")
    hold(torch.equal(maps, interpreter(x, y)), f"{name}: the same call gives another map")
    spread = maps.amax(dim=(1, 2)) - maps.amin(dim=(1, 2))
    hold(float(spread.min()) > 0, f"{name}: the map of an ordinary image is constant")
    empty = interpreter(x[:0], y[:0])
    hold(empty.shape == (0, *interpreter.grid), f"{name}: no image does not give no map")


def _check_split(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    whole = interpreter(x, y)
    order = torch.arange(len(x) - 1, -1, -1)
    for what, maps in {
        "one by one": torch.cat([interpreter(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]),
        "split in two": torch.cat([interpreter(x[:2], y[:2]), interpreter(x[2:], y[2:])]),
        "in reverse order": interpreter(x[order], y[order])[order],
    }.items():
        worst = float((maps - whole).abs().max())
        hold(worst < 1e-9, f"{interpreter.name}: a batch taken {what} gives other maps, by {worst:.3g}")


def _check_predicted(interpreter: Interpreter, x: Tensor) -> None:
    """What is read from one pass is what two would give."""
    classifier = interpreter.classifier
    with classifier.frozen():
        logits, maps = interpreter.predicted(x, keys_of(len(x)))
        scores = classifier.scores(x).detach()
    own = interpreter(x, scores.argmax(dim=1), keys=keys_of(len(x)))
    hold(torch.allclose(logits, scores, atol=1e-9), f"{interpreter.name}: predicted gives other logits")
    hold(not logits.requires_grad, f"{interpreter.name}: predicted gives logits that are not detached")
    hold(torch.allclose(maps, own, atol=1e-9), f"{interpreter.name}: predicted gives other maps than a call")


def _check_no_trace(make: Make, subject: Subject, x: Tensor, y: Tensor) -> None:
    classifier = subject()
    classifier.module.train()
    marked = next(classifier.module.parameters())
    marked.grad = torch.ones_like(marked)
    leaf = x.clone().requires_grad_(True)
    with no_trace(classifier, make.__name__ if hasattr(make, "__name__") else "the interpreter"):
        interpreter = make(classifier)
        interpreter(leaf, y)
        _answer(interpreter, x, y, interpreter(x, y).roll(1, dims=0))
    hold(leaf.grad is None, f"{interpreter.name}: leaves a gradient on the images")
    hold(torch.equal(leaf.detach(), x), f"{interpreter.name}: changes the images")


def _check_constant(make: Make, subject: Subject, x: Tensor, y: Tensor) -> None:
    flat = make(subject(flat=True))
    for what, images in {"a flat classifier": x, "black images": torch.zeros_like(x)}.items():
        maps = flat(images, y)
        hold(bool(torch.isfinite(maps).all()), f"{flat.name}: the map of {what} is not a number")
        hold(0 <= float(maps.min()) <= float(maps.max()) <= 1, f"{flat.name}: the map of {what} leaves [0, 1]")
        answer = _answer(flat, images, y, torch.zeros_like(maps))
        hold(bool(torch.isfinite(answer.direction).all()), f"{flat.name}: the direction for {what} is not a number")


def _check_answer(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    name = interpreter.name
    answer = _answer(interpreter, x, y, interpreter(x, y).roll(1, dims=0))
    for what, numbers in (("distance", answer.distance), ("loss", answer.loss)):
        hold(numbers.shape == (len(x),), f"{name}: the {what} is not one number per image")
    hold(answer.direction.shape == x.shape, f"{name}: the direction is not shaped like the images")
    hold(not answer.direction.requires_grad, f"{name}: the direction is not detached")


def _check_descent(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    """A direction that is no gradient lowers the loss all the same; one that is drawn does so in the mean."""
    target = interpreter(x, y, keys=keys_of(len(y))).roll(1, dims=0)
    answers = [_answer(interpreter, x, y, target, seed=seed) for seed in range(_DRAWS)]
    answer, direction = answers[0], torch.stack([answer.direction for answer in answers]).mean(dim=0)
    moved = _answer(interpreter, x - 1e-6 * direction, y, target)
    still = direction.flatten(1).abs().amax(dim=1) == 0
    hold(not bool(still.all()), f"{interpreter.name}: the direction is zero")
    hold(
        bool(((moved.loss < answer.loss) | still).all()),
        f"{interpreter.name}: a small step against the direction does not lower the loss",
    )


def _check_gradient(interpreter: Interpreter, x: Tensor, y: Tensor, tolerance: float) -> None:
    name = interpreter.name
    own = interpreter(x, y, keys=keys_of(len(y)))
    target = own.roll(1, dims=0)
    answer = _answer(interpreter, x, y, target)
    distance = (own - target).abs().mean(dim=(1, 2))
    hold(float((answer.distance - distance).abs().max()) < 0.1, f"{name}: the distance is far from the maps' distance")
    near = _answer(interpreter, x, y, own)
    for what, here, there in (("distance", near.distance, answer.distance), ("loss", near.loss, answer.loss)):
        hold(bool((here < 0.5 * there).all()), f"{name}: by its {what} the image's own map is no nearer than another")

    step, errors, sizes = 1e-6, [], []
    for seed in range(8):
        draw = torch.Generator().manual_seed(seed)
        d = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        ahead, behind = (_answer(interpreter, x + s * d, y, target).loss for s in (step, -step))
        slope = (ahead - behind) / (2 * step)
        errors.append((answer.direction * d).sum(dim=(1, 2, 3)) - slope)
        sizes.append(slope)
    error = torch.stack(errors).square().mean(dim=0).sqrt() / torch.stack(sizes).square().mean(dim=0).sqrt()
    worst = float(error.max())
    hold(worst <= tolerance, f"{name}: the direction differs from finite differences by {worst:.2g} of their size")


def _check_vector_jacobian(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    """The gradient of any number made of the map is that of finite differences, where it is not refused."""
    keys, draw, step = keys_of(len(y)), torch.Generator().manual_seed(1), 1e-6
    cotangent = torch.randn((len(x), *interpreter.grid), generator=draw, dtype=x.dtype)
    try:
        product = attribution_gradient(interpreter, x, y, cotangent, keys=keys)
    except InputError:
        return
    errors, sizes = [], []
    for _ in range(4):
        d = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        ahead, behind = ((interpreter(x + s * d, y, keys=keys) * cotangent).sum(dim=(1, 2)) for s in (step, -step))
        sizes.append((ahead - behind) / (2 * step))
        errors.append((product * d).sum(dim=(1, 2, 3)) - sizes[-1])
    size = torch.stack(sizes).square().mean(dim=0).sqrt()
    error = torch.stack(errors).square().mean(dim=0).sqrt() / size.clamp_min(1e-6 * float(size.max()))
    worst = float(error.max())
    hold(
        worst <= _EXACT,
        f"{interpreter.name}: attribution_gradient differs from finite differences by {worst:.2g} of their size; what"
        " changes its way back must end with the map",
    )


def _check_freed(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    """An objective that says it goes backward through no view takes one whose memory was given back."""
    map_target = _map_target(y, interpreter(x, y).roll(1, dims=0))
    if _objective(interpreter, map_target).needs_backward:
        return
    what = f"{interpreter.name}: goes backward through a view, though its objective's needs_backward is False"
    with interpreter.classifier.frozen(), _kept(what):
        freed = _look(interpreter, _objective(interpreter, map_target), x, freed_for=y)
    _check_same(
        freed, _answer(interpreter, x, y, map_target.maps), f"{interpreter.name}: a view's freed memory changes"
    )


def _check_passes(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    """Budgets of passes are planned with ``further_passes``, and kept by what the answers say."""
    hold(interpreter.further_passes(0) == 0, f"{interpreter.name}: further_passes(0) is not 0")
    objective, spent = _objective(interpreter, _map_target(y, interpreter(x, y).roll(1, dims=0))), 0
    for looks, images in enumerate(_path(x), start=1):
        with interpreter.classifier.frozen():
            spent += _look(interpreter, objective, images).passes
        planned = interpreter.further_passes(looks)
        hold(
            spent == planned,
            f"{interpreter.name}: further_passes({looks}) is {planned}, but the answers say {spent} passes",
        )


def _check_select(interpreter: Interpreter, x: Tensor, y: Tensor) -> None:
    """An objective that goes on with some of its images does what one made for these does after as many looks."""
    name = interpreter.name
    places = torch.tensor([3, 0, 3])  # some only, in another order, and one keeps itself company
    map_target = _map_target(y, interpreter(x, y).roll(1, dims=0))
    narrowed, fresh = _objective(interpreter, map_target), _objective(interpreter, map_target.select(places))
    first, *others = _path(x)
    with interpreter.classifier.frozen():
        whole, part = _look(interpreter, narrowed, first), _look(interpreter, fresh, first[places])
        of_places = replace(
            whole, distance=whole.distance[places], loss=whole.loss[places], direction=whole.direction[places]
        )
        _check_same(of_places, part, f"{name}: what else is in the batch changes")
        with _kept(f"{name}: after select, its objective does not go on with the images that are left"):
            narrowed.select(places)
            found = [_look(interpreter, narrowed, images[places]) for images in others]
        for answer, images in zip(found, others, strict=True):
            wanted = _look(interpreter, fresh, images[places])
            _check_same(answer, wanted, f"{name}: having had other images before select changes")


def _check_same(answer: MapGradient, wanted: MapGradient, what: str) -> None:
    for part in ("distance", "loss", "direction"):
        found, value = getattr(answer, part), getattr(wanted, part)
        hold(found.shape == value.shape, f"{what} the shape of an objective's {part}")
        scale = float(value.abs().max())
        hold(float((found - value).abs().max()) <= 1e-6 * scale, f"{what} an objective's {part}")
    hold(answer.passes == wanted.passes, f"{what} an objective's passes")


@contextmanager
def _kept(what: str) -> Iterator[None]:
    """Say ``what`` where torch fails inside the block, as it does on shapes that don't fit or memory given back."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise AssertionError(f"{what} ({error})") from error


def _answer(interpreter: Interpreter, x: Tensor, y: Tensor, target: Tensor, *, seed: int = 0) -> MapGradient:
    """The first answer of a fresh objective at ``target``, of an attack with ``seed``."""
    with interpreter.classifier.frozen():
        return _look(interpreter, _objective(interpreter, replace(_map_target(y, target), seed=seed)), x)


def _objective(interpreter: Interpreter, map_target: MapTarget) -> MapObjective:
    """A fresh objective that has all its parts."""
    objective = interpreter.objective(map_target)
    for part in ("taps", "needs_backward", "select"):
        hold(hasattr(objective, part), f"{interpreter.name}: its objective has no {part!r}")
    return objective


def _look(
    interpreter: Interpreter, objective: MapObjective, x: Tensor, *, freed_for: Tensor | None = None
) -> MapGradient:
    """The answer of ``objective`` at ``x``, its direction one in x.

    It is given no more than its taps, and a view whose memory was given back if ``freed_for`` names classes (N,).
    """
    view = ForwardPass(interpreter.classifier, x, taps=objective.taps)
    if freed_for is not None:
        view.nll_gradient(freed_for, last=True)
    try:
        answer = objective(view)
        return (
            answer
            if answer.at is None
            else replace(answer, direction=view.carried(answer.at, answer.direction), at=None)
        )
    except KeyError as error:
        if not isinstance(error.args[0], FeatureMap):
            raise
        unnamed = error.args[0].module
        raise AssertionError(
            f"{interpreter.name}: reads {unnamed!r}, which is not among its objective's taps"
        ) from error


def _map_target(y: Tensor, target: Tensor) -> MapTarget:
    return MapTarget(y, target, keys_of(len(y)), seed=0)


def _path(x: Tensor) -> list[Tensor]:
    """The images ``x`` on a walk of a few steps, as an attack takes one."""
    return [x, 0.98 * x, 0.02 + 0.96 * x, 0.02 + 0.94 * x]
